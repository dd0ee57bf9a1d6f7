"""From an image to what a network sees, exactly as nnU-Net prepares it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from gc_panther.case import Volume
from gc_panther.imaging.checks import check_voxels
from gc_panther.nnunet.inference.resampling import resample
from gc_panther.nnunet.model.estimates import Grids

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class NetworkInput:
    """A preprocessed image, and what is needed to bring its labels back to the image.

    Axes (i, j, k) are the plans' order of (z, y, x).

    Attributes:
        data: float32, shape (1, i, j, k), at the plans' spacing.
        spacing: the image's spacing along (i, j, k), mm.
        full_shape: the image's shape.
        box: start and stop (exclusive) per axis of the part of the image that ``data`` covers.
    """

    data: np.ndarray
    spacing: tuple[float, ...]
    full_shape: tuple[int, ...]
    box: Box

    @property
    def box_shape(self) -> tuple[int, ...]:
        """Shape of the covered part of the image."""
        return tuple(stop - start for start, stop in self.box)


def preprocess(
    volume: Volume,
    plans_manager: Any,
    configuration: Any,
    check: Callable[[Grids], None] = lambda _: None,
) -> NetworkInput:
    """Transpose, crop to non-zero, normalise and resample a single-channel image.

    Gives the array of ``DefaultPreprocessor.run_case_npy``
    (nnunetv2/preprocessing/preprocessors/default_preprocessor.py), bit by bit. Left out is what
    inference throws away: a segmentation to resample. Images thinner than half a voxel of the
    plans, for which nnU-Net computes an empty array, keep one.

    Args:
        volume: an image in the orientation the network was trained on.
        plans_manager: nnU-Net's PlansManager.
        configuration: its ConfigurationManager.
        check: refuses an image by the shapes that it is about to take.

    Raises:
        InputError: the image would become too large at the network's spacing.
    """
    axes = plans_manager.transpose_forward
    # A copy, because normalisation works in place; in one memory order whatever the volume's,
    # because float32 means depend on it.
    image = volume.array_zyx.astype(np.float32, order="C").transpose(axes)
    spacing = tuple(float(volume.geometry.spacing_zyx[axis]) for axis in axes)
    target = configuration.spacing
    data, outside, box = _crop_to_nonzero(image, any(configuration.use_mask_for_norm))
    shape = np.maximum(compute_new_shape(data.shape, spacing, target), 1)
    check_voxels(shape, where="image", doing="resampled for the network")
    patch = tuple(int(size) for size in configuration.patch_size)
    check(Grids(image.shape, data.shape, tuple(int(n) for n in shape), patch))
    data = DefaultPreprocessor(verbose=False)._normalize(
        data[None],
        outside[None],
        configuration,
        plans_manager.foreground_intensity_properties_per_channel,
    )
    data = resample(data, shape, spacing, target, configuration.resampling_fn_data)
    return NetworkInput(np.ascontiguousarray(data), spacing, image.shape, box)


def _crop_to_nonzero(image: np.ndarray, need_mask: bool) -> tuple[np.ndarray, np.ndarray, Box]:
    """The bounding box of everything that is not zero; the whole image where all is zero.

    Returns:
        The cropped image, a map of the crop that is -1 outside the patient (nnU-Net's convention)
        and 0 inside, and the box. Only a mask needs its holes filled, the box does not.
    """
    nonzero = image != 0
    ends = []
    for axis, size in enumerate(image.shape):
        others = tuple(other for other in range(image.ndim) if other != axis)
        used = np.flatnonzero(nonzero.any(axis=others))
        ends.append((int(used[0]), int(used[-1]) + 1) if used.size else (0, size))
    box = tuple(ends)
    inside = tuple(slice(*end) for end in box)
    if not need_mask:
        return image[inside], np.zeros((), np.int8), box
    from scipy.ndimage import binary_fill_holes

    outside = np.where(binary_fill_holes(nonzero)[inside], np.int8(0), np.int8(-1))
    return image[inside], outside, box
