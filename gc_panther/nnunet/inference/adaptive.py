"""Fewer passes where they would not change the answer: approximate, and not the default.

A coarse pass (one fold, no mirroring, every window) says where the wanted labels can be. All folds
then run only in the windows that matter there, at first over two mirrored copies each. The answers
of both halves of the copies say how much is left to chance: as long as further copies can be
expected to change too many voxels, they are doubled in the windows that have most to do with it.
Windows that were left out keep the coarse answer, with less weight, and some more are taken where
too much of the answer hangs on them. Where the label has so few voxels that not one may change,
nothing that reaches it is left out. Whatever leaves a doubt sends the image through the exact
ensemble.

The copies come in pairs of one and its opposite (the other axes flipped): in each pair every axis
is flipped in one of the two. Folds and windows take turns in which pair is first, so that all are
used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from gc_panther.nnunet.inference.folds import Folds, WindowedImage, add_probabilities
from gc_panther.nnunet.inference.windows import Axes, Slices, Windows, blend_windows, window_weights
from gc_panther.task import RunContext

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
TOO_MANY = 0.25
#: More copies are run where they can be expected to change so many voxels, relative to those with
#: the label.
CHANGED = 0.03
#: Nor may they change so many, relative to the same, where there are more changes than expected by
#: two standard deviations of a Poisson distribution.
CHANGED_AT_WORST = 0.06
DEVIATIONS = 2.0
#: Copies are doubled in the windows with this part of the changes of the window that has most.
MOST = 0.5
#: The share that makes a window matter where not one voxel may change.
ANY_SHARE = 0.01
#: A voxel whose probability is further than this from that of every other label does not change.
CLOSE = 0.8

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Adaptive:
    """What the ensemble says, computed from part of its passes.

    Attributes:
        logits: each fold's, on the network's grid.
        windows: numbers of the windows in which all folds ran.
        copies: how many mirrored copies each fold saw in each of these windows.
        passes: how many there were, the coarse ones included.
    """

    logits: Sequence[torch.Tensor]
    windows: Sequence[int]
    copies: Sequence[int]
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
    folds: Folds, image: WindowedImage, mirroring: Sequence[Axes], label: int, run: RunContext
) -> Adaptive | Doubt:
    """Run the folds where it matters for one label.

    Args:
        folds: the ensemble.
        image: its windows.
        mirroring: all sets of axes to flip,
            :func:`~gc_panther.nnunet.inference.windows.mirror_combinations`.
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
        if not added:
            chance = _padded_like(mean[label], shape, image.unpad)
            finer = _share_needed(share, chance, found, image.slices, chosen)
            if finer < share:
                share = finer
                added = windows_that_matter(candidates | found, image.slices, share) - chosen
        if added:
            chosen |= added
            continue
        doubled = some.incomplete()
        if doubled and not _none_may_change(found):
            margins = [_margin(_mean_probabilities(half), label) for half in halves]
            first, second = (_padded_like(m, shape, image.unpad, outside=-1.0) for m in margins)
            changes = expected_changes(first, second, some.shares(), some.missing_fractions())
            doubled = windows_to_double(changes, doubled, int(found.sum()))
        if not doubled:
            windows = sorted(chosen)
            return Adaptive(logits, windows, [some.copies[n] for n in windows], some.passes)
        some.double(doubled)


class _SomeCopies:
    """The folds over part of the mirrored copies; nothing is computed twice.

    Args:
        folds: the ensemble.
        image: its windows.
        mirroring: all sets of axes to flip.
        coarse: the coarse answer in each window.
        run: progress and clock.

    Attributes:
        copies: how many mirrored copies each fold sees, by the number of the chosen window.
        passes: how many there were, the coarse ones included.
    """

    def __init__(
        self,
        folds: Folds,
        image: WindowedImage,
        mirroring: Sequence[Axes],
        coarse: Sequence[torch.Tensor],
        run: RunContext,
    ) -> None:
        self.copies: dict[int, int] = {}
        self.passes = len(coarse)
        self._folds = folds
        self._image = image
        self._mirroring = mirroring
        self._coarse = coarse
        self._run = run
        #: The logits of each window that was computed, by half of the copies and by fold.
        self._computed: list[dict[int, dict[int, torch.Tensor]]] = [
            {fold: {} for fold in folds} for _ in range(min(2, len(mirroring)))
        ]

    def logits(self, chosen: set[int]) -> list[list[torch.Tensor]]:
        """Logits on the network's grid, by half of the copies and by fold.

        Args:
            chosen: numbers of the windows in which all folds run.

        Returns:
            Half precision, shape (heads, i, j, k) each; where there is only one copy, one half.
        """
        for number in chosen:
            self.copies.setdefault(number, len(self._computed))
        slices, shape = self._image.slices, self._image.data.shape[1:]
        weights = self._weights() if len(chosen) < len(slices) else None
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
        windows: list[tuple[Slices, Sequence[Axes]]] = []
        for half, number in missing:
            size = self.copies[number] // len(self._computed)
            copies = in_turn(self._mirroring, place + number)[half * size : (half + 1) * size]
            windows.append((self._image.slices[number], copies))
        label = f"fold {place + 1} of {len(self._folds)}"
        parts = self._folds.parts(fold, self._image, windows, self._run, label)
        self.passes += sum(len(copies) for _, copies in windows)
        for (half, number), part in zip(missing, parts, strict=True):
            self._computed[half][fold][number] = part

    def incomplete(self) -> set[int]:
        """Numbers of the chosen windows that have not seen all copies."""
        return {n for n, copies in self.copies.items() if copies < len(self._mirroring)}

    def double(self, numbers: Collection[int]) -> None:
        """Have twice as many copies in these windows: what there is becomes the first half."""
        first, second = self._computed
        for fold, windows in first.items():
            for number in numbers:
                both = windows[number].float() + second[fold].pop(number).float()
                windows[number] = both.div_(2).half()
        for number in numbers:
            self.copies[number] *= 2

    def missing_fractions(self) -> dict[int, float]:
        """By the number of the chosen window, which fraction of all copies it has not seen."""
        return {n: 1 - copies / len(self._mirroring) for n, copies in self.copies.items()}

    def shares(self) -> dict[int, tuple[Slices, torch.Tensor]]:
        """By the number of the chosen window, its place and its share of the weights there.

        Returns:
            Index expressions without a channel axis, and the shape (i, j, k) of a window.
        """
        slices, shape = self._image.slices, self._image.data.shape[1:]
        gaussian, total = _weights_and_total(slices, shape, self._weights())
        places = {number: tuple(slices[number][1:]) for number in self.copies}
        return {n: (place, FULL_WEIGHT * gaussian / total[place]) for n, place in places.items()}

    def _weights(self) -> list[float]:
        """What each window weighs."""
        return [FULL_WEIGHT if n in self.copies else 1.0 for n in range(len(self._image.slices))]


def in_turn(mirroring: Sequence[Axes], turn: int) -> list[Axes]:
    """All mirrored copies in an order of which the first half, quarter, ... is a good sample.

    Args:
        mirroring: all sets of axes to flip, in the order of
            :func:`~gc_panther.nnunet.inference.windows.mirror_combinations`.
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
    gaussian, total = _weights_and_total(slices, where.shape, [1.0] * len(slices))
    return {
        number
        for number, (_, *window) in enumerate(slices)
        if bool((where[tuple(window)] & (gaussian >= share * total[tuple(window)])).any())
    }


def _weights_and_total(
    slices: Sequence[Slices], shape: Sequence[int], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A window's weights of its voxels, and the sum of all windows' weights of the image's voxels.

    Args:
        slices: the windows.
        shape: spatial shape of the image.
        weights: of the windows, relative to each other.

    Returns:
        Single precision; the shapes (i, j, k) of a window and of the image.
    """
    gaussian = window_weights(slices, CPU).float()
    total = torch.zeros(tuple(shape))
    for (_, *window), weight in zip(slices, weights, strict=True):
        total[tuple(window)] += weight * gaussian
    return gaussian, total


def _none_may_change(found: torch.Tensor) -> bool:
    """Whether the label has so few voxels that one of them is more than may change."""
    return int(found.sum()) * CHANGED_AT_WORST < 1


def _share_needed(
    share: float,
    chance: torch.Tensor,
    found: torch.Tensor,
    slices: Sequence[Slices],
    chosen: set[int],
) -> float:
    """The share that makes a window matter, by how much of the answer hangs on the others.

    Args:
        share: the one so far.
        chance: the label's probability, shape (i, j, k).
        found: truth values, the voxels with the label, shape (i, j, k).
        slices: all windows.
        chosen: numbers of those in which all folds ran.
    """
    if _none_may_change(found):
        return ANY_SHARE
    if share > FINE_SHARE and _hangs_on_others(chance, found, slices, chosen):
        return FINE_SHARE
    return share


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


def expected_changes(
    first: torch.Tensor,
    second: torch.Tensor,
    shares: Mapping[int, tuple[Slices, torch.Tensor]],
    missing: Mapping[int, float],
) -> dict[int, float]:
    """How many voxels can be expected to get or lose a label with all copies, by window.

    Half of the difference between two halves of a sample has the standard error of their mean. For
    each window it is pooled over the voxels that could change, by the window's share in them, and
    made smaller as it is where a sample is drawn from few (the finite population correction:
    Cochran, Sampling Techniques, 1977, section 2.6). The margins are taken as normally distributed.

    Args:
        first: the label's margin from half of the copies, shape (i, j, k); -1 in the padding.
        second: the same from the other half.
        shares: of each window that can change, its place and its share in the answers there, the
            shape (i, j, k) of a window.
        missing: of each of them, which fraction of all copies neither half has.
    """
    margin = (first + second) / 2
    close = margin.abs() < CLOSE
    squares = ((first - second) / 2).square()
    variance = torch.zeros(margin.shape)
    for number, (place, share) in shares.items():
        weights = share * close[place]
        pooled = (squares[place] * weights).sum() / weights.sum().clamp(min=1e-6)
        variance[place] += share * pooled * missing[number]
    changes = torch.special.ndtr(-margin.abs() / variance.sqrt().clamp(min=1e-6)) * close
    return {n: float((changes[place] * share).sum()) for n, (place, share) in shares.items()}


def windows_to_double(
    changes: Mapping[int, float], candidates: Collection[int], count: int
) -> set[int]:
    """Numbers of the windows that should see more copies.

    Args:
        changes: how many voxels can be expected to change, by window.
        candidates: numbers of the windows that have not seen all copies.
        count: voxels with the label.
    """
    total = sum(changes.values())
    at_worst = total + DEVIATIONS * math.sqrt(total)
    if total <= CHANGED * count and at_worst <= CHANGED_AT_WORST * count:
        return set()
    most = max(changes[number] for number in candidates)
    return {number for number in candidates if changes[number] >= MOST * most}


def _padded_like(
    values: torch.Tensor, shape: Sequence[int], unpad: Slices, outside: float = 0
) -> torch.Tensor:
    """Values on the padded grid, shape (i, j, k), and another one in the padding."""
    padded = torch.full(tuple(shape), outside, dtype=values.dtype)
    padded[tuple(unpad[1:])] = values
    return padded
