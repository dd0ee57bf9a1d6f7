"""The rounds of task 1: folds on labelled cases, then students on pseudo-labelled ones as well."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gc_panther.nnunet.model.documents import resolved_configuration
from gc_panther.nnunet.model.folder import ModelFolder
from gc_panther.nnunet.training.dataset import LabelledCase, write_raw_dataset
from gc_panther.nnunet.training.jobs.worker import PrepareJob, TrainJob
from gc_panther.nnunet.training.models.plans import CONFIGURATION
from gc_panther.nnunet.training.models.starts import require_same_network
from gc_panther.nnunet.training.pipeline import ResEnc
from gc_panther.nnunet.training.recipe import Network, Schedule, StudentRound
from gc_panther.nnunet.training.splits import student_splits
from gc_panther.nnunet.training.students import PseudoLabels, label_images, pseudo_labels
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.data.cases import patient_of
from gc_panther.panther.training.rounds import RoundResult
from gc_panther.panther.training.validation import cross_validate
from gc_panther_task1.recipe import LABELS, TRAINER, Task1Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """A round of training, all folds.

    Attributes:
        name: what a person calls it.
        title: what its stages and log lines start with.
        dataset: nnU-Net's name of its data set.
        schedule: of each fold.
        cases: labelled, or labelled by teachers.
        splits: the cross-validation.
        network: as in :class:`PrepareJob`.
        starts: what each fold starts from: a model folder, a checkpoint, or None.
        keep_heads: whether that one's segmentation heads are used.
    """

    name: str
    title: str
    dataset: str
    schedule: Schedule
    cases: Sequence[LabelledCase]
    splits: list[dict[str, list[str]]]
    network: Network | ResEnc | Path
    starts: Sequence[Path | None]
    keep_heads: bool


def _train(
    space: Workspace,
    recipe: Task1Recipe,
    current: Round,
    facts: Mapping[str, Any],
    model: ModelFolder | None = None,
) -> float:
    """Prepare a round's data and train its folds; return the seconds it took.

    Raises:
        WeightsError: the model to start from is not of the network that nnU-Net planned.
    """
    work = partial(
        prepare_data,
        space,
        cases=current.cases,
        dataset=current.dataset,
        network=current.network,
        schedule=current.schedule,
        splits=current.splits,
        facts=facts,
    )
    seconds = space.stage(f"{current.title}-prepare", work)
    # The data may be elsewhere by now; what the folder was prepared from has the same content.
    write_raw_dataset(space.raw(current.dataset), current.cases, LABELS)
    if model is not None and not isinstance(current.network, Network):
        plans = space.plans(current.dataset)
        planned = resolved_configuration(plans, CONFIGURATION, space.folder)
        require_same_network(model, planned, plans["transpose_forward"])
    jobs = [
        TrainJob(
            title=f"{current.title} fold {fold}",
            dataset=current.dataset,
            trainer=TRAINER,
            schedule=current.schedule,
            fold=fold,
            device=space.device,
            seed=recipe.seed + fold,
            start_from=start,
            keep_heads=current.keep_heads,
        )
        for fold, start in enumerate(current.starts)
    ]
    return seconds + space.train(current.title, jobs)


def train_rounds(
    space: Workspace,
    recipe: Task1Recipe,
    first: Round,
    unlabelled: Mapping[str, Path],
    facts: Mapping[str, Any],
    model: ModelFolder | None,
) -> tuple[float, list[RoundResult], list[str]]:
    """The first round and those of the students.

    They end where teachers see nothing but background: what is trained by then is kept.

    Returns:
        The seconds they took, each round's result, and a line about each round of students that
        began.
    """
    seconds = _train(space, recipe, first, facts, model)
    results, learnt, finished = [_validate(space, first)], [], first
    for number, student in enumerate(recipe.students, start=1):
        taken, found = _pseudo_labels(space, recipe, finished, number, unlabelled)
        seconds += taken
        learnt.append(f"round {number} of students: {found}")
        if not found.cases:
            log.warning(
                "task1: the teachers saw nothing but background in every unlabelled image (%d), so "
                "there is nothing to learn for students: the best round so far is exported. Look "
                "at the teachers' report in %s",
                len(unlabelled),
                space.folder / "report" / finished.title,
            )
            learnt[-1] += "; the training ended before it"
            break
        finished = _students(space, recipe, finished, student, number, first, found)
        round_facts = {**facts, "students": number, "pseudo_labelled": len(found.cases)}
        seconds += _train(space, recipe, finished, round_facts)
        results.append(_validate(space, finished))
    return seconds, results, learnt


def _validate(space: Workspace, finished: Round) -> RoundResult:
    """Cross-validate a round and write its report."""
    validation = cross_validate(
        space,
        title=finished.title,
        dataset=finished.dataset,
        trainer=TRAINER,
        tumour=LABELS["tumour"],
    )
    return RoundResult(finished.name, finished.title, finished.dataset, validation)


def _pseudo_labels(
    space: Workspace,
    recipe: Task1Recipe,
    before: Round,
    number: int,
    unlabelled: Mapping[str, Path],
) -> tuple[float, PseudoLabels]:
    """Let a round's networks label the unlabelled images; return the seconds it took, too."""
    title = _student_title(number)
    folder = space.folder / "data" / title
    seconds = label_images(
        space,
        f"{title}-label",
        model=space.results(before.dataset, TRAINER),
        folds=range(recipe.folds),
        images=unlabelled,
        out=folder,
    )
    found = pseudo_labels(unlabelled, folder)
    log.info("%s: %s", title, found)
    return seconds, found


def _student_title(number: int) -> str:
    return f"task1-students-{number}"


def _students(
    space: Workspace,
    recipe: Task1Recipe,
    before: Round,
    student: StudentRound,
    number: int,
    first: Round,
    found: PseudoLabels,
) -> Round:
    """A round of students, who learn from the pseudo-labels of the round before."""
    teachers = space.results(before.dataset, TRAINER)
    pseudo = [case.name for case in found.cases]
    checkpoints = [teachers / f"fold_{k}" / "checkpoint_final.pth" for k in range(recipe.folds)]
    return Round(
        name=f"students {number}",
        title=_student_title(number),
        dataset=f"Dataset{120 + number}_PantherStudents",
        schedule=student.schedule,
        cases=[*first.cases, *found.cases],
        splits=student_splits(first.splits, pseudo, patient_of=patient_of),
        # The teachers' network, whatever a planner would make of more data.
        network=teachers / "plans.json",
        starts=checkpoints if student.start == "teacher" else [None] * recipe.folds,
        keep_heads=True,
    )


def prepare_data(
    space: Workspace,
    *,
    cases: Sequence[LabelledCase],
    dataset: str,
    network: Network | ResEnc | Path,
    schedule: Schedule,
    splits: list[dict[str, list[str]]],
    facts: Mapping[str, Any],
) -> None:
    """Let nnU-Net preprocess the cases."""
    write_raw_dataset(space.raw(dataset), cases, LABELS)
    job = PrepareJob(
        title=f"{dataset} data",
        dataset=dataset,
        network=network,
        schedule=schedule,
        facts=dict(facts),
        splits=splits,
        workers=space.jobs,
    )
    space.run([job])
