"""Training of task 1: cross-validated folds, from a shared warm-up where the recipe has one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gc_panther.errors import UserError
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.training.models.export import (
    describe_splits,
    export_model,
    exported_identity,
)
from gc_panther.nnunet.training.models.plans import network_configuration
from gc_panther.nnunet.training.models.starts import require_same_network
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Network, load_preset
from gc_panther.nnunet.training.record import Files, model_files
from gc_panther.nnunet.training.splits import choose_splits, make_splits
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.data.cases import panther_cases, patient_of, unlabelled_images
from gc_panther.panther.data.checks import check_before_training
from gc_panther.panther.data.layout import DataLayout, data_files
from gc_panther.panther.training.phantoms import make_phantoms, phantoms_of
from gc_panther.panther.training.recipe import WarmUp
from gc_panther.panther.training.rounds import (
    best_round,
    describe_choice,
    rounds_document,
    rounds_table,
)
from gc_panther.panther.training.warm_up import WARM_UP_FOLDS, train_warm_up
from gc_panther_task1.card import write_card
from gc_panther_task1.recipe import DATASET, LABELS, LAYOUT, TITLE, TRAINER, Task1Recipe
from gc_panther_task1.rounds import Round, prepare_data, train_rounds

__all__ = ["DATASET", "LABELS", "LAYOUT", "Task1Recipe", "Task1Training"]

log = logging.getLogger(__name__)


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
        """The same for a recipe that is not a preset."""
        recipe = _chosen(recipe, request)
        space = Workspace.of(request)
        model = None
        if request.start_from is not None:
            # An unusable one is reported now, not after the data are prepared.
            model = open_model_folder(request.start_from)
            if isinstance(recipe.network, Network):
                require_same_network(model, network_configuration(recipe.network))
        space.claim(self.task, recipe, request, _files(recipe, request), _check(recipe, request))
        seconds, source = self._data(space, recipe, request)
        cases = panther_cases(source)
        names = [case.name for case in cases]
        unlabelled = unlabelled_images(source, names) if recipe.students else {}
        start = request.start_from
        if start is None:
            for number, warm_up in enumerate(recipe.warm_up):
                taken, start = _warm_up(space, recipe, warm_up, number, start)
                seconds += taken
        first = Round(
            name="labelled cases",
            title="task1",
            dataset=DATASET,
            schedule=recipe.schedule,
            cases=cases,
            splits=choose_splits(request, names, recipe, patient_of=patient_of),
            network=recipe.network,
            starts=[start] * recipe.folds,
            keep_heads=request.start_from is None,
        )
        facts = {
            "preset": request.preset,
            "seed": recipe.seed,
            "phantoms": recipe.phantoms is not None,
        }
        taken, results, learnt = train_rounds(space, recipe, first, unlabelled, facts, model)
        best = best_round(results)
        choice = describe_choice(results)
        log.info("task1: %s", choice)
        exported = space.results(best.dataset, TRAINER)
        card = write_card(
            recipe,
            request,
            seconds + taken,
            exported,
            len(cases),
            learnt=learnt[: results.index(best)],
            splits=describe_splits(space.splits(best.dataset)),
            validation=best.validation.markdown,
            rounds="\n\n".join([rounds_table(results), *learnt, choice]) if learnt else "",
        )
        return export_model(
            exported,
            range(recipe.folds),
            request.export / self.task,
            card=card,
            extra={"rounds.json": rounds_document(results)} if learnt else None,
            identity=exported_identity(TITLE, synthetic=request.data is None),
        )

    def _data(
        self, space: Workspace, recipe: Task1Recipe, request: TrainingRequest
    ) -> tuple[float, Path]:
        """Seconds that making the data took, and the folder in PANTHER's layout."""
        if request.data is not None:
            return 0.0, request.data
        phantoms = phantoms_of(recipe, request)
        folder = space.folder / "data" / "task1"
        make = partial(make_phantoms, phantoms, folder, workers=space.jobs)
        return space.stage("task1-phantoms", make), folder


def _files(recipe: Task1Recipe, request: TrainingRequest) -> dict[str, Files]:
    """The files that the training depends on."""
    students = bool(recipe.students)
    return {
        "data": data_files(request.data, LAYOUT, unlabelled=students) if request.data else None,
        "start": model_files(request.start_from) if request.start_from else None,
    }


def _check(recipe: Task1Recipe, request: TrainingRequest) -> Callable[[], None]:
    """What has to be sound before a work folder belongs to it."""

    def check() -> None:
        if request.data is None:
            phantoms_of(recipe, request)
            return
        check_before_training(request.data, LAYOUT)
        names = [case.name for case in panther_cases(request.data)]
        if recipe.students:
            unlabelled_images(request.data, names)
        choose_splits(request, names, recipe, patient_of=patient_of)

    return check


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


def _warm_up(
    space: Workspace, recipe: Task1Recipe, warm_up: WarmUp, number: int, start: Path | None
) -> tuple[float, Path]:
    """Train one round; return the seconds it took and the model folder."""
    dataset = f"Dataset{110 + number}_PantherWarmUp"

    def prepare(folder: Path) -> None:
        cases = panther_cases(folder)
        names = [case.name for case in cases]
        splits = make_splits(names, WARM_UP_FOLDS, recipe.seed, patient_of=patient_of)
        prepare_data(
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
