"""Storage order: bring a volume to LPS by permuting and flipping its axes, and put results back.

In LPS order, x runs towards the patient's left, y towards posterior, z towards superior. No voxel
is interpolated: an oblique volume keeps its remaining rotation, and the way back is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.geometry import physical_points
from gc_panther.imaging.roi import Box

#: Anatomical letter -> (LPS axis, whether the stored axis runs against it).
_LETTERS = {
    "L": (0, False), "R": (0, True),
    "P": (1, False), "A": (1, True),
    "S": (2, False), "I": (2, True),
}  # fmt: skip


@dataclass(frozen=True)
class _Reordering:
    """How the axes of a stored grid become those of its LPS grid.

    Attributes:
        source: stored axis (0 = x) behind each LPS axis x, y, z.
        flipped: whether that axis is reversed.
    """

    source: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def forward(self, array_zyx: np.ndarray) -> np.ndarray:
        return array_zyx.T.transpose(self.source)[self._slices].T

    def backward(self, array_zyx: np.ndarray) -> np.ndarray:
        return array_zyx.T[self._slices].transpose(np.argsort(self.source)).T

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flipped else None) for flipped in self.flipped)


def _reordering(geometry: Geometry) -> _Reordering:
    # SimpleITK names the axes itself, so that ties (rotations by 45°) fall as in its DICOMOrient.
    letters = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(geometry.direction)
    stored = {
        axis: (source, against)
        for source, (axis, against) in enumerate(_LETTERS[letter] for letter in letters)
    }
    x, y, z = (stored[axis] for axis in range(3))
    return _Reordering((x[0], y[0], z[0]), (x[1], y[1], z[1]))


def lps_geometry(geometry: Geometry) -> Geometry:
    """The grid a volume has after :func:`to_lps`."""
    order = _reordering(geometry)
    direction = np.asarray(geometry.direction, float).reshape(3, 3)[:, order.source]
    direction = direction * np.where(order.flipped, -1.0, 1.0)
    first_xyz = np.zeros(3)
    for axis, flipped in zip(order.source, order.flipped, strict=True):
        first_xyz[axis] = geometry.size_xyz[axis] - 1 if flipped else 0
    x, y, z = order.source
    size, spacing = geometry.size_xyz, geometry.spacing_xyz
    origin = physical_points(geometry, first_xyz)
    return Geometry(
        size_xyz=(size[x], size[y], size[z]),
        spacing_xyz=(spacing[x], spacing[y], spacing[z]),
        origin_xyz=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(value) for value in direction.ravel()),
    )


def to_lps(volume: Volume) -> Volume:
    """Reorder the axes so that they run as close to left, posterior, superior as they can.

    The result equals ``SimpleITK.DICOMOrient(image, "LPS")`` in pixels and geometry.
    """
    array_zyx = _reordering(volume.geometry).forward(volume.array_zyx)
    return Volume(np.ascontiguousarray(array_zyx), lps_geometry(volume.geometry))


def from_lps(array_zyx: np.ndarray, like: Geometry) -> np.ndarray:
    """Put an array on the LPS grid back into the order of the stored grid.

    Args:
        array_zyx: values on ``lps_geometry(like)``, shape (z, y, x) there.
        like: the geometry of the image as it was stored.

    Returns:
        The same values, shape ``like.shape_zyx``.

    Raises:
        ValueError: the array does not lie on the LPS grid of ``like``.
    """
    expected = lps_geometry(like).shape_zyx
    if array_zyx.shape != expected:
        raise ValueError(f"array of shape {array_zyx.shape} on an LPS grid of {expected}")
    return np.ascontiguousarray(_reordering(like).backward(array_zyx))


def box_from_lps(box: Box, like: Geometry) -> Box:
    """Express a box of the LPS grid in the indices of the stored grid ``like``."""
    order = _reordering(like)
    start, stop = [0, 0, 0], [0, 0, 0]
    for lps_axis, (axis, flipped) in enumerate(zip(order.source, order.flipped, strict=True)):
        low, high = box.start_xyz[lps_axis], box.stop_xyz[lps_axis]
        size = like.size_xyz[axis]
        start[axis], stop[axis] = (size - high, size - low) if flipped else (low, high)
    return Box((start[2], start[1], start[0]), (stop[2], stop[1], stop[0]))
