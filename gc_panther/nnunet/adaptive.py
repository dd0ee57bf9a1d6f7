"""Fewer passes where they would not change the answer: approximate, and not the default.

A coarse pass (one fold, no mirroring, every window) says where the wanted labels can be. All folds
then run only in the windows that matter there, each over half of the mirrored copies; the other
windows keep the coarse answer. Where too much of the answer then hangs on those others, some more
are taken. Whatever leaves a doubt sends the image through the exact ensemble.

The halves are those with an even and with an odd number of flipped axes: in each of them every axis
is flipped in half of the copies (a half fraction of a factorial design; Box, Hunter & Hunter,
Statistics for Experimenters, ch. 6). Folds and windows take turns, so that both halves are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gc_panther.nnunet.folds import Folds, WindowedImage
from gc_panther.nnunet.windows import Axes, Slices, blend_windows, window_weights
from gc_panther.task import CaseRun

#: A label can be where the coarse pass gives it this probability.
CANDIDATE = 0.2
#: A window matters where it has this part of the weight of a voxel that can have the label.
SHARE = 0.3
#: The same where the first answer hangs on the other windows.
FINE_SHARE = 0.05
#: Between these probabilities a voxel is undecided.
UNDECIDED = (0.2, 0.8)
#: The answer hangs on the other windows where they have a say in so many undecided voxels, relative
#: to those with the label.
TOO_MANY = 0.3


@dataclass(frozen=True)
class Adaptive:
    """What the ensemble says, computed from part of its passes.

    Attributes:
        logits: each fold's, on the network's grid.
        windows: numbers of the windows in which all folds ran.
        passes: how many there were, the coarse ones included.
    """

    logits: Sequence[torch.Tensor]
    windows: Sequence[int]
    passes: int


def run_adaptively(
    folds: Folds, image: WindowedImage, mirroring: Sequence[Axes], label: int, run: CaseRun
) -> Adaptive | str:
    """Run the folds where it matters for one label.

    Args:
        folds: the ensemble.
        image: its windows.
        mirroring: all sets of axes to flip.
        label: the label, not the background.
        run: progress and clock.

    Returns:
        The logits, or the doubt for which the exact ensemble has to run, in words.
    """
    coarse = folds.coarse(next(iter(folds)), image, run)
    shape, heads = image.data.shape[1:], len(coarse[0])
    cpu = torch.device("cpu")
    blended = blend_windows(coarse, image.slices, shape, heads, cpu)
    candidates = torch.softmax(blended.float(), 0)[label] >= CANDIDATE
    if not bool(candidates.any()):
        return "the coarse pass saw no candidate"
    share = SHARE
    chosen = windows_that_matter(candidates, image.slices, share)
    halves = half_fractions(mirroring)
    known = {fold: {n: part for n, part in enumerate(coarse) if n not in chosen} for fold in folds}
    passes = len(coarse)
    while True:
        logits = []
        for place, fold in enumerate(folds):
            # Bound now: the function is used before the loop goes on.
            def copies(number: int, place: int = place) -> Sequence[Axes]:
                return halves[(place + number) % 2]

            passes += sum(len(copies(n)) for n in range(len(coarse)) if n not in known[fold])
            logits.append(folds.logits(fold, image, copies, run, known=known[fold]))
        mean = torch.stack(logits).float().mean(0)
        found = _padded_like(mean.argmax(0) == label, shape, image.unpad)
        if not bool(found.any()):
            return "no voxel got the label"
        added = windows_that_matter(found, image.slices, share) - chosen
        if not added and share > FINE_SHARE:
            chances = [torch.softmax(fold.float(), 0)[label] for fold in logits]
            chance = _padded_like(torch.stack(chances).mean(0), shape, image.unpad)
            if _hangs_on_others(chance, found, image.slices, chosen):
                share = FINE_SHARE
                added = windows_that_matter(candidates | found, image.slices, share) - chosen
        if not added:
            return Adaptive(logits, sorted(chosen), passes)
        chosen |= added
        for answers in known.values():
            for number in added:
                del answers[number]


def windows_that_matter(
    where: torch.Tensor, slices: Sequence[Slices], share: float = SHARE
) -> set[int]:
    """Numbers of the windows with at least a share of the weight of a marked voxel.

    Args:
        where: truth values, shape (i, j, k).
        slices: windows that cover them.
        share: of the weights of all windows in a voxel.
    """
    gaussian = window_weights(slices, where.device).float()
    total = torch.zeros(where.shape)
    for window in slices:
        total[window[1:]] += gaussian
    return {
        number
        for number, (_, *window) in enumerate(slices)
        if bool((where[tuple(window)] & (gaussian >= share * total[tuple(window)])).any())
    }


def _hangs_on_others(
    chance: torch.Tensor, found: torch.Tensor, slices: Sequence[Slices], chosen: set[int]
) -> bool:
    """Whether windows that were not chosen have a say in many undecided voxels.

    Args:
        chance: the label's probability, shape (i, j, k).
        found: voxels with the label.
        slices: all windows.
        chosen: numbers of those in which all folds ran.
    """
    low, high = UNDECIDED
    undecided = (chance > low) & (chance < high)
    others = torch.zeros_like(undecided)
    for number, (_, *window) in enumerate(slices):
        if number not in chosen:
            others[tuple(window)] = True
    return int((undecided & others).sum()) >= TOO_MANY * int(found.sum())


def half_fractions(mirroring: Sequence[Axes]) -> tuple[Sequence[Axes], Sequence[Axes]]:
    """Two halves of the mirrored copies; without mirroring, twice the plain one."""
    even = [axes for axes in mirroring if len(axes) % 2 == 0]
    odd = [axes for axes in mirroring if len(axes) % 2 == 1]
    return even, odd or even


def _padded_like(values: torch.Tensor, shape: Sequence[int], unpad: Slices) -> torch.Tensor:
    """Values on the padded grid, 0 in the padding."""
    padded = torch.zeros(tuple(shape), dtype=values.dtype)
    padded[tuple(unpad[1:])] = values
    return padded
