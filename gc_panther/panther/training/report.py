"""The report of a cross-validation: a page, a table, metrics and curves."""

from __future__ import annotations

import base64
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
from gc_panther.panther.evaluation.tables import COLUMNS, Column, as_document, summarise
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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    overall = summarise([case.score for case in cases])
    folds = []
    for fold in sorted({case.fold for case in cases}):
        mean = summarise([case.score for case in cases if case.fold == fold])
        cells = [_number(mean.estimates[c.key].value, c) for c in COLUMNS]
        folds.append((f"fold {fold} ({count(mean.cases, 'case')})", cells))
    environment = Environment(
        loader=PackageLoader("gc_panther.panther.training", ""),
        undefined=StrictUndefined,
        autoescape=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        columns=[column.title for column in COLUMNS],
        cases=[
            (
                f"{case.score.case} (fold {case.fold})",
                [_number(getattr(case.score, c.attribute), c) for c in COLUMNS],
                "empty" if case.score.empty else "",
            )
            for case in sorted(cases, key=lambda c: c.score.dice)
        ],
        folds=folds,
        total=f"all ({count(overall.cases, 'case')})",
        estimates=[
            [_number(value, c) for value in (e.value, e.low, e.high)]
            for c in COLUMNS
            for e in (overall.estimates[c.key],)
        ],
        empty=f"{count(overall.empty, 'prediction')} {'is' if overall.empty == 1 else 'are'} empty",
        curves=_embedded(curves_png),
        pictures=[(case.score.case, _embedded(png)) for case, png in pictures],
    )


def _number(value: float, column: Column) -> str:
    return f"{value:.{column.digits}f}" if np.isfinite(value) else "–"


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
