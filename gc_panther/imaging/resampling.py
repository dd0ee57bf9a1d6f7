"""Resampling a volume to another spacing."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import SimpleITK as sitk

from gc_panther.case import XYZ, Geometry, Volume
from gc_panther.imaging.checks import check_voxels
from gc_panther.imaging.geometry import physical_points
from gc_panther.imaging.images import to_sitk
from gc_panther.memory import check_memory

_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}


def resampled_geometry(geometry: Geometry, spacing_xyz: XYZ) -> Geometry:
    """The grid of another spacing that covers the same block of the patient.

    Both grids share their centre and their axes. The new one has as few voxels as cover the whole
    extent of the old one, outer half voxels included, and at least one along each axis.
    """
    new_size = [
        max(1, math.ceil(n * old / new - 1e-6))
        for n, old, new in zip(geometry.size_xyz, geometry.spacing_xyz, spacing_xyz, strict=True)
    ]
    # Index, on the old grid, of the new grid's first voxel centre.
    first_xyz = [
        (n - 1) / 2 - (m - 1) / 2 * new / old
        for n, m, old, new in zip(
            geometry.size_xyz, new_size, geometry.spacing_xyz, spacing_xyz, strict=True
        )
    ]
    origin = physical_points(geometry, np.asarray(first_xyz))
    return Geometry(
        size_xyz=(new_size[0], new_size[1], new_size[2]),
        spacing_xyz=spacing_xyz,
        origin_xyz=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=geometry.direction,
    )


def resample(
    volume: Volume, spacing_xyz: XYZ, *, interpolator: Literal["linear", "nearest"] = "linear"
) -> Volume:
    """Resample to another spacing, on the grid of :func:`resampled_geometry`.

    Args:
        volume: what to resample.
        spacing_xyz: the new distance of voxel centres along x, y, z, mm.
        interpolator: ``linear`` gives float32, ``nearest`` keeps the type (for labels).

    Raises:
        InputError: it would become too large.
    """
    # Without origin and direction, so that rounding in them cannot change a voxel's value: the
    # same image stored in another order gives the same result to the last bit.
    plain = Geometry(volume.geometry.size_xyz, volume.geometry.spacing_xyz)
    target = resampled_geometry(plain, spacing_xyz)
    doing = f"resampled to {'×'.join(f'{mm:g}' for mm in spacing_xyz)} mm"
    check_voxels(target.size_xyz, where="image", doing=doing)
    # SimpleITK's copy of the image, and what it makes of it, there and here.
    result = 4 if interpolator == "linear" else volume.array_zyx.itemsize
    needed = volume.array_zyx.nbytes + 2 * result * math.prod(target.size_xyz)
    check_memory(needed, doing=doing, where="image")
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(target.size_xyz)
    resampler.SetOutputSpacing(target.spacing_xyz)
    resampler.SetOutputOrigin(target.origin_xyz)
    resampler.SetInterpolator(_INTERPOLATORS[interpolator])
    if interpolator == "linear":
        resampler.SetOutputPixelType(sitk.sitkFloat32)
    image = resampler.Execute(to_sitk(Volume(volume.array_zyx, plain)))
    return Volume(sitk.GetArrayFromImage(image), resampled_geometry(volume.geometry, spacing_xyz))
