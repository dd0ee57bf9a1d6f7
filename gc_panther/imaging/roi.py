"""Regions of interest: boxes of voxels, cutting them out and putting results back."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.geometry import continuous_indices, physical_points

ZYX = tuple[int, int, int]

#: Parts of a voxel that count as rounding when a box is mapped to another grid.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Box:
    """A block of voxels of some grid.

    Attributes:
        start_zyx: the first voxel, (z, y, x).
        stop_zyx: one past the last voxel, (z, y, x).
    """

    start_zyx: ZYX
    stop_zyx: ZYX

    @classmethod
    def whole(cls, shape_zyx: ZYX) -> Box:
        """The box that holds all voxels of a grid."""
        return cls((0, 0, 0), shape_zyx)

    @property
    def start_xyz(self) -> ZYX:
        """The first voxel, (x, y, z)."""
        z, y, x = self.start_zyx
        return (x, y, z)

    @property
    def stop_xyz(self) -> ZYX:
        """One past the last voxel, (x, y, z)."""
        z, y, x = self.stop_zyx
        return (x, y, z)

    @property
    def shape_zyx(self) -> ZYX:
        """Shape of an array cut out by this box."""
        z, y, x = (
            max(0, stop - start) for start, stop in zip(self.start_zyx, self.stop_zyx, strict=True)
        )
        return (z, y, x)

    @property
    def slices_zyx(self) -> tuple[slice, slice, slice]:
        """Index expression for an array of the box's grid."""
        z, y, x = (slice(*ends) for ends in zip(self.start_zyx, self.stop_zyx, strict=True))
        return (z, y, x)

    def dilate_mm(self, mm: float, geometry: Geometry) -> Box:
        """Grow by at least ``mm`` millimetres on every side of the grid ``geometry``.

        The margin is rounded up to whole voxels; the result may reach beyond the grid.
        """
        margin = [math.ceil(mm / spacing - _ROUNDING) for spacing in geometry.spacing_zyx]
        start = [value - grow for value, grow in zip(self.start_zyx, margin, strict=True)]
        stop = [value + grow for value, grow in zip(self.stop_zyx, margin, strict=True)]
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def clip(self, shape_zyx: ZYX) -> Box:
        """The part of the box that lies on a grid of this shape; may hold no voxel."""
        start = [min(max(v, 0), n) for v, n in zip(self.start_zyx, shape_zyx, strict=True)]
        stop = [min(max(v, 0), n) for v, n in zip(self.stop_zyx, shape_zyx, strict=True)]
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def bounding_box(mask_zyx: np.ndarray) -> Box | None:
    """The smallest box around the non-zero voxels, the last ones included; None if there are none.

    Args:
        mask_zyx: any array of shape (z, y, x).
    """
    ends = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(mask_zyx.any(axis=others))
        if not occupied.size:
            return None
        ends.append((int(occupied[0]), int(occupied[-1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = ends
    return Box((z0, y0, x0), (z1, y1, x1))


def crop(volume: Volume, box: Box) -> Volume:
    """Cut a box out of a volume; every voxel stays where it was in the patient.

    Raises:
        ValueError: the box is empty or reaches beyond the volume.
    """
    shape = volume.geometry.shape_zyx
    if box.clip(shape) != box or 0 in box.shape_zyx:
        raise ValueError(f"{box} does not lie inside a volume of shape {shape}")
    origin = physical_points(volume.geometry, np.asarray(box.start_xyz))
    z, y, x = box.shape_zyx
    geometry = replace(
        volume.geometry,
        size_xyz=(x, y, z),
        origin_xyz=(float(origin[0]), float(origin[1]), float(origin[2])),
    )
    return Volume(volume.array_zyx[box.slices_zyx], geometry)


def paste(array_zyx: np.ndarray, box: Box, shape_zyx: ZYX) -> np.ndarray:
    """Put a cut-out array back into zeros of the full shape, the inverse of :func:`crop`.

    Raises:
        ValueError: the array is not of the box's shape, or the box reaches beyond the full shape.
    """
    if box.clip(shape_zyx) != box or array_zyx.shape != box.shape_zyx:
        raise ValueError(f"array of shape {array_zyx.shape} into {box} of shape {shape_zyx}")
    full = np.zeros(shape_zyx, array_zyx.dtype)
    full[box.slices_zyx] = array_zyx
    return full


def box_on_grid(box: Box, from_geometry: Geometry, to_geometry: Geometry) -> Box:
    """Map a box to another grid in physical space.

    Args:
        box: voxels of ``from_geometry``; they are taken with their full extent, half a voxel
            beyond the outermost centres.
        from_geometry: the grid of the box.
        to_geometry: the grid of the result.

    Returns:
        All voxels of ``to_geometry`` that the box touches, as a box along that grid's axes, and
        clipped to it; it holds no voxel where the two do not overlap.
    """
    faces = [
        (start - 0.5, stop - 0.5) for start, stop in zip(box.start_xyz, box.stop_xyz, strict=True)
    ]
    corners = np.array(list(itertools.product(*faces)))
    mapped = continuous_indices(to_geometry, physical_points(from_geometry, corners))
    start = np.floor(mapped.min(axis=0) + 0.5 + _ROUNDING).astype(int).tolist()
    stop = np.ceil(mapped.max(axis=0) + 0.5 - _ROUNDING).astype(int).tolist()
    return Box((start[2], start[1], start[0]), (stop[2], stop[1], stop[0])).clip(
        to_geometry.shape_zyx
    )
