"""Cross-validation with PANTHER's metrics and a report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from gc_panther.nnunet.training.cross_validation import HeldOut, curves_of, predict_held_out
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.evaluation.metrics import CaseScore, score_volumes
from gc_panther.panther.evaluation.tables import markdown_summary
from gc_panther.panther.training.report import FoldScore, Picture, write_report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """What the cross-validation came to.

    Attributes:
        cases: every case once, by fold and name.
        report: ``report.html``; ``cases.csv``, ``metrics.json`` and ``curves.png`` are next to it.
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

    Args:
        space: as for :func:`~gc_panther.nnunet.training.cross_validation.predict_held_out`.
        title: of the training; names the folder below ``report``, too.
        dataset: nnU-Net's name of the data set.
        trainer: as in :class:`~gc_panther.nnunet.training.jobs.worker.TrainJob`.
        tumour: the label that is scored.

    Raises:
        ProcessingError: a prediction failed.
    """
    held = predict_held_out(space, title=title, dataset=dataset, trainer=trainer)
    found = tuple(FoldScore(one.fold, _score(one, tumour)) for one in held)
    pictures = [Picture(score, one, tumour) for score, one in zip(found, held, strict=True)]
    curves = curves_of(space.results(dataset, trainer), len(space.splits(dataset)))
    out = space.folder / "report" / title
    write_report(out, title, found, curves, pictures)
    log.info("%s: the report is %s", title, out / "report.html")
    return Validation(found, out / "report.html")


def _score(held: HeldOut, tumour: int) -> CaseScore:
    from gc_panther.imaging.images import read_image

    return score_volumes(
        read_image(held.label),
        read_image(held.case.label),
        case=held.case.name,
        prediction_name=str(held.label),
        reference_name=str(held.case.label),
        tumour_label=tumour,
    )
