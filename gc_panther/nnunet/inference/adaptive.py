"""Mirrored copies only where the wanted label can be: approximate, and not the default.

A coarse pass, every fold over every window without mirroring, finds the windows that can hold the
label. The full ensemble runs in those and in the neighbours that share their voxels; everything
else keeps the coarse answer. Where the coarse pass is uncertain, or the label reaches a window that
has only the coarse answer, the exact ensemble runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gc_panther.nnunet.inference.folds import Folds, WindowedImage, add_probabilities
from gc_panther.nnunet.inference.windows import Axes, window_weights
from gc_panther.task import RunContext

#: A voxel can have the label if at least one fold gives it this probability in the coarse pass. For
#: a voxel below it to win, mirroring has to raise the folds' mean probability several times over.
CANDIDATE = 0.1
#: The coarse pass is uncertain unless one fold gives one voxel at least this probability: more
#: likely the label than not.
CERTAIN = 0.5
#: Windows share a voxel if each has at least this part of the weights there. What is left out can
#: then be no more than this part of a voxel's logits per window.
SHARE = 0.1


@dataclass(frozen=True)
class Adaptive:
    """What the ensemble says, computed from part of its passes.

    Attributes:
        logits: each fold's, on the network's grid, half precision, shape (heads, i, j, k).
        windows: numbers of the windows in which the full ensemble ran.
        passes: how many there were, the coarse ones included.
    """

    logits: Sequence[torch.Tensor]
    windows: Sequence[int]
    passes: int


@dataclass(frozen=True)
class Fallback:
    """Why the exact ensemble has to run.

    Attributes:
        reason: in words.
        passes: how many it took to find out.
    """

    reason: str
    passes: int


def run_adaptively(
    folds: Folds, image: WindowedImage, mirroring: Sequence[Axes], label: int, run: RunContext
) -> Adaptive | Fallback:
    """Run the folds, with mirrored copies only where one label can be.

    Args:
        folds: the ensemble.
        image: its windows.
        mirroring: all sets of axes to flip, the empty one first
            (:func:`~gc_panther.nnunet.inference.windows.mirror_combinations`).
        label: the label, not the background.
        run: progress and clock.

    Returns:
        The logits, or why there are none.
    """
    plain, mirrored = mirroring[:1], mirroring[1:]
    if not mirrored:
        return Fallback("there are no mirrored copies to leave out", 0)
    everywhere = [(window, plain) for window in image.slices]
    parts = {fold: folds.parts(fold, image, everywhere, run, "coarse pass, ") for fold in folds}
    chance = torch.zeros(())
    for fold in folds:
        probabilities = add_probabilities(None, folds.blended(fold, image, parts[fold]))
        chance = torch.maximum(chance, probabilities[label])
    passes = len(folds) * len(image.slices)
    if float(chance.max()) < CERTAIN:
        return Fallback("the coarse pass is uncertain about the label", passes)

    windows = windows_that_share(chance >= CANDIDATE, image)
    chosen = [(image.slices[number], mirrored) for number in windows]
    passes += len(folds) * len(windows) * len(mirrored)
    logits = []
    for fold in folds:
        for number, rest in zip(windows, folds.parts(fold, image, chosen, run, ""), strict=True):
            both = parts[fold][number].float() + rest.float() * len(mirrored)
            parts[fold][number] = (both / len(mirroring)).half()
        logits.append(folds.blended(fold, image, parts.pop(fold)))

    total: torch.Tensor | None = None
    for part in logits:
        total = add_probabilities(total, part)
    assert total is not None, "an ensemble has at least one fold"  # noqa: S101
    found = total.argmax(0) == label
    if not bool(found.any()):
        return Fallback("no voxel got the label", passes)
    if not set(windows_that_share(found, image)) <= set(windows):
        return Fallback("the label reaches a window that has only the coarse answer", passes)
    return Adaptive(logits, windows, passes)


def windows_that_share(marked: torch.Tensor, image: WindowedImage) -> list[int]:
    """Numbers of the windows with a share of the weights of a marked voxel.

    Args:
        marked: truth values on the network's grid, shape (i, j, k).
        image: its windows.
    """
    shape = image.data.shape[1:]
    padded = torch.zeros(shape, dtype=torch.bool)
    padded[image.unpad[1:]] = marked
    gaussian = window_weights(image.slices, torch.device("cpu")).float()
    total = torch.zeros(shape)
    for _, *window in image.slices:
        total[tuple(window)] += gaussian
    return [
        number
        for number, (_, *window) in enumerate(image.slices)
        if bool((padded[tuple(window)] & (gaussian >= SHARE * total[tuple(window)])).any())
    ]
