"""Training of task 2: the localizer (phantoms only), then folds fine-tuned from task 1."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gc_panther.case import Volume
from gc_panther.errors import UserError
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.nnunet.model_folder import open_model_folder
from gc_panther.runtime.weights import find_model, weight_roots
from gc_panther.settings import read_settings
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
from gc_panther.training.pipeline import TrainingRequest
from gc_panther.training.plans import network_of_plans
from gc_panther.training.recipe import (
    Millimetres,
    Network,
    PhantomCases,
    Recipe,
    Schedule,
    Section,
    WarmUp,
    describe_schedule,
    load_preset,
)
from gc_panther.training.validation import cross_validate
from gc_panther.training.warm_up import WARM_UP_FOLDS, train_warm_up
from gc_panther.training.worker import PrepareJob, TrainJob
from gc_panther.training.workspace import Workspace
from gc_panther_task2.crops import Crops, LocalizerCrops, ReferenceCrops, is_demonstration
from gc_panther_task2.localizer import SPACING_XYZ
from gc_panther_task2.plugin import LOCALIZER_MODEL, Task2
from gc_panther_task2.roi import MARGIN_MM

log = logging.getLogger(__name__)

LABELS = {"background": 0, "tumour": 1}
ALL_LABELS = {"background": 0, "tumour": 1, "pancreas": 2}
#: Stock software looks up the trainer by name when it loads a model, so both models name nnU-Net's
#: own class, which follows the recipe all the same.
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"
LOCALIZER_DATASET, DATASET = "Dataset200_OrgansMR", "Dataset201_PantherTask2"
TITLE = "Pancreatic tumour on T2-weighted MRI (task 2)"
LOCALIZER_TITLE = "Organs on MRI, a stand-in for MRSegmentator"
#: A patient: ``10303``. PANTHER's labels of task 2 have a pancreas, too.
LAYOUT = DataLayout(DATASET, r"\d{5}", "10303", ALL_LABELS, "tumour")
#: MRSegmentator's version.json: unknown versions of its own weights would be replaced.
LOCALIZER_VERSION = {"weights_version": 1.2, "note": "gc_panther demonstration weights"}


class LocalizerRecipe(Section):
    """Training of the small stand-in for MRSegmentator.

    Attributes:
        network: its grid has the spacing the localizer resamples to.
        schedule: its training.
        phantoms: its cases; several contrasts, so that it depends on none.
        labels: the organs of MRSegmentator's table that it learns.
    """

    network: Network
    labels: tuple[str, ...]
    schedule: Schedule
    phantoms: tuple[PhantomCases, ...]

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        self.network.check(self.schedule)
        return self


class Task2Recipe(Recipe):
    """Recipe of task 2. The architecture is that of the model it starts from.

    Attributes:
        spacing_zyx: of the crops; that of the model it starts from if None.
        crops: ``localizer`` cuts each case as inference does, to what the localizer finds;
            ``reference`` cuts it to its true pancreas and tumour.
        margin_mm: around the true ones each side has a margin from this range: the localizer's
            boxes are larger and smaller, too.
        classes: 2 learns the tumour, the pancreas is background; 3 keeps it a class.
        start: ``task1`` fine-tunes a model of task 1; ``random`` trains the same network from
            random weights.
        warm_up: rounds between the model of task 1 and the folds, on crops as well, and with the
            pancreas as a class: it tells where to look.
        localizer: None where the published MRSegmentator weights are used.
    """

    spacing_zyx: tuple[Millimetres, Millimetres, Millimetres] | None = None
    crops: Literal["localizer", "reference"] = "reference"
    classes: Literal[2, 3] = 2
    start: Literal["task1", "random"] = "task1"
    margin_mm: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (
        MARGIN_MM,
        MARGIN_MM,
    )
    warm_up: tuple[WarmUp, ...] = ()
    localizer: LocalizerRecipe | None = None

    @property
    def labels(self) -> Mapping[str, int]:
        """Label values by name."""
        return LABELS if self.classes == 2 else ALL_LABELS


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
        """The same for a recipe that is no preset."""
        recipe = _chosen(recipe, request)
        model = request.start_from or request.export / "task1"
        network = network_of_plans(_plans_of(model))
        if request.data is None:
            _phantoms_of(recipe, request)
        _check_schedules(recipe, network, model)
        space = Workspace.of(request)
        space.claim(self.task, recipe, request)
        folders = []
        if recipe.localizer is not None:
            folders.append(_train_localizer(space, recipe.localizer, recipe, request))
        folders.append(_train_folds(space, recipe, request, model, network))
        return tuple(folders)


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


def _check_schedules(recipe: Task2Recipe, network: Network, model: Path) -> None:
    """See that the network of the model to start from can be trained by the recipe.

    Raises:
        UserError: it cannot.
    """
    try:
        for schedule in (recipe.schedule, *(part.schedule for part in recipe.warm_up)):
            network.check(schedule)
    except ValueError as error:
        raise UserError(
            f"the recipe does not fit the network of the model to fine-tune from ({error})",
            where=model,
            fix="Give --from a model that the same preset of task 1 made",
        ) from error


def _train_localizer(
    space: Workspace, localizer: LocalizerRecipe, recipe: Task2Recipe, request: TrainingRequest
) -> Path:
    from gc_panther.phantom.labels import ORGANS

    seconds = 0.0
    sources = []
    for number, phantoms in enumerate(localizer.phantoms):
        folder = space.folder / "data" / f"localizer-{number}"
        seconds += space.stage(
            f"localizer-phantoms-{number}",
            lambda phantoms=phantoms, folder=folder: make_phantoms(  # type: ignore[misc]
                phantoms, folder, workers=space.jobs, organs=True
            ),
        )
        sources.append(folder)
    raw = space.raw(LOCALIZER_DATASET)
    labels = {"background": 0, **{name: n for n, name in enumerate(localizer.labels, start=1)}}
    renumbering = np.zeros(len(ORGANS), np.uint8)
    for name, value in labels.items():
        renumbering[ORGANS[name]] = value

    def prepare_data() -> None:
        cases = [
            _resampled(case, raw, f"{number}_{case.name}", renumbering)
            for number, source in enumerate(sources)
            for case in panther_cases(source, labels="OrgansTr")
        ]
        write_raw_dataset(raw, cases, labels)
        # Case names begin with their source here: every case is a patient of its own.
        names = {case.name.replace("_", "-"): case.name for case in cases}
        splits = [
            {part: [names[name] for name in split[part]] for part in split}
            for split in make_splits(names, 10, recipe.seed)
        ]
        space.run(
            [
                PrepareJob(
                    title="localizer data",
                    dataset=LOCALIZER_DATASET,
                    network=localizer.network,
                    schedule=localizer.schedule,
                    splits=splits,
                    workers=space.jobs,
                )
            ]
        )

    seconds += space.stage("localizer-prepare", prepare_data)
    job = TrainJob(
        title="localizer",
        dataset=LOCALIZER_DATASET,
        trainer=TRAINER,
        schedule=localizer.schedule,
        fold=0,
        device=space.device,
        seed=recipe.seed,
    )
    seconds += space.train("localizer", [job])
    results = space.results(LOCALIZER_DATASET, TRAINER)
    card = model_card(
        LOCALIZER_TITLE,
        purpose="A small network in MRSegmentator's folder format and label table, which task 2 "
        "uses to find the pancreas (label 7). It has MRSegmentator's 41 outputs; only those of the "
        f"background and of {', '.join(localizer.labels)} are trained, the others never win. "
        "It is not MRSegmentator: for patients take the published weights, "
        "https://github.com/hhaentze/MRSegmentator.",
        command=_command(request),
        data=[_describe_phantoms(phantoms) for phantoms in localizer.phantoms]
        + [f"resampled to {SPACING_XYZ} mm (x, y, z) as the localizer does"],
        training=[
            f"recipe: preset `{request.preset}`, seed {recipe.seed}",
            describe_schedule(localizer.schedule),
            f"wall time: {seconds / 60:.0f} min on {request.device}",
        ],
        results={"fold 0": pseudo_dice(results, 0)},
        labels=ORGANS,
        synthetic=True,
    )
    return export_model(
        results,
        (0,),
        request.export / "mrsegmentator",
        card=card,
        labels=ORGANS,
        extra={"version.json": LOCALIZER_VERSION},
        identity=exported_identity(LOCALIZER_TITLE, synthetic=True),
    )


def _resampled(case: LabelledCase, raw: Path, name: str, renumbering: np.ndarray) -> LabelledCase:
    """The case on the grid on which the localizer sees it, labels renumbered."""
    image = to_lps(read_image(case.image))
    organs = to_lps(read_image(case.label))
    labels = Volume(renumbering[organs.array_zyx], organs.geometry)
    target = LabelledCase(
        name, raw / "imagesTr" / f"{name}_0000.mha", raw / "labelsTr" / f"{name}.mha"
    )
    for path in (target.image, target.label):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(resample(image, SPACING_XYZ), target.image)
    write_image(resample(labels, SPACING_XYZ, interpolator="nearest"), target.label)
    return target


def _train_folds(
    space: Workspace,
    recipe: Task2Recipe,
    request: TrainingRequest,
    model: Path,
    network: Network,
) -> Path:
    """Train and export the ensemble.

    Args:
        space: work folder.
        recipe: as chosen.
        request: data and folders.
        model: the one to fine-tune from.
        network: that model's.
    """
    if recipe.spacing_zyx is not None:
        network = network.model_copy(update={"spacing_zyx": recipe.spacing_zyx})
    start = model if recipe.start == "task1" else None
    seconds = 0.0
    crops = _crops(recipe, request)
    for number, warm_up in enumerate(recipe.warm_up):
        taken, start = _warm_up(space, recipe, crops, network, warm_up, number, start)
        seconds += taken
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
            partial(choose_splits, request, recipe=recipe),
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
            # The warm-up knows the labels, and maybe one more. A model of task 1 knows them where
            # there are three; binary heads start fresh.
            keep_heads=bool(recipe.warm_up) or recipe.classes == 3,
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
        command=_command(request),
        data=[
            data,
            *(f"warm-up: {_describe_phantoms(w.phantoms)}" for w in recipe.warm_up),
            f"crops: {crops.description}",
            describe_splits(space.splits(DATASET)),
            _describe_labels(recipe),
        ],
        training=[
            f"recipe: preset `{request.preset}`, seed {recipe.seed}; the plans hold it",
            f"each fold: {describe_schedule(recipe.schedule)}; {_describe_start(recipe)}",
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
            partial(make_splits, folds=WARM_UP_FOLDS, seed=recipe.seed),
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


def _plans_of(model: Path) -> dict[str, Any]:
    if not model.is_dir():
        raise UserError(
            "the model to fine-tune from is not there",
            where=model,
            fix="Train task 1 into the same --export folder first, or give --from MODEL",
        )
    return dict(open_model_folder(model).plans)


def _data(
    space: Workspace, recipe: Task2Recipe, request: TrainingRequest
) -> tuple[float, Path, str]:
    if request.data is not None:
        check = partial(check_before_training, request.data, LAYOUT)
        seconds = space.stage("task2-check", check)
        return seconds, request.data, count(len(panther_cases(request.data)), "labelled case")
    folder, phantoms = space.folder / "data" / "task2", _phantoms_of(recipe, request)
    seconds = space.stage(
        "task2-phantoms", lambda: make_phantoms(phantoms, folder, workers=space.jobs)
    )
    return seconds, folder, _describe_phantoms(phantoms)


def _phantoms_of(recipe: Task2Recipe, request: TrainingRequest) -> PhantomCases:
    """What there is to learn from without data, or the error that there is nothing."""
    if recipe.phantoms is None:
        raise UserError(
            f"preset {request.preset!r} needs data",
            fix="Give --data, a folder in PANTHER's layout",
        )
    return recipe.phantoms


def _crops(recipe: Task2Recipe, request: TrainingRequest) -> Crops:
    if recipe.crops == "reference":
        return ReferenceCrops(recipe.margin_mm, recipe.seed)
    if recipe.localizer is not None:
        return LocalizerCrops(request.export / LOCALIZER_MODEL.name)
    model = find_model(LOCALIZER_MODEL, weight_roots(read_settings()), Task2())
    log.info("crops with the localizer in %s", model)
    if request.data is not None and is_demonstration(model):
        log.warning(
            "This localizer is the demonstration's, which has never seen a patient: put "
            "MRSegmentator's weights into %s",
            model,
        )
    return LocalizerCrops(model)


def _describe_labels(recipe: Task2Recipe) -> str:
    if recipe.classes == 3:
        return "labels: tumour and pancreas"
    warm_up = ", but in the warm-up it is a class" if recipe.warm_up else ""
    return f"labels: tumour; the pancreas counts as background{warm_up}"


def _describe_start(recipe: Task2Recipe) -> str:
    first = "fold 0 of task 1" if recipe.start == "task1" else "random weights"
    if recipe.warm_up:
        return f"weights from the warm-up, which starts from {first}"
    if recipe.start == "task1" and recipe.classes == 2:
        return f"weights from {first}, fresh segmentation heads"
    return f"weights from {first}" if recipe.start == "task1" else first


def _describe_phantoms(phantoms: PhantomCases) -> str:
    contrasts = {"t1": "T1", "t2": "T2", "mixed": "mixed sequences", "random": "random contrast"}
    contrast = contrasts[phantoms.contrast or {"task1": "t1", "task2": "t2"}[phantoms.task]]
    varied = ", varied patients, fields of view and voxels" if phantoms.varied else ""
    made = f"{count(phantoms.cases, 'phantom')} of {phantoms.task}, seed {phantoms.seed}"
    return f"{made}, {contrast}{varied}"


def _command(request: TrainingRequest) -> str:
    return f"gc-panther train task2 --preset {request.preset} --work WORK --export models"
