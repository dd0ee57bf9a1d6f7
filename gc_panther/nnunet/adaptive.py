"""Fewer passes where they would not change the answer: approximate, and not the default.

A coarse pass (one fold, no mirroring, every window) says where the wanted labels can be. All folds
then run only in the windows that matter there, at first over two mirrored copies each. The answers
of both halves of the copies say how much is left to chance: as long as further copies can be
expected to change too many voxels, the copies are doubled. Windows that were left out keep the
coarse answer, with less weight, and some more are taken where too much of the answer hangs on them.
Whatever leaves a doubt sends the image through the exact ensemble.

The copies come in pairs of one and its opposite (the other axes flipped): in each pair every axis
is flipped in one of the two. Folds and windows take turns in which pair is first, so that all are
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gc_panther.nnunet.folds import Folds, WindowedImage, add_probabilities
from gc_panther.nnunet.windows import Axes, Slices, Windows, blend_windows, window_weights
from gc_panther.task import CaseRun

#: A label can be where the coarse pass gives it this probability.
CANDIDATE = 0.2
#: A window matters where it has this part of the weight of a voxel that can have the label.
SHARE = 0.3
#: The same where the first answer hangs on the other windows.
FINE_SHARE = 0.1
#: A window with all folds weighs so many times as much as one that keeps the coarse answer. A power
#: of two, so that half precision loses nothing.
FULL_WEIGHT = 2.0
#: Between these probabilities a voxel is undecided.
UNDECIDED = (0.2, 0.8)
#: The answer hangs on the other windows where they have a say in so many undecided voxels, relative
#: to those with the label.
TOO_MANY = 0.3
#: More copies are run where they can be expected to change so many voxels, relative to those with
#: the label.
CHANGED = 0.03
#: A voxel whose probability is further than this from that of every other label does not change.
CLOSE = 0.8

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Adaptive:
    """What the ensemble says, computed from part of its passes.

    Attributes:
        logits: each fold's, on the network's grid.
        windows: numbers of the windows in which all folds ran.
        copies: how many mirrored copies each fold saw in each of them.
        passes: how many there were, the coarse ones included.
    """

    logits: Sequence[torch.Tensor]
    windows: Sequence[int]
    copies: int
    passes: int


@dataclass(frozen=True)
class Doubt:
    """Why the exact ensemble has to run.

    Attributes:
        reason: in words.
        passes: how many it took to find out.
    """

    reason: str
    passes: int


def run_adaptively(
    folds: Folds, image: WindowedImage, mirroring: Sequence[Axes], label: int, run: CaseRun
) -> Adaptive | Doubt:
    """Run the folds where it matters for one label.

    Args:
        folds: the ensemble.
        image: its windows.
        mirroring: all sets of axes to flip, :func:`~gc_panther.nnunet.windows.mirror_combinations`.
        label: the label, not the background.
        run: progress and clock.

    Returns:
        The logits, or why there are none.
    """
    plain: Windows = [(window, [()]) for window in image.slices]
    coarse = folds.parts(next(iter(folds)), image, plain, run, "coarse pass")
    shape, heads = image.data.shape[1:], len(coarse[0])
    blended = blend_windows(coarse, image.slices, shape, heads, CPU)
    candidates = torch.softmax(blended.float(), 0)[label] >= CANDIDATE
    if not bool(candidates.any()):
        return Doubt("the coarse pass saw no candidate", len(coarse))
    share = SHARE
    chosen = windows_that_matter(candidates, image.slices, share)
    some = _SomeCopies(folds, image, mirroring, coarse, run)
    while True:
        halves = some.logits(chosen)
        # Blending is linear, so this is what all copies together give.
        logits = [torch.stack(parts).float().mean(0).half() for parts in zip(*halves, strict=True)]
        mean = _mean_probabilities(logits)
        found = _padded_like(mean.argmax(0) == label, shape, image.unpad)
        if not bool(found.any()):
            return Doubt("no voxel got the label", some.passes)
        added = windows_that_matter(found, image.slices, share) - chosen
        if not added and share > FINE_SHARE:
            chance = _padded_like(mean[label], shape, image.unpad)
            if _hangs_on_others(chance, found, image.slices, chosen):
                share = FINE_SHARE
                added = windows_that_matter(candidates | found, image.slices, share) - chosen
        if added:
            chosen |= added
        elif some.copies < len(mirroring) and _expected_changes(
            [_margin(_mean_probabilities(half), label) for half in halves]
        ) > CHANGED * int(found.sum()):
            some.double()
        else:
            return Adaptive(logits, sorted(chosen), some.copies, some.passes)


class _SomeCopies:
    """The folds over part of the mirrored copies; nothing is computed twice.

    Args:
        folds: the ensemble.
        image: its windows.
        mirroring: all sets of axes to flip.
        coarse: the coarse answer in each window.
        run: progress and clock.

    Attributes:
        copies: how many mirrored copies each fold sees in each chosen window.
        passes: how many there were, the coarse ones included.
    """

    def __init__(
        self,
        folds: Folds,
        image: WindowedImage,
        mirroring: Sequence[Axes],
        coarse: Sequence[torch.Tensor],
        run: CaseRun,
    ) -> None:
        self.copies = min(2, len(mirroring))
        self.passes = len(coarse)
        self._folds = folds
        self._image = image
        self._mirroring = mirroring
        self._coarse = coarse
        self._run = run
        #: The logits of each window that was computed, by half of the copies and by fold.
        self._computed: list[dict[int, dict[int, torch.Tensor]]] = [
            {fold: {} for fold in folds} for _ in range(self.copies)
        ]

    def logits(self, chosen: set[int]) -> list[list[torch.Tensor]]:
        """Logits on the network's grid, by half of the copies and by fold.

        Args:
            chosen: numbers of the windows in which all folds run.

        Returns:
            Half precision, shape (heads, i, j, k) each; where there is only one copy, one half.
        """
        slices, shape = self._image.slices, self._image.data.shape[1:]
        weights = None
        if len(chosen) < len(slices):
            weights = [FULL_WEIGHT if n in chosen else 1.0 for n in range(len(slices))]
        halves: list[list[torch.Tensor]] = [[] for _ in self._computed]
        for place, fold in enumerate(self._folds):
            self._compute(place, fold, chosen)
            for half, computed in zip(halves, self._computed, strict=True):
                parts = [computed[fold].get(n, part) for n, part in enumerate(self._coarse)]
                logits = blend_windows(parts, slices, shape, len(parts[0]), CPU, weights)
                half.append(logits[self._image.unpad])
        return halves

    def _compute(self, place: int, fold: int, chosen: set[int]) -> None:
        """Compute what is missing of one fold's windows."""
        missing = [
            (half, number)
            for half, computed in enumerate(self._computed)
            for number in sorted(chosen - computed[fold].keys())
        ]
        if not missing:
            return
        size = self.copies // len(self._computed)
        windows: Windows = [
            (
                self._image.slices[number],
                in_turn(self._mirroring, place + number)[half * size : (half + 1) * size],
            )
            for half, number in missing
        ]
        label = f"fold {place + 1} of {len(self._folds)}"
        parts = self._folds.parts(fold, self._image, windows, self._run, label)
        self.passes += size * len(missing)
        for (half, number), part in zip(missing, parts, strict=True):
            self._computed[half][fold][number] = part

    def double(self) -> None:
        """Have twice as many copies: those that there are become the first half."""
        first, second = self._computed
        for fold, windows in first.items():
            for number, part in windows.items():
                windows[number] = (part.float() + second[fold][number].float()).div_(2).half()
        self._computed[1] = {fold: {} for fold in first}
        self.copies *= 2


def in_turn(mirroring: Sequence[Axes], turn: int) -> list[Axes]:
    """All mirrored copies in an order of which the first half, quarter, ... is a good sample.

    Args:
        mirroring: all sets of axes to flip, in the order of
            :func:`~gc_panther.nnunet.windows.mirror_combinations`.
        turn: changes which pair of opposite copies comes first.
    """
    # They are ordered by size and then by axis, so that a copy's opposite is as far from the end.
    both = list(zip(mirroring, reversed(mirroring), strict=True))
    # Each pair once; without axes a copy is its own opposite.
    pairs = both[: (len(both) + 1) // 2]
    half = max(len(pairs) // 2, 1)
    numbers = [n for start in range(half) for n in range(start, len(pairs), half)]
    ordered = [copy for n in numbers for copy in pairs[(turn + n) % len(pairs)]]
    return list(dict.fromkeys(ordered))


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
        found: truth values, the voxels with the label, shape (i, j, k).
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


def _mean_probabilities(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the folds' probabilities, shape (heads, i, j, k)."""
    total: torch.Tensor | None = None
    for fold in logits:
        total = add_probabilities(total, fold)
    assert total is not None, "an ensemble has at least one fold"  # noqa: S101
    return total.div_(len(logits))


def _margin(probabilities: torch.Tensor, label: int) -> torch.Tensor:
    """By how much a label is more probable than every other one; negative where it is less.

    Args:
        probabilities: shape (heads, i, j, k).
        label: one of the heads.

    Returns:
        Between -1 and 1, shape (i, j, k).
    """
    others = torch.cat([probabilities[:label], probabilities[label + 1 :]])
    return probabilities[label] - others.amax(0)


def _expected_changes(halves: Sequence[torch.Tensor]) -> float:
    """How many voxels can be expected to get or lose a label with many more copies.

    Half of the difference between two halves of a sample has the standard error of their mean. It
    is pooled over the voxels that could change, and the margins taken as normally distributed.

    Args:
        halves: margins of the label from either half of the copies, shape (i, j, k).
    """
    first, second = halves
    margin = (first + second) / 2
    close = margin.abs() < CLOSE
    if not bool(close.any()):
        return 0.0
    error = ((first - second)[close] / 2).square().mean().sqrt().clamp(min=1e-6)
    return float(torch.special.ndtr(-margin[close].abs() / error).sum())


def _padded_like(values: torch.Tensor, shape: Sequence[int], unpad: Slices) -> torch.Tensor:
    """Values on the padded grid, 0 in the padding."""
    padded = torch.zeros(tuple(shape), dtype=values.dtype)
    padded[tuple(unpad[1:])] = values
    return padded
