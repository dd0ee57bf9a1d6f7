"""Training of task 1: cross-validated folds, from a shared warm-up where the recipe has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gc_panther.errors import UserError
from gc_panther.nnunet.model_folder import open_model_folder
from gc_panther.training.dataset import (
    LabelledCase,
    make_phantoms,
    make_splits,
    panther_cases,
    write_raw_dataset,
)
from gc_panther.training.export import export_model, model_card, pseudo_dice
from gc_panther.training.pipeline import TrainingRequest
from gc_panther.training.recipe import (
    Network,
    Recipe,
    Schedule,
    WarmUp,
    describe_schedule,
    load_preset,
)
from gc_panther.training.warm_up import WARM_UP_FOLDS, train_warm_up
from gc_panther.training.worker import PrepareJob, TrainJob
from gc_panther.training.workspace import Workspace

LABELS = {"background": 0, "tumour": 1, "pancreas": 2}
TRAINER = "gc_panther_task1.trainer:nnUNetTrainer_Student"
DATASET = "Dataset101_PantherTask1"


class Task1Recipe(Recipe):
    """Recipe of task 1.

    Attributes:
        network: of every fold.
        warm_up: rounds before the folds; they start from random weights if there is none.
    """

    network: Network
    warm_up: tuple[WarmUp, ...] = ()


class Task1Training:
    """Trains the ensemble of task 1."""

    task = "task1"
    presets: tuple[str, ...] = ("demo", "panther")

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
        space = Workspace(request.work, request.jobs, request.device)
        space.claim(self.task, request.preset, recipe)
        start = request.start_from
        if start is not None:
            # An unusable one is told now, not after the data are prepared.
            open_model_folder(start)
        seconds = 0.0
        if start is None:
            for number, warm_up in enumerate(recipe.warm_up):
                taken, start = _warm_up(space, recipe, warm_up, number, start)
                seconds += taken
        cases = self._cases(space, recipe, request)
        facts = {
            "preset": request.preset,
            "seed": recipe.seed,
            "phantoms": recipe.phantoms is not None,
        }
        seconds += space.stage(
            "task1-prepare",
            lambda: _prepare(space, recipe, cases, DATASET, recipe.schedule, recipe.folds, facts),
        )
        jobs = [
            TrainJob(
                title=f"task1 fold {fold}",
                dataset=DATASET,
                trainer=TRAINER,
                schedule=recipe.schedule,
                fold=fold,
                device=space.device,
                threads=space.threads,
                seed=recipe.seed + fold,
                start_from=start,
                keep_heads=request.start_from is None,
            )
            for fold in range(recipe.folds)
        ]
        results = space.results(DATASET, TRAINER)
        seconds += space.train("task1", jobs)
        card = _card(recipe, request, seconds, results, len(cases))
        return export_model(results, range(recipe.folds), request.export / self.task, card=card)

    def _cases(
        self, space: Workspace, recipe: Task1Recipe, request: TrainingRequest
    ) -> list[LabelledCase]:
        if request.data is not None:
            return panther_cases(request.data)
        if recipe.phantoms is None:
            raise UserError(
                f"preset {request.preset!r} needs data",
                fix="Give --data, a folder in PANTHER's layout",
            )
        folder, phantoms = space.folder / "data" / "task1", recipe.phantoms
        space.stage("task1-phantoms", lambda: make_phantoms(phantoms, folder, workers=space.jobs))
        return panther_cases(folder)


def _warm_up(
    space: Workspace, recipe: Task1Recipe, warm_up: WarmUp, number: int, start: Path | None
) -> tuple[float, Path]:
    """Train one round; return the seconds it took and the model folder."""
    dataset = f"Dataset{110 + number}_PantherWarmUp"

    def prepare(folder: Path) -> None:
        cases = panther_cases(folder)
        _prepare(space, recipe, cases, dataset, warm_up.schedule, WARM_UP_FOLDS, {})

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
    recipe: Task1Recipe,
    cases: Sequence[LabelledCase],
    dataset: str,
    schedule: Schedule,
    folds: int,
    facts: dict[str, Any],
) -> None:
    """Let nnU-Net preprocess the cases."""
    write_raw_dataset(space.raw(dataset), cases, LABELS)
    job = PrepareJob(
        title=f"{dataset} data",
        dataset=dataset,
        network=recipe.network,
        schedule=schedule,
        facts=facts,
        splits=make_splits((case.name for case in cases), folds, recipe.seed),
        workers=space.jobs,
    )
    space.run([job])


def _card(
    recipe: Task1Recipe, request: TrainingRequest, seconds: float, results: Path, cases: int
) -> str:
    synthetic = request.data is None
    data = [f"{cases} labelled cases, {recipe.folds} folds"]
    if synthetic and recipe.phantoms is not None:
        data = [f"{cases} phantoms of seed {recipe.phantoms.seed}, {recipe.folds} folds"]
    rounds = recipe.warm_up if request.start_from is None else ()
    data += [
        f"warm-up: {warm_up.phantoms.cases} further phantoms of seed {warm_up.phantoms.seed}"
        for warm_up in rounds
    ]
    training: list[Any] = [
        f"recipe: preset `{request.preset}`, seed {recipe.seed}; each checkpoint's plans hold it",
        f"each fold: {describe_schedule(recipe.schedule)}",
    ]
    training += [f"warm-up: {describe_schedule(warm_up.schedule)}" for warm_up in rounds]
    training.append(
        f"wall time: {seconds / 60:.0f} min on {request.device}, {request.jobs} at a time"
    )
    return model_card(
        "Pancreatic tumour on T1-weighted MRI (task 1)",
        purpose="An ensemble of small residual encoder U-Nets for PANTHER's task 1, trained by "
        "nnU-Net's code through `nnUNetTrainer_Student`.",
        command=f"gc-panther train task1 --preset {request.preset} --work WORK --export models",
        data=data,
        training=training,
        results={f"fold {k}": pseudo_dice(results, k) for k in range(recipe.folds)},
        labels=LABELS,
        synthetic=synthetic,
    )
