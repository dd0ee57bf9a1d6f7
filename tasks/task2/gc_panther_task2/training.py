"""Training of task 2: the localizer (phantoms only), then folds fine-tuned from task 1."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gc_panther.errors import UserError
from gc_panther.nnunet.model.folder import ModelFolder, open_model_folder
from gc_panther.nnunet.training.dataset import write_raw_dataset
from gc_panther.nnunet.training.jobs.worker import PrepareJob, TrainJob
from gc_panther.nnunet.training.models.export import (
    describe_splits,
    export_model,
    exported_identity,
    model_card,
    pseudo_dice,
)
from gc_panther.nnunet.training.models.plans import network_configuration, network_of_plans
from gc_panther.nnunet.training.models.starts import require_same_network
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import (
    Network,
    Schedule,
    describe_schedule,
    load_preset,
)
from gc_panther.nnunet.training.record import Files, model_files
from gc_panther.nnunet.training.splits import choose_splits, make_splits
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.options import RunOptions, read_options
from gc_panther.panther.data.cases import panther_cases, patient_of
from gc_panther.panther.data.checks import check_before_training
from gc_panther.panther.data.layout import DataLayout, data_files
from gc_panther.panther.labels import same_labels
from gc_panther.panther.training.phantoms import make_phantoms, phantoms_of
from gc_panther.panther.training.recipe import WarmUp
from gc_panther.panther.training.validation import cross_validate
from gc_panther.panther.training.warm_up import WARM_UP_FOLDS, train_warm_up
from gc_panther.runtime.weights import find_model, weight_roots
from gc_panther.settings import read_settings
from gc_panther.text import count
from gc_panther_task2.crops import Crops, LocalizerCrops, ReferenceCrops, is_demonstration
from gc_panther_task2.localizer_training import train_localizer
from gc_panther_task2.plugin import LOCALIZER_MODEL, Task2
from gc_panther_task2.recipe import (
    ALL_LABELS,
    DATASET,
    LABELS,
    LAYOUT,
    TITLE,
    TRAINER,
    Task2Recipe,
    describe_labels,
    describe_phantoms,
    describe_start,
    reproduce,
)

log = logging.getLogger(__name__)


class Task2Training:
    """Trains the ensemble of task 2, and in the demonstration its localizer."""

    task = "task2"
    presets: tuple[str, ...] = ("demo", "panther")
    layout: DataLayout = LAYOUT

    def train(self, request: TrainingRequest) -> tuple[Path, ...]:
        """Run every stage that is not finished yet; return the exported model folders.

        Raises:
            UserError: the recipe, the data or the model to start from need a change.
            ProcessingError: a training failed.
        """
        return self.train_recipe(load_preset(__package__, request.preset, Task2Recipe), request)

    def train_recipe(self, recipe: Task2Recipe, request: TrainingRequest) -> tuple[Path, ...]:
        """The same for a recipe that is not a preset."""
        recipe = _chosen(recipe, request)
        model = _model_of(request.start_from or request.export / "task1")
        network = network_of_plans(model.plans, model.configuration)
        if request.data is None:
            phantoms_of(recipe, request)
        if recipe.start == "task1":
            # The spacing may be another one where the recipe says so; nothing else may.
            require_same_network(model, network_configuration(network))
        space = Workspace.of(request)
        crops = _crops(recipe, request)
        space.claim(
            self.task,
            recipe,
            request,
            _files(recipe, request, model, crops),
            _check(recipe, request),
        )
        folders = []
        if recipe.localizer is not None:
            folders.append(train_localizer(space, recipe.localizer, recipe, request))
        folders.append(_train_folds(space, recipe, request, model, network, crops))
        return tuple(folders)


def _files(
    recipe: Task2Recipe, request: TrainingRequest, model: ModelFolder, crops: Crops
) -> dict[str, Files]:
    """The files that the training depends on."""
    localizer = None
    # One of the recipe's own is trained in the work folder.
    if isinstance(crops, LocalizerCrops) and recipe.localizer is None:
        localizer = model_files(crops.model)
    return {
        "data": data_files(request.data, LAYOUT, unlabelled=False) if request.data else None,
        "start": model_files(model.path),
        "localizer": localizer,
    }


def _check(recipe: Task2Recipe, request: TrainingRequest) -> Callable[[], None]:
    """What has to be sound before a work folder belongs to it."""

    def check() -> None:
        if request.data is not None:
            check_before_training(request.data, LAYOUT)
            names = [case.name for case in panther_cases(request.data)]
            choose_splits(request, names, recipe, patient_of=patient_of)

    return check


def _chosen(recipe: Task2Recipe, request: TrainingRequest) -> Task2Recipe:
    """The recipe with what the user chose otherwise.

    Raises:
        UserError: the choice is none, or it is another task's.
    """
    if request.resenc is not None:
        raise UserError(
            "task 2 takes its network from task 1",
            fix="Give --resenc when training task 1, and that model to --from",
        )
    if request.classes not in (None, 2, 3):
        raise UserError(f"there are 2 or 3 classes, not {request.classes}", fix="Change --classes")
    update: dict[str, Any] = {}
    if request.classes is not None:
        update["classes"] = request.classes
    if request.from_scratch:
        update["start"] = "random"
    return recipe.model_copy(update=update)


def _train_folds(
    space: Workspace,
    recipe: Task2Recipe,
    request: TrainingRequest,
    model: ModelFolder,
    network: Network,
    crops: Crops,
) -> Path:
    """Train and export the ensemble.

    Args:
        space: work folder.
        recipe: as chosen.
        request: data and folders.
        model: the one to fine-tune from.
        network: that model's.
        crops: how the cases are cut.
    """
    if recipe.spacing_zyx is not None:
        network = network.model_copy(update={"spacing_zyx": recipe.spacing_zyx})
    start = model.path if recipe.start == "task1" else None
    keep_heads = same_labels(model, ALL_LABELS)
    seconds = 0.0
    for number, warm_up in enumerate(recipe.warm_up):
        taken, start = _warm_up(
            space, recipe, crops, network, warm_up, number, start, keep_heads or number > 0
        )
        seconds += taken
    # A model of task 1 knows the labels where there are three; binary heads start fresh.
    keep_heads = bool(recipe.warm_up) or (keep_heads and recipe.classes == 3)
    taken, source, data = _data(space, recipe, request)
    facts = {"preset": request.preset, "seed": recipe.seed}
    seconds += taken + space.stage(
        "task2-prepare",
        lambda: _prepare_crops(
            space,
            recipe,
            crops,
            source,
            DATASET,
            network,
            recipe.schedule,
            partial(choose_splits, request, recipe=recipe, patient_of=patient_of),
            facts,
            recipe.labels,
        ),
    )
    jobs = [
        TrainJob(
            title=f"task2 fold {fold}",
            dataset=DATASET,
            trainer=TRAINER,
            schedule=recipe.schedule,
            fold=fold,
            device=space.device,
            seed=recipe.seed + fold,
            start_from=start,
            # The warm-up knows the labels, and maybe one more.
            keep_heads=keep_heads,
            head_rows=tuple(recipe.labels.values()) if recipe.warm_up else None,
        )
        for fold in range(recipe.folds)
    ]
    seconds += space.train("task2", jobs)
    results = space.results(DATASET, TRAINER)
    validation = cross_validate(
        space, title="task2", dataset=DATASET, trainer=TRAINER, tumour=LABELS["tumour"]
    )
    card = model_card(
        TITLE,
        purpose="An ensemble of residual encoder U-Nets for PANTHER's task 2, trained by nnU-Net's "
        "code on crops around the pancreas.",
        command=reproduce(request),
        data=[
            data,
            *(f"warm-up: {describe_phantoms(w.phantoms)}" for w in recipe.warm_up),
            f"crops: {crops.description}",
            describe_splits(space.splits(DATASET)),
            describe_labels(recipe),
        ],
        training=[
            f"recipe: preset `{request.preset}`, seed {recipe.seed}; the plans hold it",
            f"each fold: {describe_schedule(recipe.schedule)}; "
            + describe_start(recipe, keep_heads),
            *(f"warm-up before the folds: {describe_schedule(w.schedule)}" for w in recipe.warm_up),
            f"wall time: {seconds / 60:.0f} min on {request.device}, {request.jobs} at a time",
        ],
        results={f"fold {k}": pseudo_dice(results, k) for k in range(recipe.folds)},
        labels=recipe.labels,
        synthetic=request.data is None,
        validation=validation.markdown,
    )
    identity = exported_identity(TITLE, synthetic=request.data is None)
    return export_model(
        results, range(recipe.folds), request.export / "task2", card=card, identity=identity
    )


def _warm_up(
    space: Workspace,
    recipe: Task2Recipe,
    crops: Crops,
    network: Network,
    warm_up: WarmUp,
    number: int,
    start: Path | None,
    keep_heads: bool,
) -> tuple[float, Path]:
    """Train one round; return the seconds it took and the model folder."""
    dataset, schedule = f"Dataset{210 + number}_PantherWarmUp", warm_up.schedule

    def prepare(folder: Path) -> None:
        _prepare_crops(
            space,
            recipe,
            crops,
            folder,
            dataset,
            network,
            schedule,
            partial(make_splits, folds=WARM_UP_FOLDS, seed=recipe.seed, patient_of=patient_of),
            {},
            ALL_LABELS,
        )

    return train_warm_up(
        space,
        warm_up,
        name=f"task2-warm-up-{number}",
        dataset=dataset,
        trainer=TRAINER,
        prepare=prepare,
        seed=recipe.seed + number,
        start=start,
        keep_heads=keep_heads,
    )


def _prepare_crops(
    space: Workspace,
    recipe: Task2Recipe,
    crops: Crops,
    source: Path,
    dataset: str,
    network: Network,
    schedule: Schedule,
    split: Callable[[Sequence[str]], list[dict[str, list[str]]]],
    facts: dict[str, Any],
    labels: Mapping[str, int],
) -> None:
    """Cut the cases of a folder in PANTHER's layout and let nnU-Net preprocess them."""
    raw = space.raw(dataset)
    whole = panther_cases(source)
    # Told before the crops are made: the splits may come from a user.
    splits = split([case.name for case in whole])
    cases = crops.make(space, whole, raw, list(labels.values()))
    kept = {case.name for case in cases}
    write_raw_dataset(raw, cases, labels)
    job = PrepareJob(
        title=f"{dataset} data",
        dataset=dataset,
        network=network,
        schedule=schedule,
        facts=facts,
        splits=[{p: [n for n in fold[p] if n in kept] for p in fold} for fold in splits],
        workers=space.jobs,
    )
    space.run([job])


def _model_of(model: Path) -> ModelFolder:
    if not model.is_dir():
        raise UserError(
            "the model to fine-tune from is not there",
            where=model,
            fix="Train task 1 into the same --export folder first, or give --from MODEL",
        )
    return open_model_folder(model)


def _data(
    space: Workspace, recipe: Task2Recipe, request: TrainingRequest
) -> tuple[float, Path, str]:
    if request.data is not None:
        return 0.0, request.data, count(len(panther_cases(request.data)), "labelled case")
    folder, phantoms = space.folder / "data" / "task2", phantoms_of(recipe, request)
    seconds = space.stage(
        "task2-phantoms", lambda: make_phantoms(phantoms, folder, workers=space.jobs)
    )
    return seconds, folder, describe_phantoms(phantoms)


def _crops(recipe: Task2Recipe, request: TrainingRequest) -> Crops:
    if recipe.crops == "reference":
        return ReferenceCrops(recipe.margin_mm, recipe.seed)
    if recipe.localizer is not None:
        return LocalizerCrops(request.export / LOCALIZER_MODEL.name)
    roots = weight_roots(read_settings(), read_options(RunOptions).model_dir)
    model = find_model(LOCALIZER_MODEL, roots, Task2())
    log.info("crops with the localizer in %s", model)
    if request.data is not None and is_demonstration(model):
        log.warning(
            "This localizer is the demonstration's, which has never seen a patient: put "
            "MRSegmentator's weights into %s",
            model,
        )
    return LocalizerCrops(model)
