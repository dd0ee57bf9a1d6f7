"""The recipe of task 1, and what its data and networks are called."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from gc_panther.imaging.plausibility import ExpectedScan
from gc_panther.nnunet.training.pipeline import ResEnc
from gc_panther.nnunet.training.recipe import Network, StudentRound
from gc_panther.panther.data.layout import DataLayout
from gc_panther.panther.training.recipe import PantherRecipe, WarmUp
from gc_panther_task1.plugin import KIND, VIEW_MM

TRAINER = "gc_panther_task1.trainer:nnUNetTrainer_Student"
DATASET = "Dataset101_PantherTask1"
TITLE = "Pancreatic tumour on T1-weighted MRI (task 1)"
LABELS = {"background": 0, "tumour": 1, "pancreas": 2}
#: A patient and a study: ``10000_0001``.
LAYOUT = DataLayout(
    DATASET,
    r"\d{5}_\d{4}",
    "10000_0001",
    LABELS,
    tumour="tumour",
    organ="pancreas",
    scan=ExpectedScan(KIND, VIEW_MM),
)


class Task1Recipe(PantherRecipe):
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
        return self
