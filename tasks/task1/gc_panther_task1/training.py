"""Training of task 1: cross-validated folds, from a shared warm-up where the recipe has one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from gc_panther.errors import UserError
from gc_panther.nnunet.model_folder import open_model_folder
from gc_panther.text import count
from gc_panther.training.dataset import (
    LabelledCase,
    choose_splits,
    make_phantoms,
    make_splits,
    panther_cases,
    write_raw_dataset,
)
from gc_panther.training.export import (
    describe_splits,
    export_model,
    exported_identity,
    model_card,
    pseudo_dice,
)
from gc_panther.training.panther_data import DataLayout, check_before_training
from gc_panther.training.pipeline import ResEnc, TrainingRequest
from gc_panther.training.recipe import (
    Network,
    Recipe,
    Schedule,
    StudentRound,
    WarmUp,
    describe_schedule,
    load_preset,
)
from gc_panther.training.students import (
    PseudoLabels,
    label_images,
    pseudo_labels,
    student_splits,
    unlabelled_images,
)
from gc_panther.training.validation import cross_validate
from gc_panther.training.warm_up import WARM_UP_FOLDS, train_warm_up
from gc_panther.training.worker import PrepareJob, TrainJob
from gc_panther.training.workspace import Workspace

log = logging.getLogger(__name__)

TRAINER = "gc_panther_task1.trainer:nnUNetTrainer_Student"
DATASET = "Dataset101_PantherTask1"
TITLE = "Pancreatic tumour on T1-weighted MRI (task 1)"
LABELS = {"background": 0, "tumour": 1, "pancreas": 2}
#: A patient and a study: ``10000_0001``.
LAYOUT = DataLayout(DATASET, r"\d{5}_\d{4}", "10000_0001", LABELS, "tumour")


class Task1Recipe(Recipe):
    """Recipe of task 1.

    Attributes:
        network: of every fold; written out, or the size of GPU for which nnU-Net plans it.
        warm_up: rounds before the folds; they start from random weights if there is none.
        students: rounds after the folds. In each the networks so far label the unlabelled images,
            and students learn from both.
    """

    network: Network | ResEnc
    warm_up: tuple[WarmUp, ...] = ()
    students: tuple[StudentRound, ...] = ()

    @model_validator(mode="after")
    def _network_goes_with_the_rest(self) -> Self:
        if self.warm_up and not isinstance(self.network, Network):
            raise ValueError(
                "a warm-up needs a network that is written out, because nnU-Net would plan "
                "another one for other data"
            )
        rounds: tuple[WarmUp | StudentRound, ...] = (*self.warm_up, *self.students)
        for schedule in (self.schedule, *(part.schedule for part in rounds)):
            if isinstance(self.network, Network):
                self.network.check(schedule)
            elif schedule.small_patches is not None:
                raise ValueError(
                    "small_patches need a network that is written out, because it is not known "
                    "which patches nnU-Net would plan"
                )
        return self


@dataclass(frozen=True)
class _Round:
    """A round of training, all folds.

    Attributes:
        title: what its stages and log lines start with.
        dataset: nnU-Net's name of its data set.
        schedule: of each fold.
        cases: labelled, or labelled by teachers.
        splits: the cross-validation.
        network: as in :class:`PrepareJob`.
        starts: what each fold starts from: a model folder, a checkpoint, or None.
        keep_heads: whether that one's segmentation heads are used.
    """

    title: str
    dataset: str
    schedule: Schedule
    cases: Sequence[LabelledCase]
    splits: list[dict[str, list[str]]]
    network: Network | ResEnc | Path
    starts: Sequence[Path | None]
    keep_heads: bool


class Task1Training:
    """Trains the ensemble of task 1."""

    task = "task1"
    presets: tuple[str, ...] = ("demo", "panther")
    layout: DataLayout = LAYOUT

    def train(self, request: TrainingRequest) -> tuple[Path, ...]:
        """Run every stage that is not finished yet; return the exported model folder.

        Raises:
            UserError: the recipe or the data need a change.
            ProcessingError: a training failed.
        """
        recipe = load_preset(__package__, request.preset, Task1Recipe)
        return (self.train_recipe(recipe, request),)

    def train_recipe(self, recipe: Task1Recipe, request: TrainingRequest) -> Path:
        """The same for a recipe that is no preset."""
        recipe = _chosen(recipe, request)
        space = Workspace.of(request)
        space.claim(self.task, recipe, request)
        start = request.start_from
        if start is not None:
            # An unusable one is told now, not after the data are prepared.
            open_model_folder(start)
        seconds, source = self._data(space, recipe, request)
        cases = panther_cases(source)
        names = [case.name for case in cases]
        # Told now as well, not after days of teachers.
        unlabelled = unlabelled_images(source, names) if recipe.students else {}
        if start is None:
            for number, warm_up in enumerate(recipe.warm_up):
                taken, start = _warm_up(space, recipe, warm_up, number, start)
                seconds += taken
        finished = _Round(
            title="task1",
            dataset=DATASET,
            schedule=recipe.schedule,
            cases=cases,
            splits=choose_splits(request, names, recipe),
            network=recipe.network,
            starts=[start] * recipe.folds,
            keep_heads=request.start_from is None,
        )
        facts = {
            "preset": request.preset,
            "seed": recipe.seed,
            "phantoms": recipe.phantoms is not None,
        }
        seconds += _train(space, recipe, finished, facts)
        first, learnt = finished, []
        for number, student in enumerate(recipe.students, start=1):
            taken, finished, found = _students(
                space, recipe, finished, student, number, first, unlabelled, facts
            )
            seconds += taken
            learnt.append(f"round {number} of students: {found}")
        results = space.results(finished.dataset, TRAINER)
        validation = cross_validate(
            space,
            title=finished.title,
            dataset=finished.dataset,
            trainer=TRAINER,
            tumour=LABELS["tumour"],
        )
        learnt.append(describe_splits(space.splits(finished.dataset)))
        card = _card(recipe, request, seconds, results, len(cases), learnt, validation.markdown)
        identity = exported_identity(TITLE, synthetic=request.data is None)
        return export_model(
            results, range(recipe.folds), request.export / self.task, card=card, identity=identity
        )

    def _data(
        self, space: Workspace, recipe: Task1Recipe, request: TrainingRequest
    ) -> tuple[float, Path]:
        """Seconds that making the data took, and the folder in PANTHER's layout."""
        if request.data is not None:
            check = partial(check_before_training, request.data, self.layout)
            return space.stage("task1-check", check), request.data
        if recipe.phantoms is None:
            raise UserError(
                f"preset {request.preset!r} needs data",
                fix="Give --data, a folder in PANTHER's layout",
            )
        folder, phantoms = space.folder / "data" / "task1", recipe.phantoms
        make = partial(make_phantoms, phantoms, folder, workers=space.jobs)
        return space.stage("task1-phantoms", make), folder


def _chosen(recipe: Task1Recipe, request: TrainingRequest) -> Task1Recipe:
    """The recipe with what the user chose otherwise.

    Raises:
        UserError: the choices do not go together.
    """
    if request.resenc is not None:
        if recipe.warm_up:
            raise UserError(
                f"preset {request.preset!r} cannot be trained with a planned network, because its "
                "warm-up has other data",
                fix="Leave --resenc out, or choose --preset panther",
            )
        recipe = recipe.model_copy(update={"network": request.resenc})
    if request.labelled_only:
        recipe = recipe.model_copy(update={"students": ()})
    return recipe


def _train(
    space: Workspace, recipe: Task1Recipe, current: _Round, facts: Mapping[str, Any]
) -> float:
    """Prepare a round's data and train its folds; return the seconds it took."""
    prepare = partial(
        _prepare,
        space,
        cases=current.cases,
        dataset=current.dataset,
        network=current.network,
        schedule=current.schedule,
        splits=current.splits,
        facts=facts,
    )
    seconds = space.stage(f"{current.title}-prepare", prepare)
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


def _students(
    space: Workspace,
    recipe: Task1Recipe,
    before: _Round,
    student: StudentRound,
    number: int,
    first: _Round,
    unlabelled: Mapping[str, Path],
    facts: Mapping[str, Any],
) -> tuple[float, _Round, PseudoLabels]:
    """A round of students; return the seconds it took, the round and its pseudo-labels."""
    title = f"task1-students-{number}"
    teachers = space.results(before.dataset, TRAINER)
    folder = space.folder / "data" / title
    seconds = label_images(
        space,
        f"{title}-label",
        model=teachers,
        folds=range(recipe.folds),
        images=unlabelled,
        out=folder,
    )
    found = pseudo_labels(unlabelled, folder)
    log.info("%s: %s", title, found)
    checkpoints = [teachers / f"fold_{k}" / "checkpoint_final.pth" for k in range(recipe.folds)]
    current = _Round(
        title=title,
        dataset=f"Dataset{120 + number}_PantherStudents",
        schedule=student.schedule,
        cases=[*first.cases, *found.cases],
        splits=student_splits(first.splits, [case.name for case in found.cases]),
        # The teachers' network, whatever a planner would make of more data.
        network=teachers / "plans.json",
        starts=checkpoints if student.start == "teacher" else [None] * recipe.folds,
        keep_heads=True,
    )
    round_facts = {**facts, "students": number, "pseudo_labelled": len(found.cases)}
    return seconds + _train(space, recipe, current, round_facts), current, found


def _warm_up(
    space: Workspace, recipe: Task1Recipe, warm_up: WarmUp, number: int, start: Path | None
) -> tuple[float, Path]:
    """Train one round; return the seconds it took and the model folder."""
    dataset = f"Dataset{110 + number}_PantherWarmUp"

    def prepare(folder: Path) -> None:
        cases = panther_cases(folder)
        splits = make_splits((case.name for case in cases), WARM_UP_FOLDS, recipe.seed)
        _prepare(
            space,
            cases=cases,
            dataset=dataset,
            network=recipe.network,
            schedule=warm_up.schedule,
            splits=splits,
            facts={},
        )

    return train_warm_up(
        space,
        warm_up,
        name=f"warm-up-{number}",
        dataset=dataset,
        trainer=TRAINER,
        prepare=prepare,
        seed=recipe.seed + number,
        start=start,
    )


def _prepare(
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


def _card(
    recipe: Task1Recipe,
    request: TrainingRequest,
    seconds: float,
    results: Path,
    cases: int,
    learnt: Sequence[str],
    validation: str,
) -> str:
    synthetic = request.data is None
    data = [f"{count(cases, 'labelled case')}, {count(recipe.folds, 'fold')}"]
    if synthetic and recipe.phantoms is not None:
        made = f"{count(cases, 'phantom')} of seed {recipe.phantoms.seed}"
        data = [f"{made}, {count(recipe.folds, 'fold')}"]
    rounds = recipe.warm_up if request.start_from is None else ()
    data += [
        f"warm-up: {count(warm_up.phantoms.cases, 'further phantom')} "
        f"of seed {warm_up.phantoms.seed}"
        for warm_up in rounds
    ]
    data += learnt
    training: list[Any] = [
        f"recipe: preset `{request.preset}`, seed {recipe.seed}; each checkpoint's plans hold it",
        f"each fold: {describe_schedule(recipe.schedule)}",
    ]
    training += [f"warm-up: {describe_schedule(warm_up.schedule)}" for warm_up in rounds]
    training += [
        f"round {number} of students: {describe_schedule(student.schedule)}; weights "
        + ("of the teachers" if student.start == "teacher" else "random")
        for number, student in enumerate(recipe.students, start=1)
    ]
    training.append(
        f"wall time: {seconds / 60:.0f} min on {request.device}, {request.jobs} at a time"
    )
    return model_card(
        TITLE,
        purpose="An ensemble of small residual encoder U-Nets for PANTHER's task 1, trained by "
        "nnU-Net's code through `nnUNetTrainer_Student`.",
        command=f"gc-panther train task1 --preset {request.preset} --work WORK --export models",
        data=data,
        training=training,
        results={f"fold {k}": pseudo_dice(results, k) for k in range(recipe.folds)},
        labels=LABELS,
        synthetic=synthetic,
        validation=validation,
    )
