"""Cross-validation: every case labelled by the fold that has not seen it, scored, and a report."""

from __future__ import annotations

import base64
import html
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gc_panther.files import whole_file
from gc_panther.nnunet.model.folder import read_checkpoint
from gc_panther.nnunet.training.dataset import LabelledCase, raw_cases, write_json
from gc_panther.nnunet.training.jobs.worker import Images, PredictJob
from gc_panther.nnunet.training.models.checkpoints import FINAL
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.evaluation.metrics import CaseScore, score_volumes
from gc_panther.panther.evaluation.tables import COLUMNS, as_document, markdown_summary, summarise
from gc_panther.text import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

#: Pictures in the report: the worst cases, which say most about what to do next.
PICTURES = 6
#: nnU-Net's names of a training's losses.
LOSSES = ("train_losses", "val_losses")


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
        case: image and reference.
        label: the predicted label map.
        tumour: its label.
    """

    of: FoldScore
    case: LabelledCase
    label: Path
    tumour: int


@dataclass(frozen=True)
class Validation:
    """What the cross-validation came to.

    Attributes:
        cases: every case once, by fold and name.
        report: ``report.html``; ``cases.csv``, ``metrics.json`` and ``curves.png`` are beside it.
    """

    cases: tuple[FoldScore, ...]
    report: Path

    @property
    def markdown(self) -> str:
        """Means, intervals and worst cases as a Markdown table."""
        return markdown_summary([case.score for case in self.cases])


def cross_validate(
    space: Workspace,
    *,
    title: str,
    dataset: str,
    trainer: str,
    tumour: int,
) -> Validation:
    """Label the validation part of each fold with that fold's network, score it, write a report.

    The images are the data set's own: where it holds crops, crops are scored.

    Args:
        space: the work folder; label maps that are there are not made again.
        title: of the training; names the stage and the folder below ``report``.
        dataset: nnU-Net's name of the data set.
        trainer: as in :class:`~gc_panther.nnunet.training.jobs.worker.TrainJob`.
        tumour: the label that is scored.

    Raises:
        ProcessingError: a prediction failed.
    """
    results = space.results(dataset, trainer)
    by_name = {case.name: case for case in raw_cases(space.raw(dataset))}
    splits = space.splits(dataset)
    folder = space.folder / "validation" / title
    out = space.folder / "report" / title
    held = [(fold, by_name[name]) for fold, split in enumerate(splits) for name in split["val"]]

    def label(fold: int, case: LabelledCase) -> Path:
        return folder / f"fold_{fold}" / f"{case.name}.mha"

    jobs = [
        PredictJob(
            title=f"{title} fold {fold} validation",
            model=results,
            folds=(fold,),
            images=tuple(
                Images(image=case.image, label=label(fold, case))
                for owner, case in held
                if owner == fold
            ),
            device=space.device,
            threads=space.threads,
        )
        for fold in range(len(splits))
    ]
    for fold, case in held:
        _forget_older(label(fold, case), results / f"fold_{fold}" / FINAL)
    if not all(label(fold, case).is_file() for fold, case in held):
        space.forget(f"{title}-validate")
    space.stage(f"{title}-validate", partial(space.run, jobs))
    found = tuple(FoldScore(fold, _score(c, label(fold, c), tumour)) for fold, c in held)
    pictures = [
        Picture(score, case, label(score.fold, case), tumour)
        for score, (_, case) in zip(found, held, strict=True)
    ]
    write_report(out, title, found, curves_of(results, len(splits)), pictures)
    log.info("%s: the report is %s", title, out / "report.html")
    return Validation(found, out / "report.html")


def _forget_older(label: Path, checkpoint: Path) -> None:
    """Remove what a network predicted that has been trained again since."""
    if label.is_file() and label.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns:
        label.unlink()


def _score(case: LabelledCase, label: Path, tumour: int) -> CaseScore:
    from gc_panther.imaging.images import read_image

    return score_volumes(
        read_image(label),
        read_image(case.label),
        case=case.name,
        prediction_name=str(label),
        reference_name=str(case.label),
        tumour_label=tumour,
    )


def curves_of(results: Path, folds: int) -> list[dict[str, list[float]]]:
    """What nnU-Net logged in each fold's training, an entry per epoch.

    Returns:
        One per fold: ``train_losses``, ``val_losses``, and ``pseudo_dice``, the mean over labels
        of nnU-Net's Dice on random patches of the cases held out.
    """
    found = []
    for fold in range(folds):
        logged = read_checkpoint(results / f"fold_{fold}" / FINAL)["logging"]
        dice = np.atleast_2d(np.asarray(logged["dice_per_class_or_region"], dtype=float))
        with np.errstate(invalid="ignore"):
            seen = np.isfinite(dice)
            mean = np.where(seen, dice, 0).sum(1) / np.maximum(seen.sum(1), 1)
        curves = {name: [float(v) for v in logged[name]] for name in LOSSES}
        found.append({**curves, "pseudo_dice": [float(v) for v in mean]})
    return found


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
        curves: as :func:`curves_of` returns them.
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


def draw_curves(curves: Sequence[Mapping[str, Sequence[float]]]) -> Figure:
    """Losses on the left, pseudo-Dice on the right, one colour per fold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, dice = figure.subplots(1, 2)
    for fold, curve in enumerate(curves):
        colour = f"C{fold % 10}"
        epochs = range(1, len(curve["pseudo_dice"]) + 1)
        losses.plot(epochs, curve["train_losses"], colour, lw=1.5, label=f"fold {fold}")
        losses.plot(epochs, curve["val_losses"], colour, lw=1, ls="--")
        dice.plot(epochs, curve["pseudo_dice"], colour, lw=1.5, label=f"fold {fold}")
    losses.set(xlabel="epoch", title="loss: training —, held out - -")
    dice.set(xlabel="epoch", title="pseudo-Dice, mean of the labels", ylim=(0, 1))
    for axes in (losses, dice):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


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

    labels = read_image(picture.label)
    predicted = (labels.array_zyx == picture.tumour).astype(np.uint8)
    figure = draw_overlay(
        read_image(picture.case.image),
        Volume(predicted, labels.geometry),
        reference=read_image(picture.case.label),
        title=f"{picture.case.name}, fold {picture.of.fold}: Dice {picture.of.score.dice:.3f}",
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
