"""The report of a cross-validation: a page, a table, metrics and curves."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gc_panther.files import whole_file
from gc_panther.json_files import write_json
from gc_panther.nnunet.training.cross_validation import HeldOut, draw_curves
from gc_panther.panther.evaluation.metrics import CaseScore
from gc_panther.panther.evaluation.tables import COLUMNS, as_document, summarise
from gc_panther.text import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pictures in the report: the worst cases, which say most about what to do next.
PICTURES = 6


@dataclass(frozen=True)
class FoldScore:
    """A case, scored on what its fold predicted.

    Attributes:
        fold: the fold in whose validation part the case is.
        score: of its tumour.
    """

    fold: int
    score: CaseScore


@dataclass(frozen=True)
class Picture:
    """What a picture of a case is drawn from.

    Attributes:
        of: the case's score.
        held: image, reference and prediction.
        tumour: the label that was scored.
    """

    of: FoldScore
    held: HeldOut
    tumour: int


def write_report(
    out: Path,
    title: str,
    cases: Sequence[FoldScore],
    curves: Sequence[Mapping[str, Sequence[float]]],
    pictures: Sequence[Picture] = (),
) -> None:
    """Write ``cases.csv``, ``metrics.json``, ``curves.png`` and ``report.html``.

    Args:
        out: folder; files of an earlier run are replaced.
        title: heading of the page.
        cases: every case once.
        curves: as :func:`~gc_panther.nnunet.training.cross_validation.curves_of` returns them.
        pictures: of the cases that may be shown; the worst are.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "cases.csv", _csv(cases))
    write_json(out / "metrics.json", _document(cases))
    curves_png = _png(draw_curves(curves))
    with whole_file(out / "curves.png") as file:
        file.write(curves_png)
    worst = sorted(pictures, key=lambda picture: picture.of.score.dice)[:PICTURES]
    shown = [(picture.of, _overlay(picture)) for picture in worst]
    _write(out / "report.html", _page(title, cases, curves_png, shown))


def _document(cases: Sequence[FoldScore]) -> dict[str, Any]:
    document = as_document([case.score for case in cases])
    for entry, case in zip(document["cases"], cases, strict=True):
        entry["fold"] = case.fold
    return document


def _csv(cases: Sequence[FoldScore]) -> str:
    import csv

    text = io.StringIO(newline="")
    names = ["fold", *(field.name for field in fields(CaseScore))]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"fold": case.fold, **asdict(case.score)} for case in cases)
    return text.getvalue()


def _overlay(picture: Picture) -> bytes:
    """The prediction's and the reference's outlines."""
    from gc_panther.case import Volume
    from gc_panther.imaging.images import read_image
    from gc_panther.report.overlay import draw_overlay

    held, labels = picture.held, read_image(picture.held.label)
    predicted = (labels.array_zyx == picture.tumour).astype(np.uint8)
    figure = draw_overlay(
        read_image(held.case.image),
        Volume(predicted, labels.geometry),
        reference=read_image(held.case.label),
        title=f"{held.case.name}, fold {held.fold}: Dice {picture.of.score.dice:.3f}",
    )
    return _png(figure)


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _page(
    title: str,
    cases: Sequence[FoldScore],
    curves_png: bytes,
    pictures: Iterable[tuple[FoldScore, bytes]],
) -> str:
    """One file that holds everything, so that it can be sent."""
    folds = sorted({case.fold for case in cases})
    means = [
        (f"fold {fold}", summarise([case.score for case in cases if case.fold == fold]))
        for fold in folds
    ]
    overall = summarise([case.score for case in cases])
    header = "".join(f"<th>{html.escape(column.title)}</th>" for column in COLUMNS)

    def row(name: str, values: Iterable[str], kind: str = "") -> str:
        cells = "".join(f"<td>{value}</td>" for value in values)
        return f'<tr class="{kind}"><th>{html.escape(name)}</th>{cells}</tr>'

    def number(value: float, digits: int) -> str:
        return f"{value:.{digits}f}" if np.isfinite(value) else "–"

    rows = [
        row(
            f"{case.score.case} (fold {case.fold})",
            (number(getattr(case.score, c.attribute), c.digits) for c in COLUMNS),
            "empty" if case.score.empty else "",
        )
        for case in sorted(cases, key=lambda c: c.score.dice)
    ]
    parts = [
        row(
            f"{name} ({count(summary.cases, 'case')})",
            (number(summary.estimates[c.key].value, c.digits) for c in COLUMNS),
        )
        for name, summary in means
    ]
    total = row(
        f"all ({count(overall.cases, 'case')})",
        (
            f"{number(e.value, c.digits)}<br><small>{number(e.low, c.digits)} to "
            f"{number(e.high, c.digits)}</small>"
            for c in COLUMNS
            for e in (overall.estimates[c.key],)
        ),
        "all",
    )
    images = "".join(
        f'<figure><img alt="{html.escape(score.score.case)}" src="{_embedded(png)}"></figure>'
        for score, png in pictures
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}: cross-validation</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right }}
tr > th:first-child {{ text-align: left }}
.all {{ font-weight: 600 }} .empty {{ color: #b00020 }}
img {{ max-width: 100% }} figure {{ margin: 1rem 0 }} small {{ color: #666; font-weight: 400 }}
</style></head><body>
<h1>{html.escape(title)}: cross-validation</h1>
<p>Every case is labelled by the one network that has not seen it. The ensemble that is exported is
usually better than each of its folds. Intervals are 95 % bootstraps over cases; in the volume's
column the summary is the root mean square error. {overall.empty} predictions are empty.</p>
<table><tr><th></th>{header}</tr>{total}{"".join(parts)}</table>
<h2>Training</h2>
<figure><img alt="curves" src="{_embedded(curves_png)}"></figure>
<h2>The worst cases</h2>
{images}
<h2>All cases, the worst first</h2>
<table><tr><th></th>{header}</tr>{"".join(rows)}</table>
</body></html>
"""


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
