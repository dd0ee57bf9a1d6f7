"""Where the windows of a sliding-window prediction lie, and how they are mirrored and weighted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

Slices = tuple[slice, ...]
#: Spatial axes to flip.
Axes = tuple[int, ...]
#: Windows, each with the sets of axes to flip in it.
Windows = Sequence[tuple[Slices, Sequence[Axes]]]


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


def mirror_combinations(axes: Sequence[int]) -> list[Axes]:
    """Every set of axes to flip, the empty one first; 2 to the power of ``len(axes)`` of them."""
    return [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]


@torch.inference_mode()
def window_logits(
    network: Callable[[torch.Tensor], torch.Tensor],
    data: torch.Tensor,
    windows: Windows,
    on_pass: Callable[[], None],
    batch: int = 1,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Iterator[torch.Tensor]:
    """Yield a network's logits in each window, the mean over its mirrored copies.

    Args:
        network: maps (batch, channels, i, j, k) to (batch, heads, i, j, k).
        data: the image, shape (channels, i, j, k), on the network's device.
        windows: from :func:`window_slices`, each with at least one set of axes to flip, such as
            those of :func:`mirror_combinations`.
        on_pass: called once for each mirrored window that is done.
        batch: mirrored windows given to the network at once, at most; the order of the sums does
            not depend on it.
        out_of_time: asked before each pass whether to give up.

    Raises:
        OutOfTimeError: ``out_of_time`` said so.
    """
    jobs = [
        (window, flipped, number == len(mirroring))
        for window, mirroring in windows
        for number, flipped in enumerate(mirroring, start=1)
    ]
    total: torch.Tensor | None = None
    copies = 0
    for start in range(0, len(jobs), batch):
        if out_of_time():
            raise OutOfTimeError
        chunk = jobs[start : start + batch]
        tiles = torch.stack([torch.flip(data[window], _spatial(axes)) for window, axes, _ in chunk])
        for (_, flipped, last), answer in zip(chunk, network(tiles), strict=True):
            part = torch.flip(answer, _spatial(flipped)) if flipped else answer
            total = part.clone() if total is None else total.add_(part)
            copies += 1
            on_pass()
            if last:
                yield total / copies
                total, copies = None, 0


@torch.inference_mode()
def blend_windows(
    parts: Iterable[torch.Tensor],
    slices: Sequence[Slices],
    shape: Sequence[int],
    heads: int,
    device: torch.device,
) -> torch.Tensor:
    """Average the logits of overlapping windows.

    A window weighs most in its centre (nnU-Net's Gaussian). Sums are kept in half precision and
    taken in nnU-Net's order, so that every voxel gets the label nnU-Net would give it; in the
    outermost corners of the image, where all weights are tiny, logits are coarse for that reason.

    Args:
        parts: logits of each window, shape (heads, i, j, k), in the order of ``slices``.
        slices: the windows.
        shape: spatial shape of the image.
        heads: number of the network's outputs.
        device: where the sums are kept.

    Returns:
        Half-precision logits, shape (heads, i, j, k); infinite where they overflow.
    """
    logits = torch.zeros((heads, *shape), dtype=torch.half, device=device)
    weight = torch.zeros(tuple(shape), dtype=torch.half, device=device)
    gaussian = window_weights(slices, device)
    for window, part in zip(slices, parts, strict=True):
        logits[window] += part.to(device) * gaussian
        weight[window[1:]] += gaussian
    return logits.div_(weight)


def window_weights(slices: Sequence[Slices], device: torch.device) -> torch.Tensor:
    """nnU-Net's weights of a window's voxels, half precision, shape (i, j, k)."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    patch = tuple(axis.stop - axis.start for axis in slices[0][1:])
    weights: torch.Tensor = compute_gaussian(
        patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=device
    )
    return weights


def _spatial(axes: Axes) -> tuple[int, ...]:
    """Spatial axes as axes of a tensor whose first axis is the channel."""
    return tuple(axis + 1 for axis in axes)
