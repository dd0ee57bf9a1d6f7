"""Summaries of case scores, and their CSV, JSON, Markdown and terminal forms."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gc_panther.files import whole_file
from gc_panther.json_files import as_json, finite
from gc_panther.panther.evaluation.metrics import CaseScore

if TYPE_CHECKING:
    from rich.table import Table

BOOTSTRAP_SEED = 20250707
BOOTSTRAP_RESAMPLES = 2000


@dataclass(frozen=True)
class Column:
    """One metric of the tables.

    Attributes:
        key: name of the summary value.
        title: what a person reads.
        attribute: the :class:`CaseScore` attribute it is made from.
        digits: decimals shown.
        higher_is_better: which end is the worst case.
        root_mean_square: summarised as root mean square instead of the mean.
    """

    key: str
    title: str
    attribute: str
    digits: int
    higher_is_better: bool = False
    root_mean_square: bool = False

    def summary(self, values: np.ndarray) -> np.ndarray:
        """Summarise the last axis of ``values``."""
        if self.root_mean_square:
            return np.sqrt(np.mean(np.square(values), axis=-1))
        return np.mean(values, axis=-1)

    def worst(self, values: np.ndarray) -> float:
        """Return the worst of ``values``."""
        if self.higher_is_better:
            return float(np.min(values))
        return float(values[np.argmax(np.abs(values))])


COLUMNS = (
    Column("dice", "Dice", "dice", 3, higher_is_better=True),
    Column("surface_dice", "Surface Dice 5 mm", "surface_dice", 3, higher_is_better=True),
    Column("hd95_mm", "HD95 mm", "hd95_mm", 2),
    Column("masd_mm", "MASD mm", "masd_mm", 2),
    Column("volume_rmse_mm3", "Volume RMSE mm³", "volume_error_mm3", 0, root_mean_square=True),
)


@dataclass(frozen=True)
class Estimate:
    """A summary value with its bootstrap 95 % confidence interval and the worst case.

    Attributes:
        value: mean over the cases; root mean square for the volume error.
        low: 2.5th percentile of the bootstrap; NaN for a single case.
        high: 97.5th percentile of the bootstrap; NaN for a single case.
        worst: the worst case's value.
    """

    value: float
    low: float
    high: float
    worst: float


@dataclass(frozen=True)
class Summary:
    """All metrics over all cases, by :attr:`Column.key`."""

    cases: int
    empty: int
    estimates: Mapping[str, Estimate]


def summarise(
    scores: Sequence[CaseScore],
    *,
    seed: int = BOOTSTRAP_SEED,
    resamples: int = BOOTSTRAP_RESAMPLES,
) -> Summary:
    """Summarise cases; intervals are percentile bootstraps over cases (Efron 1979), seeded.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("no scores to summarise")
    count = len(scores)
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    estimates = {}
    for column in COLUMNS:
        values = np.array([getattr(score, column.attribute) for score in scores], dtype=float)
        low, high = math.nan, math.nan
        # An infinite or undefined case leaves no interval to speak of.
        if count > 1 and np.isfinite(values).all():
            low, high = np.percentile(column.summary(values[draws]), (2.5, 97.5)).tolist()
        estimates[column.key] = Estimate(
            float(column.summary(values)), low, high, column.worst(values)
        )
    return Summary(count, sum(score.empty for score in scores), estimates)


def as_document(
    scores: Sequence[CaseScore], *, challenge_compatible: bool = False
) -> dict[str, Any]:
    """Return cases and summary as JSON-compatible data; NaN and infinities become None."""
    summary = summarise(scores)
    return finite(
        {
            "challenge_compatible": challenge_compatible,
            "cases": [asdict(score) for score in scores],
            "summary": {
                "cases": summary.cases,
                "empty": summary.empty,
                **{key: asdict(estimate) for key, estimate in summary.estimates.items()},
            },
        }
    )


def write_scores(path: Path, scores: Sequence[CaseScore], *, challenge_compatible: bool) -> None:
    """Write :func:`as_document` to ``path``."""
    with whole_file(path) as file:
        file.write(as_json(as_document(scores, challenge_compatible=challenge_compatible)))


def write_csv(path: Path, scores: Sequence[CaseScore]) -> None:
    """Write one row per case, full precision, the attributes of :class:`CaseScore` as header."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(CaseScore)])
    writer.writeheader()
    writer.writerows(asdict(score) for score in scores)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def terminal_table(scores: Sequence[CaseScore], *, title: str = "") -> Table:
    """Return a Rich table: one row per case, then the summary with its intervals."""
    from rich.table import Table

    table = Table(title=title or None)
    table.add_column("Case")
    for column in COLUMNS:
        table.add_column(_case_title(column), justify="right")
    for score in scores:
        table.add_row(score.case, *_case_cells(score), style="red" if score.empty else "")
    table.add_section()
    for name, cells in _summary_rows(summarise(scores)):
        table.add_row(name, *cells, style="bold")
    return table


def markdown_summary(scores: Sequence[CaseScore]) -> str:
    """Return a Markdown table, one row per metric: summary, interval, worst case."""
    summary = summarise(scores)
    rows = [
        "| metric | mean (RMSE for the volume) | 95 % interval | worst case |",
        "|---|--:|--:|--:|",
    ]
    for column in COLUMNS:
        estimate = summary.estimates[column.key]
        rows.append(
            f"| {column.title} | {_number(estimate.value, column)} "
            f"| {_interval(estimate, column)} | {_number(estimate.worst, column)} |"
        )
    return "\n".join(rows)


def _case_title(column: Column) -> str:
    return "Volume error mm³" if column.root_mean_square else column.title


def _case_cells(score: CaseScore) -> list[str]:
    return [_number(getattr(score, column.attribute), column) for column in COLUMNS]


def _summary_rows(summary: Summary) -> list[tuple[str, list[str]]]:
    estimates = [(column, summary.estimates[column.key]) for column in COLUMNS]
    means = [
        f"{'RMSE ' if column.root_mean_square else ''}{_number(estimate.value, column)}"
        for column, estimate in estimates
    ]
    return [
        (f"mean, n = {summary.cases}", means),
        ("95 % from", [_number(estimate.low, column) for column, estimate in estimates]),
        ("95 % to", [_number(estimate.high, column) for column, estimate in estimates]),
    ]


def _number(value: float, column: Column) -> str:
    return f"{value:,.{column.digits}f}" if math.isfinite(value) else "–"


def _interval(estimate: Estimate, column: Column) -> str:
    if not math.isfinite(estimate.low):
        return "–"
    return f"{_number(estimate.low, column)} to {_number(estimate.high, column)}"
