"""Registers PANTHER task 2; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gc_panther.hookspecs import hookimpl
from gc_panther.panther.options import PantherOptions
from gc_panther.task import Interface, ModelRequirement, Predictor, Runtime, Socket, Task

if TYPE_CHECKING:
    from gc_panther.case import Case
    from gc_panther.nnunet.training.pipeline import TrainingPipeline

IMAGE = Socket(
    slug="abdominal-t2-mri",
    relative_path="images/abdominal-t2-mri",
    title="Abdominal T2 MRI",
)
MASK = Socket(
    slug="pancreatic-tumor-segmentation",
    relative_path="images/pancreatic-tumor-segmentation",
    title="Pancreatic tumor segmentation",
)
#: What the image is, and its usual least and largest field of view, mm.
KIND = "T2-weighted MRI of the abdomen"
VIEW_MM = (150.0, 600.0)
MODEL = ModelRequirement(
    name="task2",
    folds=(0, 1, 2),
    source="Train them with `gc-panther train task2`, or take the PANTHER baseline's from Zenodo "
    "record 15211865 (https://zenodo.org/records/15211865)",
)
LOCALIZER_MODEL = ModelRequirement(
    name="mrsegmentator",
    folds=(),  # the published weights have five; fewer find the pancreas, too
    source="Unpack MRSegmentator's weights.zip of "
    "https://github.com/hhaentze/MRSegmentator/releases/tag/v1.2.0 so that the folder directly "
    "holds plans.json",
)


class Task2(Task):
    """Pancreatic tumour on T2-weighted MRI of an MR-Linac."""

    name = "task2"
    title = "Pancreatic tumour on T2-weighted MR-Linac images (PANTHER task 2)"
    interfaces = (Interface(inputs=(IMAGE,), outputs=(MASK,)),)
    models = (MODEL, LOCALIZER_MODEL)
    libraries = ("torch",)
    labels = {0: "background", 1: "tumour"}  # noqa: RUF012
    Options = PantherOptions

    def load(self, runtime: Runtime) -> Predictor:
        """Load the localizer and the ensemble."""
        from gc_panther_task2.segmenter import Task2Segmenter

        return Task2Segmenter(runtime)


@hookimpl
def gc_panther_tasks() -> list[Task]:
    """Provide task 2."""
    return [Task2()]


@hookimpl
def gc_panther_distributions() -> list[str]:
    """List what the localizer's label map is read with."""
    return ["mrsegmentator"]


@hookimpl
def gc_panther_check_case(task: Task, case: Case) -> list[str]:
    """Refuse what cannot be a scan."""
    if not isinstance(task, Task2):
        return []
    from gc_panther.imaging.plausibility import scan_problems

    return scan_problems(case[IMAGE])


@hookimpl
def gc_panther_warn_case(task: Task, case: Case) -> list[str]:
    """Warn about what does not look like this task's scans."""
    if not isinstance(task, Task2):
        return []
    from gc_panther.imaging.plausibility import ExpectedScan, scan_warnings

    return scan_warnings(case[IMAGE], ExpectedScan(KIND, VIEW_MM))


@hookimpl
def gc_panther_training() -> list[TrainingPipeline]:
    """Provide the training of task 2."""
    from gc_panther_task2.training import Task2Training

    return [Task2Training()]
