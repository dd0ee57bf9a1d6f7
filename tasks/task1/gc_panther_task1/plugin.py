"""Registers PANTHER task 1; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gc_panther.hookspecs import hookimpl
from gc_panther.panther.options import PantherOptions
from gc_panther.task import Interface, ModelRequirement, Predictor, Runtime, Socket, Task

if TYPE_CHECKING:
    from gc_panther.case import Case
    from gc_panther.nnunet.training.pipeline import TrainingPipeline

IMAGE = Socket(
    slug="abdominal-t1-mri",
    relative_path="images/abdominal-t1-mri",
    title="Abdominal T1 MRI",
)
MASK = Socket(
    slug="pancreatic-tumor-segmentation",
    relative_path="images/pancreatic-tumor-segmentation",
    title="Pancreatic tumor segmentation",
)
#: What the image is, and its usual least and largest field of view, mm.
KIND = "contrast-enhanced T1-weighted MRI of the abdomen"
VIEW_MM = (150.0, 550.0)
MODEL = ModelRequirement(
    name="task1",
    folds=(0, 1, 2, 3, 4),
    source="Train them with `gc-panther train task1`, or take the PANTHER baseline's from Zenodo "
    "record 15211865 (https://zenodo.org/records/15211865)",
)


class Task1(Task):
    """Pancreatic tumour on T1-weighted contrast-enhanced MRI, arterial phase."""

    name = "task1"
    title = "Pancreatic tumour on contrast-enhanced T1-weighted MRI (PANTHER task 1)"
    interfaces = (Interface(inputs=(IMAGE,), outputs=(MASK,)),)
    models = (MODEL,)
    libraries = ("torch",)
    labels = {0: "background", 1: "tumour"}  # noqa: RUF012
    Options = PantherOptions

    def load(self, runtime: Runtime) -> Predictor:
        """Load the ensemble."""
        from gc_panther_task1.segmenter import Task1Segmenter

        return Task1Segmenter(runtime)


@hookimpl
def gc_panther_tasks() -> list[Task]:
    """Provide task 1."""
    return [Task1()]


@hookimpl
def gc_panther_check_case(task: Task, case: Case) -> list[str]:
    """Refuse what cannot be a scan."""
    if not isinstance(task, Task1):
        return []
    from gc_panther.imaging.plausibility import scan_problems

    return scan_problems(case[IMAGE])


@hookimpl
def gc_panther_warn_case(task: Task, case: Case) -> list[str]:
    """Warn about what does not look like this task's scans."""
    if not isinstance(task, Task1):
        return []
    from gc_panther.imaging.plausibility import ExpectedScan, scan_warnings

    return scan_warnings(case[IMAGE], ExpectedScan(KIND, VIEW_MM))


@hookimpl
def gc_panther_training() -> list[TrainingPipeline]:
    """Provide the training of task 1."""
    from gc_panther_task1.training import Task1Training

    return [Task1Training()]
