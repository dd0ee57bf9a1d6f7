"""Where the windows of a sliding-window prediction lie, and how they are mirrored and weighted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

Slices = tuple[slice, ...]


class OutOfTimeError(Exception):
    """A deadline passed; what was begun is worth nothing."""


def window_slices(shape: Sequence[int], patch: Sequence[int], step_size: float) -> list[Slices]:
    """Index expressions, channel axis included, of nnU-Net's windows over an image.

    Args:
        shape: spatial shape, nowhere smaller than the patch.
        patch: spatial shape of a window.
        step_size: distance of neighbouring windows as a fraction of the patch, at most.
    """
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    steps = compute_steps_for_sliding_window(tuple(shape), tuple(patch), step_size)
    return [
        (slice(None), *(slice(s, s + p) for s, p in zip(start, patch, strict=True)))
        for start in itertools.product(*steps)
    ]


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every set of axes to flip, the empty one first; 2 to the power of ``len(axes)`` of them."""
    return [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]


@torch.inference_mode()
def predict_windows(
    network: Callable[[torch.Tensor], torch.Tensor],
    data: torch.Tensor,
    heads: int,
    slices: Sequence[Slices],
    patch: Sequence[int],
    mirroring: Sequence[tuple[int, ...]],
    on_pass: Callable[[], None],
    batch: int = 1,
    out_of_time: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """Average a network's logits over overlapping, mirrored windows.

    A window weighs most in its centre (nnU-Net's Gaussian). Sums are kept in half precision and
    taken in nnU-Net's order, so that every voxel gets the label nnU-Net would give it; in the
    outermost corners of the image, where all weights are tiny, logits are coarse for that reason.

    Args:
        network: maps (batch, channels, i, j, k) to (batch, heads, i, j, k).
        data: the image, shape (channels, i, j, k), on the network's device.
        heads: number of the network's outputs.
        slices: windows, from :func:`window_slices`.
        patch: spatial shape of a window.
        mirroring: sets of spatial axes to flip, from :func:`mirror_combinations`.
        on_pass: called once for each mirrored window that is done.
        batch: mirrored windows given to the network at once, at most; the order of the sums does
            not depend on it.
        out_of_time: asked before each pass whether to give up.

    Returns:
        Half-precision logits, shape (heads, i, j, k); infinite where they overflow.

    Raises:
        OutOfTimeError: ``out_of_time`` said so.
    """
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    device = data.device
    logits = torch.zeros((heads, *data.shape[1:]), dtype=torch.half, device=device)
    weight = torch.zeros(data.shape[1:], dtype=torch.half, device=device)
    gaussian = compute_gaussian(
        tuple(patch), sigma_scale=1.0 / 8, value_scaling_factor=10, device=device
    )
    jobs = [(window, flipped) for window in slices for flipped in mirroring]
    total: torch.Tensor | None = None
    done = 0
    for start in range(0, len(jobs), batch):
        if out_of_time():
            raise OutOfTimeError
        chunk = jobs[start : start + batch]
        tiles = torch.stack([torch.flip(data[window], _spatial(axes)) for window, axes in chunk])
        for (window, flipped), answer in zip(chunk, network(tiles), strict=True):
            part = torch.flip(answer, _spatial(flipped)) if flipped else answer
            total = part.clone() if total is None else total.add_(part)
            done += 1
            if done % len(mirroring) == 0:
                logits[window] += (total / len(mirroring)) * gaussian
                weight[window[1:]] += gaussian
                total = None
            on_pass()
    return logits.div_(weight)


def _spatial(axes: Sequence[int]) -> tuple[int, ...]:
    """Spatial axes as axes of a tensor whose first axis is the channel."""
    return tuple(axis + 1 for axis in axes)
