"""The recipe of task 2, and what its data and networks are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from gc_panther.imaging.plausibility import ExpectedScan
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Millimetres, Network, Schedule, Section
from gc_panther.panther.data.layout import DataLayout
from gc_panther.panther.training.recipe import PantherRecipe, PhantomCases, WarmUp
from gc_panther.text import count
from gc_panther_task2.plugin import KIND, VIEW_MM
from gc_panther_task2.roi import MARGIN_MM

LABELS = {"background": 0, "tumour": 1}
ALL_LABELS = {"background": 0, "tumour": 1, "pancreas": 2}
#: Stock software looks up the trainer by name when it loads a model, so both models name nnU-Net's
#: own class, which follows the recipe all the same.
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"
LOCALIZER_DATASET, DATASET = "Dataset200_OrgansMR", "Dataset201_PantherTask2"
TITLE = "Pancreatic tumour on T2-weighted MRI (task 2)"
LOCALIZER_TITLE = "Organs on MRI, a stand-in for MRSegmentator"
#: A patient: ``10303``. PANTHER's labels of task 2 have a pancreas, too.
LAYOUT = DataLayout(
    DATASET,
    r"\d{5}",
    "10303",
    ALL_LABELS,
    tumour="tumour",
    organ="pancreas",
    scan=ExpectedScan(KIND, VIEW_MM),
)
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


class Task2Recipe(PantherRecipe):
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


def describe_phantoms(phantoms: PhantomCases) -> str:
    """One line for a model card."""
    contrasts = {"t1": "T1", "t2": "T2", "mixed": "mixed sequences", "random": "random contrast"}
    contrast = contrasts[phantoms.contrast or {"task1": "t1", "task2": "t2"}[phantoms.task]]
    varied = ", varied patients, fields of view and voxels" if phantoms.varied else ""
    made = f"{count(phantoms.cases, 'phantom')} of {phantoms.task}, seed {phantoms.seed}"
    return f"{made}, {contrast}{varied}"


def reproduce(request: TrainingRequest) -> str:
    """The command for a model card."""
    return f"gc-panther train task2 --preset {request.preset} --work WORK --export models"


def describe_labels(recipe: Task2Recipe) -> str:
    """One line for a model card."""
    if recipe.classes == 3:
        return "labels: tumour and pancreas"
    warm_up = ", but in the warm-up it is a class" if recipe.warm_up else ""
    return f"labels: tumour; the pancreas counts as background{warm_up}"


def describe_start(recipe: Task2Recipe, keep_heads: bool) -> str:
    """What the folds start from, for a model card."""
    first = "fold 0 of task 1" if recipe.start == "task1" else "random weights"
    if recipe.warm_up:
        return f"weights from the warm-up, which starts from {first}"
    if recipe.start == "task1" and not keep_heads:
        return f"weights from {first}, fresh segmentation heads"
    return f"weights from {first}"
