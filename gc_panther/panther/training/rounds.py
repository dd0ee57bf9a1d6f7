"""Rounds of a training: each is cross-validated and reported, the best one is exported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gc_panther.panther.evaluation.tables import Summary, summarise
from gc_panther.panther.training.validation import Validation


@dataclass(frozen=True)
class RoundResult:
    """What a round came to.

    Attributes:
        name: what a person calls it, such as "students 1".
        title: of its stages and of its folder below ``report``.
        dataset: nnU-Net's name of its data set.
        validation: its cross-validation; all rounds have the same cases in each fold's part.
    """

    name: str
    title: str
    dataset: str
    validation: Validation

    @property
    def dice(self) -> float:
        """Mean Dice of the tumour over all cases of the cross-validation."""
        return self.summary.estimates["dice"].value

    @property
    def summary(self) -> Summary:
        """All metrics over all cases."""
        return summarise([case.score for case in self.validation.cases])


def best_round(rounds: Sequence[RoundResult]) -> RoundResult:
    """The round with the largest mean Dice; of equal ones the later."""
    return max(reversed(rounds), key=lambda one: one.dice)


def describe_choice(rounds: Sequence[RoundResult]) -> str:
    """One line: the Dice of each round, and which one is exported."""
    best = best_round(rounds)
    found = ", ".join(f"{one.name} {one.dice:.3f}" for one in rounds)
    last = "" if best is rounds[-1] else "; the last round is worse"
    return f"mean Dice of the cross-validation: {found}; exported: {best.name}{last}"


def rounds_table(rounds: Sequence[RoundResult]) -> str:
    """The same as a Markdown table with intervals and empty predictions."""
    best = best_round(rounds)
    lines = ["| round | Dice | 95 % interval | empty | |", "|---|--:|--:|--:|---|"]
    for one in rounds:
        summary = one.summary
        dice = summary.estimates["dice"]
        interval = f"{dice.low:.3f} to {dice.high:.3f}" if math.isfinite(dice.low) else "–"
        mark = "exported" if one is best else ""
        lines.append(f"| {one.name} | {dice.value:.3f} | {interval} | {summary.empty} | {mark} |")
    return "\n".join(lines)


def rounds_document(rounds: Sequence[RoundResult]) -> dict[str, Any]:
    """The same as JSON-compatible data."""
    return {
        "exported": best_round(rounds).name,
        "rounds": [
            {
                "name": one.name,
                "mean_dice": one.dice,
                "cases": one.summary.cases,
                "empty": one.summary.empty,
            }
            for one in rounds
        ],
    }
