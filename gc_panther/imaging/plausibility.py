"""Whether an image can be, and looks like, a magnetic-resonance scan of a person's trunk.

:func:`scan_problems` finds what no such scan can be: these images are refused.
:func:`scan_warnings` finds what one hardly is: these are segmented, with a warning.

What cannot be seen in the pixels is not found: an image stored flipped under a header that does not
say so, another part of the body, another sequence, or CT whose values were shifted above zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.text import count

#: Largest voxel side below which the unit is taken to be the metre, mm. Voxels of MRI of people are
#: 0.2 to 10 mm, which is 0.0002 to 0.01 in metres; 0.05 mm is reached on excised tissue only.
LEAST_VOXEL_MM = 0.05
#: Fields of view that no scan of a trunk has, mm. The field of view is the image's second largest
#: side, which does not depend on the direction of the slices. A bore is 700 mm wide.
LEAST_VIEW_MM, LARGEST_VIEW_MM = 50.0, 1000.0
#: No person is longer, mm.
LONGEST_MM = 2500.0
#: Up to this many different values an image looks like a label map. Those of 50 organs exist, and
#: scans that were reduced to eight bits have 100 or more.
FEW_VALUES = 64
#: Shares of voxels below which values like CT's air, and negative values, are not mentioned.
AIR_SHARE, NEGATIVE_SHARE = 0.01, 0.05
#: Hounsfield units of air are -1000, of lung -850 to -500; MRI has no values as low, except where
#: phases were exported instead of magnitudes.
AIR_HU = -500.0
#: Values are negative below this part of the 99th percentile. Resampling's ringing stays above it.
RINGING = -0.05
#: Correlation of neighbouring voxels. Scans, and phantoms with noise, have 0.9 and more; noise has
#: 0.00. Below the first value an image is refused, below the second one there is a warning.
NOISE_CORRELATION, LEAST_CORRELATION = 0.05, 0.3
#: A pancreas is not covered by fewer slices, or by fewer millimetres.
LEAST_SLICES, LEAST_COVERAGE_MM = 10, 30.0

#: Number of voxels from which shares, percentiles and correlations are estimated.
SAMPLE = 1 << 18
_PART = 1 << 22


@dataclass(frozen=True)
class ExpectedScan:
    """What a task's images are, for its warnings.

    Attributes:
        kind: what messages call them, such as ``T1-weighted MRI of the abdomen``.
        view_mm: least and largest usual field of view, mm.
    """

    kind: str
    view_mm: tuple[float, float]


def scan_problems(volume: Volume) -> list[str]:
    """What makes it impossible that an image is a scan of a person, one sentence each.

    Args:
        volume: the image as stored, in any orientation.

    Returns:
        Sentences without a final stop; empty for every scan.
    """
    return [*_impossible_values(volume.array_zyx), *_impossible_size(volume.geometry)]


def scan_warnings(volume: Volume, expected: ExpectedScan) -> list[str]:
    """What an image has that the expected scans don't, one sentence each.

    Args:
        volume: the image as stored, in any orientation; without what :func:`scan_problems` finds.
        expected: what it should be.
    """
    return [
        *_unusual_values(volume.array_zyx, expected),
        *_unusual_size(volume.geometry, expected),
    ]


def _impossible_values(array_zyx: np.ndarray) -> list[str]:
    low, high = array_zyx.min(), array_zyx.max()
    if low == high:
        return [f"all voxels have the value {low:g}: the image is blank, export the scan again"]
    if all(((part == low) | (part == high)).all() for part in _parts(array_zyx)):
        return [f"the image is a mask (its only values are {low:g} and {high:g}): give the scan"]
    if _correlation(array_zyx) < NOISE_CORRELATION:
        return ["the image is noise or damaged: its neighbouring voxels do not correlate"]
    return []


def _impossible_size(geometry: Geometry) -> list[str]:
    if max(geometry.spacing_xyz) < LEAST_VOXEL_MM:
        return [
            f"the voxels measure {_by(geometry.spacing_xyz)} mm, which no scanner for people "
            "reaches: export the image in millimetres, not in metres"
        ]
    view, longest = _view(geometry), max(_extent(geometry))
    if view < LEAST_VIEW_MM or view > LARGEST_VIEW_MM or longest > LONGEST_MM:
        return [
            f"the image measures {_by(_extent(geometry))} mm, which is too "
            f"{'small' if view < LEAST_VIEW_MM else 'large'} for a scan of a person: check the "
            "voxel size in its header"
        ]
    return []


def _unusual_values(array_zyx: np.ndarray, expected: ExpectedScan) -> list[str]:
    found = []
    sample = _sample(array_zyx)
    different = np.unique(sample).size
    if different <= FEW_VALUES:
        found.append(f"The image has only about {different} different values, as a label map has")
    sample = sample.astype(np.float64)
    air = float((sample < AIR_HU).mean())
    negative = float((sample < RINGING * np.percentile(np.abs(sample), 99)).mean())
    if air > AIR_SHARE:
        found.append(
            f"{100 * air:.0f} % of the voxels are below {AIR_HU:.0f}, as air is in CT; "
            f"{expected.kind} is expected"
        )
    elif negative > NEGATIVE_SHARE:
        found.append(
            f"{100 * negative:.0f} % of the voxels are negative, which those of MRI are not unless "
            "they were normalised"
        )
    if _correlation(array_zyx) < LEAST_CORRELATION:
        found.append("Neighbouring voxels hardly correlate, as in noise or damaged pixels")
    return found


def _unusual_size(geometry: Geometry, expected: ExpectedScan) -> list[str]:
    found = []
    least, largest = expected.view_mm
    extent, view = _extent(geometry), _view(geometry)
    if view < least or max(extent) > largest:
        found.append(
            f"The image measures {_by(extent)} mm; {expected.kind} usually covers {least:.0f} to "
            f"{largest:.0f} mm"
        )
    slices, covered = min(zip(geometry.size_xyz, extent, strict=True))
    if slices < LEAST_SLICES or covered < LEAST_COVERAGE_MM:
        found.append(
            f"The image has only {count(slices, 'slice')} ({covered:.3g} mm), "
            "too little for a whole pancreas"
        )
    return found


def _sample(array_zyx: np.ndarray) -> np.ndarray:
    """Evenly spread voxels, about :data:`SAMPLE` of them, from all rows and columns."""
    flat = array_zyx.reshape(-1)
    step = max(1, flat.size // SAMPLE)
    # A step that has a factor in common with the row length would see some columns only.
    while math.gcd(step, flat.size) != 1:
        step += 1
    return flat[::step]


def _parts(array_zyx: np.ndarray) -> Iterator[np.ndarray]:
    """The sample, which settles it for nearly every scan, then all voxels, part by part."""
    yield _sample(array_zyx)
    flat = array_zyx.reshape(-1)
    for start in range(0, flat.size, _PART):
        yield flat[start : start + _PART]


def _correlation(array_zyx: np.ndarray) -> float:
    """Largest correlation of neighbours along an axis; 1 where there is nothing to compare.

    Values beyond the 1st and 99th percentiles are clipped: a few hot voxels do not make it noise.
    """
    limits = np.percentile(_sample(array_zyx), (1, 99))
    step = max(1, round((array_zyx.size / SAMPLE) ** (1 / 3)))
    found = []
    for axis in range(array_zyx.ndim):
        one, other = (
            np.clip(np.moveaxis(array_zyx, axis, 0)[first:last:step, ::step, ::step], *limits)
            for first, last in ((0, -1), (1, None))
        )
        if one.size > 1 and one.std() > 0 and other.std() > 0:
            found.append(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]))
    return max(found, default=1.0)


def _extent(geometry: Geometry) -> tuple[float, ...]:
    return tuple(n * mm for n, mm in zip(geometry.size_xyz, geometry.spacing_xyz, strict=True))


def _view(geometry: Geometry) -> float:
    """The field of view: the second largest side, whatever the direction of the slices, mm."""
    return sorted(_extent(geometry))[1]


def _by(numbers: tuple[float, ...]) -> str:
    return "×".join(f"{number:.4g}" for number in numbers)
