"""Training of the demonstration's localizer, a stand-in for MRSegmentator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.names import channel_file
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.nnunet.training.dataset import LabelledCase, write_raw_dataset
from gc_panther.nnunet.training.jobs.worker import PrepareJob, TrainJob
from gc_panther.nnunet.training.models.export import (
    export_model,
    exported_identity,
    model_card,
    pseudo_dice,
)
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import describe_schedule
from gc_panther.nnunet.training.splits import make_splits
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.data.cases import panther_cases
from gc_panther.panther.training.phantoms import make_phantoms
from gc_panther_task2.localizer import SPACING_XYZ
from gc_panther_task2.recipe import (
    LOCALIZER_DATASET,
    LOCALIZER_TITLE,
    LOCALIZER_VERSION,
    TRAINER,
    LocalizerRecipe,
    Task2Recipe,
    describe_phantoms,
    reproduce,
)


def train_localizer(
    space: Workspace, localizer: LocalizerRecipe, recipe: Task2Recipe, request: TrainingRequest
) -> Path:
    """Make phantoms of several contrasts, train one network on them and export it."""
    from gc_panther.panther.phantom.labels import ORGANS

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
        names = [case.name for case in cases]
        # Every phantom is a patient of its own.
        splits = make_splits(names, 10, recipe.seed, patient_of=str)
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
        command=reproduce(request),
        data=[describe_phantoms(phantoms) for phantoms in localizer.phantoms]
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
        name, raw / "imagesTr" / channel_file(name), raw / "labelsTr" / f"{name}.mha"
    )
    for path in (target.image, target.label):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(resample(image, SPACING_XYZ), target.image)
    write_image(resample(labels, SPACING_XYZ, interpolator="nearest"), target.label)
    return target
