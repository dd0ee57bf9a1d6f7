"""nnU-Net's resampling without skimage: the same numbers in a fraction of the time.

nnU-Net's ``resample_data_or_seg_to_shape`` calls ``skimage.transform.resize`` per channel, which
is ``scipy.ndimage.zoom`` in float64 followed by a clip to the input's range. Spline interpolation
on a grid is linear and separable: along each axis it is one matrix, taken here from scipy itself
(its answers to unit vectors). In float64 both ways differ by rounding errors near 1e-16, which
the last step, rounding to the input's single or half precision, removes; only a value exactly
between two such numbers can become the other one.

Linear interpolation, which logits need, has two terms per axis: a matrix multiplies with zeros for
most of its time. torch's own bilinear interpolation in float64 has the same convention of half
pixels and repeated edges, and takes a fraction of the matrices' time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate


def resample(
    data: np.ndarray | torch.Tensor,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    resampling_fn: Any,
) -> np.ndarray:
    """Resample each channel to a shape, as a model's plans want it.

    Args:
        data: floating point, shape (channels, i, j, k).
        new_shape: spatial shape to reach.
        current_spacing: spacing of the data, in the order of its axes.
        new_spacing: spacing to reach.
        resampling_fn: one of the two functions of nnU-Net's ConfigurationManager for images and
            for logits, a partial with its settings. Others than nnU-Net's default are called.

    Returns:
        Shape (channels, *new_shape), the data's type.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import (
        determine_do_sep_z_and_axis,
        resample_data_or_seg_to_shape,
    )

    shape = tuple(int(size) for size in new_shape)
    settings = dict(resampling_fn.keywords)
    known = {"is_seg", "order", "order_z", "force_separate_z"}
    if (
        resampling_fn.func is not resample_data_or_seg_to_shape
        or settings.keys() - known
        or settings.get("is_seg")
    ):
        return np.asarray(resampling_fn(data, shape, current_spacing, new_spacing))
    channels = np.asarray(data)
    if channels.shape[1:] == shape:
        return channels
    separate, axis = determine_do_sep_z_and_axis(
        settings.get("force_separate_z", False), current_spacing, new_spacing
    )
    # One axis much coarser than the others is interpolated by itself, by another order.
    alone = int(axis) if separate and axis is not None else None
    order, order_alone = settings.get("order", 3), settings.get("order_z", 0)
    out = np.empty((len(channels), *shape), channels.dtype)
    for source, target in zip(channels, out, strict=True):
        if order == 1 and alone in (None, 0):
            _interpolate_planes(source, target, alone == 0, order_alone)
        else:
            target[...] = _resample_channel(source, shape, order, alone, order_alone)
    return out


def _interpolate_planes(
    source: np.ndarray, target: np.ndarray, first_alone: bool, order_alone: int
) -> None:
    """Fill ``target`` from ``source``: along the first axis, then bilinear in each plane.

    Both have shape (i, j, k), each its own. Where the first axis is interpolated by itself
    (``first_alone``) it is so with ``order_alone``, otherwise linearly. numpy rounds to the
    target's type in one step, as nnU-Net does; torch goes through float32.
    """
    values = torch.from_numpy(source.astype(np.float64))
    if first_alone:
        values = _along_alone(values, 0, len(target), order_alone)
    else:
        values = _along(values, 0, len(target), 1)
    for plane, place in zip(values, target, strict=True):
        place[...] = interpolate(plane[None, None], place.shape, mode="bilinear")[0, 0].numpy()


def _resample_channel(
    source: np.ndarray, shape: tuple[int, ...], order: int, alone: int | None, order_alone: int
) -> np.ndarray:
    values = torch.from_numpy(source.astype(np.float64))
    together = tuple(axis for axis in range(3) if axis != alone)
    if order > 1:
        # The clip's range is that of what skimage was given: a volume, or one slice at a time.
        low, high = values.amin(together, keepdim=True), values.amax(together, keepdim=True)
    # Axes that shrink go first: fewer products for the others.
    for axis in sorted(together, key=lambda a: shape[a] / source.shape[a]):
        values = _along(values, axis, shape[axis], order)
    if order > 1:
        # Linear interpolation leaves it by rounding errors only, which the last step removes.
        values = torch.minimum(torch.maximum(values, low), high)
    if alone is not None:
        values = _along_alone(values, alone, shape[alone], order_alone)
    return values.numpy()


def _along(values: torch.Tensor, axis: int, size: int, order: int) -> torch.Tensor:
    if values.shape[axis] == size:
        return values
    matrix = torch.from_numpy(_zoom_matrix(values.shape[axis], size, order))
    return _multiply(values, axis, matrix)


def _along_alone(values: torch.Tensor, axis: int, size: int, order: int) -> torch.Tensor:
    if values.shape[axis] == size:
        return values
    matrix = _map_matrix(values.shape[axis], size, order)
    if order == 0:
        return values.index_select(axis, torch.from_numpy(matrix.argmax(1)))
    return _multiply(values, axis, torch.from_numpy(matrix))


def _multiply(values: torch.Tensor, axis: int, matrix: torch.Tensor) -> torch.Tensor:
    """The matrix, shape (new, old), applied to one of three axes."""
    if axis == 2:
        return values @ matrix.T
    if axis == 1:
        return matrix @ values
    return (matrix @ values.flatten(1)).unflatten(1, values.shape[1:])


@lru_cache(maxsize=32)
def _zoom_matrix(old: int, new: int, order: int) -> np.ndarray:
    """What scipy's zoom, as skimage calls it, does to a line of ``old`` values: (new, old)."""
    from scipy.ndimage import zoom

    return np.stack(
        [
            zoom(unit, new / old, order=order, mode="nearest", grid_mode=True)
            for unit in np.eye(old)
        ],
        axis=1,
    )


@lru_cache(maxsize=32)
def _map_matrix(old: int, new: int, order: int) -> np.ndarray:
    """What nnU-Net does along an axis that it interpolates by itself: (new, old)."""
    from scipy.ndimage import map_coordinates

    places = float(old) / new * (np.arange(new) + 0.5) - 0.5
    return np.stack(
        [map_coordinates(unit, [places], order=order, mode="nearest") for unit in np.eye(old)],
        axis=1,
    )
