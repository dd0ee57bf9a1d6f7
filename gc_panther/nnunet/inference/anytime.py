"""Which folds and mirrored copies of an ensemble a deadline allows.

First the folds without mirroring, the first of them whatever the time; then as many mirrored
copies of each as fit. What is begun and does not end in time is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch

from gc_panther.nnunet.inference.windows import Axes, OutOfTimeError

#: Part by which a pass may take longer than measured before it breaks a plan.
CAUTION = 0.15

#: Seconds kept back from a deadline for what follows the passes, without combining the folds.
SPARE_S = 0.3


class FoldsInTime:
    """Runs folds and mirrored copies until a deadline.

    Args:
        folds: the folds, in the order in which they are wanted.
        mirroring: sets of axes to flip, the empty one first.
        deadline: on :func:`time.perf_counter`'s clock.
        predict: gives the logits of a fold, half precision, shape (heads, i, j, k), over some of
            the sets of axes; raises OutOfTimeError where the function it is given says so.
        combine: does to a fold's logits what will be done to each fold's in the end. It is called
            once, to learn how long that takes.

    Attributes:
        logits: what was reached, by fold; the mean over the copies.
        copies: number of mirrored copies in it, the unmirrored one included, by fold.
    """

    def __init__(
        self,
        folds: Sequence[int],
        mirroring: Sequence[Axes],
        deadline: float,
        predict: Callable[[int, Sequence[Axes], Callable[[], bool]], torch.Tensor],
        combine: Callable[[torch.Tensor], object],
    ) -> None:
        self._folds = folds
        self._mirroring = mirroring
        self._deadline = deadline
        self._predict = predict
        self._combine = combine
        self.logits: dict[int, torch.Tensor] = {}
        self.copies: dict[int, int] = {}
        #: Seconds of one copy of one fold, as the latest took, and of combining one fold with the
        #: others. The first fold may be slow: on a GPU it pays for the search for algorithms.
        self._unit = self._combining = 0.0

    def run(self) -> Self:
        """Run what fits."""
        first, *others = self._folds
        plain = self._mirroring[:1]
        begin = time.perf_counter()
        self.logits[first], self.copies[first] = self._predict(first, plain, lambda: False), 1
        measured = time.perf_counter()
        self._combine(self.logits[first])
        self._unit, self._combining = measured - begin, time.perf_counter() - measured
        for fold in others:
            if not self._add(fold, plain):
                break
        for number, fold in enumerate(self.logits):
            planned = self._unit * (1 + CAUTION) * (len(self.logits) - number)
            chosen = self._mirroring[1 : 1 + max(0, int(self._seconds_left() / planned))]
            if chosen:
                self._add(fold, chosen)
        return self

    def facts(self, name: str) -> dict[str, Any]:
        """JSON-compatible facts: what was used and, in words, what was not.

        Args:
            name: of the model, to begin the sentence with.
        """
        used, wanted = sum(self.copies.values()), len(self._folds) * len(self._mirroring)
        facts: dict[str, Any] = {
            "folds": list(self.logits),
            "mirrored_copies": list(self.copies.values()),
        }
        if used < wanted:
            facts["dropped"] = f"{name}: the time limit left out {'; '.join(self._left_out())}"
        return facts

    def _left_out(self) -> Iterator[str]:
        """In words: the folds, then the mirrored copies of those that ran."""
        folds = [fold for fold in self._folds if fold not in self.logits]
        if folds:
            yield _named(folds)
        copies = len(self._mirroring) - 1
        by_number: dict[int, list[int]] = {}
        for fold, used in self.copies.items():
            by_number.setdefault(copies + 1 - used, []).append(fold)
        for number, of in by_number.items():
            if number:
                part = "all" if number == copies else f"{number} of {copies}"
                yield f"{part} mirrored copies of {_named(of)}"

    def _seconds_left(self) -> float:
        """Until the last moment at which the folds that are there can still be combined."""
        combining = self._combining * len(self.logits)
        return self._deadline - time.perf_counter() - SPARE_S - combining

    def _add(self, fold: int, chosen: Sequence[Axes]) -> bool:
        """Run these copies of a fold; return whether they were finished in time."""
        new_fold = 0.0 if fold in self.logits else self._combining
        if self._seconds_left() - new_fold < self._unit * len(chosen) * (1 + CAUTION):
            return False
        begin = time.perf_counter()
        try:
            more = self._predict(fold, chosen, lambda: self._seconds_left() < 0)
        except OutOfTimeError:
            return False
        self._unit = (time.perf_counter() - begin) / len(chosen)
        before = self.copies.get(fold, 0)
        self.copies[fold] = before + len(chosen)
        if before:
            sums = self.logits[fold].float() * before + more.float() * len(chosen)
            more = (sums / self.copies[fold]).half()
        self.logits[fold] = more
        return True


def _named(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
