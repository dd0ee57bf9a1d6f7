"""What the parts of the training give, on phantoms of a seed never trained on.

    python benchmarks/training_gains.py                       # all comparisons, some hours
    python benchmarks/training_gains.py --compare folds crops --update-docs

`folds` and `crops` use the bundled networks. `start` and `students` train small ones of their own,
much shorter than a recipe would. Finished trainings and cases are kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from accuracy import fingerprint
from adaptive import dice
from compare_inference import machine, update_document
from gc_panther_task1.training import Task1Recipe, Task1Training
from gc_panther_task2.localizer import Localizer
from gc_panther_task2.plugin import LOCALIZER_MODEL
from gc_panther_task2.roi import Region, find_region
from gc_panther_task2.training import Task2Recipe, Task2Training
from phantoms import SEED, phantom_files, say
from warm import ROOT

from gc_panther.imaging.images import read_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.roi import Box, crop, paste
from gc_panther.json_files import write_json
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Schedule, StudentRound, load_preset
from gc_panther.panther.evaluation.metrics import TUMOUR
from gc_panther.panther.evaluation.tables import BOOTSTRAP_RESAMPLES, BOOTSTRAP_SEED
from gc_panther.panther.training.recipe import PhantomCases
from gc_panther.panther.tumour import segment_tumour
from gc_panther.task import RunContext, Runtime

DOCS = ROOT / "docs" / "training.md"
RESOURCES = ROOT / "resources"
#: Of the trainings here; no test uses it, and neither does :data:`SEED`'s measurement.
TRAINING_SEED = 2601
FOLDS = (0, 1)


@dataclass(frozen=True)
class Arm:
    """One way of doing it.

    Attributes:
        name: in the table.
        task: whose phantoms.
        model: gives the model folder; trains it where it has to.
        folds: of the model.
        cropped: task 2: whether the localizer's crop is segmented, or the whole image.
    """

    name: str
    task: str
    model: Callable[[], Path]
    folds: tuple[int, ...]
    cropped: bool = True


@dataclass(frozen=True)
class Bench:
    """Where and on what is measured.

    Attributes:
        work: folder for phantoms, trainings and results.
        cases: phantoms per task.
        jobs: trainings at the same time.
    """

    work: Path
    cases: int
    jobs: int

    @cached_property
    def results(self) -> Path:
        """What is kept for the next time; another place where the bundled weights are others."""
        bundled = {path.parent.name: path.parent for path in RESOURCES.glob("*/dataset.json")}
        return self.work / f"gains-{fingerprint(bundled)}-seed{SEED}"

    def dice(self, arm: Arm) -> np.ndarray:
        """Tumour Dice of each phantom."""
        model = open_model_folder(arm.model(), arm.folds)
        options = NnUNetOptions()
        ensemble = Ensemble(model, device="cpu", options=options)
        found = []
        for case in range(self.cases):
            name, image, label = phantom_files(arm.task, case, SEED, self.work)
            volume = to_lps(read_image(image))
            reference = to_lps(read_image(label)).array_zyx == TUMOUR
            region = self._region(arm, name, image)
            tumour = segment_tumour(ensemble, region.volume if region else volume, RunContext())
            mask = tumour.mask_zyx
            if region:
                mask = paste(mask, region.box, volume.geometry.shape_zyx)
            found.append(dice(mask == 1, reference))
            say(f"{arm.name}: {name} {found[-1]:.3f}")
        return np.array(found)

    def _region(self, arm: Arm, name: str, image: Path) -> Region | None:
        """What the localizer finds in a case of task 2; it is kept, for it is the same for all."""
        if arm.task != "task2" or not arm.cropped:
            return None
        volume = to_lps(read_image(image))
        kept = self.results / "regions" / f"{name}.json"
        if not kept.is_file():
            with tempfile.TemporaryDirectory() as scratch:
                models = {LOCALIZER_MODEL.name: RESOURCES / LOCALIZER_MODEL.name}
                localizer = Localizer(Runtime("cpu", NnUNetOptions(), models, Path(scratch)))
                region = find_region(volume, localizer, RunContext())
            write_json(kept, [region.box.start_zyx, region.box.stop_zyx])
        start, stop = json.loads(kept.read_text())
        box = Box(tuple(start), tuple(stop))
        return Region(box, True, crop(volume, box), {})

    def compare(self, title: str, plain: Arm, arm: Arm) -> str:
        """Both arms on the same cases, and the mean difference with its interval."""
        kept = self.results / f"{title.replace(' ', '-')}-{self.cases}.json"
        if not kept.is_file():
            found = [self.dice(one).tolist() for one in (plain, arm)]
            write_json(kept, found)
        before, after = (np.array(values) for values in json.loads(kept.read_text()))
        row = [title, f"{plain.name}: {_mean(before)}", f"{arm.name}: {_mean(after)}"]
        return "| " + " | ".join([*row, f"{_mean(after - before, '+.3f')}"]) + " |"


def _mean(values: np.ndarray, form: str = ".3f") -> str:
    """Mean and 95 % interval, a bootstrap over the cases."""
    draws = np.random.default_rng(BOOTSTRAP_SEED).integers(
        len(values), size=(BOOTSTRAP_RESAMPLES, len(values))
    )
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5))
    return f"{values.mean():{form}} ({low:{form}} to {high:{form}})"


def schedule(epochs: int) -> Schedule:
    """Short training of a small network."""
    return Schedule(
        epochs=epochs,
        learning_rate=0.002,
        iterations_per_epoch=50,
        validation_iterations=5,
        oversample_foreground=1.0,
        optimizer="adamw",
        augmentation="light",
        save_every=5,
    )


def train_task1(bench: Bench, name: str, epochs: int, student_epochs: int) -> Path:
    """Two folds on 14 labelled phantoms; with students, on 40 unlabelled ones as well."""
    demo = load_preset("gc_panther_task1", "demo", Task1Recipe)
    recipe = Task1Recipe(
        seed=7,
        folds=len(FOLDS),
        network=demo.network,
        schedule=schedule(epochs),
        phantoms=PhantomCases(task="task1", cases=14, seed=TRAINING_SEED, unlabelled=40),
        students=(
            (StudentRound(schedule=schedule(student_epochs), start="teacher"),)
            if student_epochs
            else ()
        ),
    )
    folder = bench.results / "trainings" / name
    request = TrainingRequest(name, folder, folder / "models", jobs=bench.jobs)
    model = Task1Training().train_recipe(recipe, request)
    # The better round is exported; the table compares the students, whichever that is.
    students = folder / "nnUNet_results" / "Dataset121_PantherStudents"
    return next(students.iterdir()) if student_epochs else model


def train_task2(bench: Bench, name: str, *, from_scratch: bool) -> Path:
    """Two folds on 30 phantoms, 400 iterations each."""
    demo = load_preset("gc_panther_task2", "demo", Task2Recipe)
    recipe = Task2Recipe(
        seed=7,
        folds=len(FOLDS),
        schedule=schedule(8),
        spacing_zyx=demo.spacing_zyx,
        margin_mm=demo.margin_mm,
        phantoms=PhantomCases(task="task2", cases=30, seed=TRAINING_SEED),
    )
    folder = bench.results / "trainings" / name
    request = TrainingRequest(
        name,
        folder,
        folder / "models",
        start_from=RESOURCES / "task1",
        jobs=bench.jobs,
        from_scratch=from_scratch,
    )
    return Task2Training().train_recipe(recipe, request)[-1]


def comparisons(bench: Bench) -> dict[str, Callable[[], list[str]]]:
    """Rows of the table, by the name one chooses them with."""

    def bundled(task: str) -> Callable[[], Path]:
        return lambda: RESOURCES / task

    def folds() -> list[str]:
        return [
            bench.compare(
                f"ensemble, {task}",
                Arm("fold 0", task, bundled(task), (0,)),
                Arm(f"{count} folds", task, bundled(task), tuple(range(count))),
            )
            for task, count in (("task1", 5), ("task2", 3))
        ]

    def crops() -> list[str]:
        whole = Arm("whole image", "task2", bundled("task2"), (0, 1, 2), cropped=False)
        return [bench.compare("crop", whole, Arm("crop", "task2", bundled("task2"), (0, 1, 2)))]

    def start() -> list[str]:
        scratch = partial(train_task2, bench, "from-scratch", from_scratch=True)
        tuned = partial(train_task2, bench, "fine-tuned", from_scratch=False)
        return [
            bench.compare(
                "fine-tuning",
                Arm("random start", "task2", scratch, FOLDS),
                Arm("from task 1", "task2", tuned, FOLDS),
            )
        ]

    def students() -> list[str]:
        # Equally long: 8 epochs of teachers and 8 of students.
        alone = partial(train_task1, bench, "labelled-only", 16, 0)
        taught = partial(train_task1, bench, "students", 8, 8)
        return [
            bench.compare(
                "noisy student",
                Arm("labelled cases only", "task1", alone, FOLDS),
                Arm("with 40 pseudo-labelled", "task1", taught, FOLDS),
            )
        ]

    return {"folds": folds, "crops": crops, "start": start, "students": students}


def main() -> int:
    """Measure, print, update the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = ["folds", "crops", "start", "students"]
    parser.add_argument("--compare", nargs="+", choices=known, default=known)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "accuracy")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)
    bench = Bench(arguments.work, arguments.cases, arguments.jobs)
    rows = comparisons(bench)
    lines = [
        f"Tumour Dice on {bench.cases} phantoms of seed {SEED}, mean and 95 % interval over the "
        f"cases; the difference is taken case by case. {machine('cpu')}.",
        "",
        "| what | without | with | difference |",
        "|---|---|---|--:|",
    ]
    for name in arguments.compare:
        lines += rows[name]()
    text = "\n".join(lines)
    print(text)
    if arguments.update_docs:
        update_document("gains", text, DOCS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
