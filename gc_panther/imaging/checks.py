"""What every image has to be, whatever its format, checked before its pixels are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gc_panther.case import Geometry
from gc_panther.errors import InputError
from gc_panther.imaging.formats.header import Header
from gc_panther.memory import check_memory

#: Voxels of the largest image that is taken, as stored or as resampled for a network: 512×512×1024.
#: PANTHER's largest have 19 million.
MOST_VOXELS = 2**28
#: Distance between voxels that a scanner can have, mm: from micro-CT to a localizer's slices.
SPACING_MM = (1e-3, 100.0)
#: Length of an image along any axis, mm; scanners of the whole body reach about 2 m.
MOST_MM = 2500.0
#: Distance of the first voxel from the scanner's centre, mm.
FARTHEST_ORIGIN_MM = 1e5
#: How far the product of two axes' direction cosines may be from 0, and their length from 1.
#: Numbers in single precision, or with four decimals, stay below; a shear of so much moves a voxel
#: at the end of 50 cm by half a millimetre.
ORTHONORMAL_TOLERANCE = 1e-3
#: Bytes per voxel that drawing takes in addition to the image and its reordered copy.
_DRAWING = 16

_FIX = "Export the image again as .mha or .nii.gz"


def check_header(header: Header, *, where: str | Path, stored: int = 0) -> Geometry:
    """Refuse a header of an image that cannot be taken.

    Args:
        header: of any format.
        where: what the error message calls the image.
        stored: bytes of compressed pixels that are read as well.

    Returns:
        The image's grid.

    Raises:
        InputError: it is not a scalar 3-D image, its grid is not a scan's, or it is too large for
            this machine.
    """
    check_kind(header.size, header.components, header.dtype, where=where)
    check_voxels(header.size, where=where)
    x, y, z = header.size
    geometry = Geometry((x, y, z), header.spacing_xyz, header.origin_xyz, header.direction)
    check_geometry(geometry, where=where)
    kept = (header.result or header.dtype).itemsize
    # As stored, as handed out, in LPS order, and what is drawn of it.
    voxel = header.dtype.itemsize + (kept if header.result else 0) + kept + _DRAWING
    check_memory(stored + math.prod(header.size) * voxel, doing="read", where=where)
    return geometry


def check_kind(size: Sequence[int], components: int, dtype: np.dtype, *, where: str | Path) -> None:
    """Refuse what is not a scalar, real, non-empty 3-D image.

    Raises:
        InputError: with what it is.
    """
    if len(size) != 3 or 0 in size:
        raise InputError(
            f"the image is not a volume (its size is {'×'.join(map(str, size))})",
            where=where,
            fix="Give one three-dimensional image",
        )
    if components != 1 or dtype.kind not in "iuf":
        raise InputError(
            "the image has several values per voxel, as colour and complex images have",
            where=where,
            fix="Give a greyscale image",
        )


def check_voxels(size: Sequence[int], *, where: str | Path, doing: str = "") -> None:
    """Refuse a grid that no scan has, before memory is taken for it.

    Args:
        size: voxels along each axis.
        where: what the error message calls the image.
        doing: which grid it is, such as "resampled for the network"; empty for the stored one.

    Raises:
        InputError: it has more than :data:`MOST_VOXELS`.
    """
    if math.prod(map(int, size)) > MOST_VOXELS:
        shape = "×".join(f"{int(n):.6g}" for n in size)
        raise InputError(
            f"the image is too large{f' when {doing}' if doing else ''} "
            f"({shape} voxels; at most {MOST_VOXELS / 1e6:.0f} million are taken)",
            where=where,
            fix="Check its size and its spacing (mm), and crop or resample it",
        )


def check_geometry(geometry: Geometry, *, where: str | Path) -> None:
    """Refuse a grid that no scanner makes.

    Raises:
        InputError: a number is NaN or infinite, the spacing, the length along an axis or the origin
            are beyond a scanner's, or the axes are not at right angles to each other.
    """
    numbers = (*geometry.spacing_xyz, *geometry.origin_xyz, *geometry.direction)
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(
            "the image's geometry holds NaN or infinite numbers", where=where, fix=_FIX
        )
    low, high = SPACING_MM
    if not all(low <= spacing <= high for spacing in geometry.spacing_xyz):
        raise InputError(
            f"the image's voxels are {_by_axis(geometry.spacing_xyz)} mm apart, "
            f"and a scanner's {low:g} to {high:g} mm",
            where=where,
            fix="Check the spacing and its unit",
        )
    lengths = [n * mm for n, mm in zip(geometry.size_xyz, geometry.spacing_xyz, strict=True)]
    if max(lengths) > MOST_MM:
        raise InputError(
            f"the image is {_by_axis(lengths)} mm large, and a scanner's at most {MOST_MM:g} mm",
            where=where,
            fix="Check the spacing and its unit",
        )
    if max(map(abs, geometry.origin_xyz)) > FARTHEST_ORIGIN_MM:
        raise InputError(
            f"the image's origin {_by_axis(geometry.origin_xyz, ', ')} mm is too far away",
            where=where,
            fix="Check the origin and its unit",
        )
    axes = np.asarray(geometry.direction, float).reshape(3, 3)
    with np.errstate(over="ignore", invalid="ignore"):
        off = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if not off <= ORTHONORMAL_TOLERANCE:
        raise InputError(
            "the axes of the image's grid are not at right angles to each other",
            where=where,
            fix="Resample it to a grid without shear, such as a scanner's without gantry tilt",
        )


def _by_axis(values: Sequence[float], between: str = "×") -> str:
    return between.join(f"{value:.6g}" for value in values)
