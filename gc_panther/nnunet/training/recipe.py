"""Training recipes: what a person writes in YAML, checked before any work starts."""

from __future__ import annotations

import math
from importlib import resources
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gc_panther.errors import UserError
from gc_panther.text import count

Positive = Annotated[int, Field(gt=0)]
Millimetres = Annotated[float, Field(gt=0)]
Axes = tuple[Positive, Positive, Positive]

#: Key of the plans under which a trainer finds its schedule; plans travel in every checkpoint.
PLANS_KEY = "gc_panther_recipe"


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(Section):
    """How long and how hard one network is trained.

    Attributes:
        epochs: nnU-Net's epochs.
        learning_rate: first learning rate; it decays polynomially to zero.
        iterations_per_epoch: batches per epoch.
        validation_iterations: batches of the pseudo-Dice after each epoch.
        oversample_foreground: part of the patches that are centred on a foreground label.
        optimizer: ``sgd`` is nnU-Net's own; ``adamw`` learns small structures in fewer iterations.
        augmentation: ``full`` is nnU-Net's own; ``light`` mirrors and changes intensities, which
            costs a small part of it; ``none`` only mirrors, as inference does.
        mirror: whether patches are mirrored, and inference averages over mirrored copies. Not for
            labels that tell left from right.
        save_every: epochs between the checkpoints from which an interrupted training continues.
    """

    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    iterations_per_epoch: Positive = 250
    validation_iterations: Positive = 50
    oversample_foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    optimizer: Literal["sgd", "adamw"] = "sgd"
    augmentation: Literal["none", "light", "full"] = "full"
    mirror: bool = True
    save_every: Positive = 50


class Network(Section):
    """Grid and residual encoder U-Net, as in the configuration of nnU-Net's plans.

    Attributes:
        spacing_zyx: voxel size the data are resampled to, mm.
        patch_zyx: voxels of a patch.
        batch_size: patches per batch.
        features: channels of each stage.
        strides: first stride of each stage, (z, y, x).
        kernels: kernel of each stage, (z, y, x).
        blocks: residual blocks of each stage of the encoder.
        decoder_convs: convolutions of each stage of the decoder.
        batch_dice: whether Dice is taken over the batch instead of each patch.
    """

    spacing_zyx: tuple[Millimetres, Millimetres, Millimetres]
    patch_zyx: Axes
    batch_size: Positive = 2
    # nnU-Net drops the coarsest of the deeply supervised outputs, so two stages leave no loss.
    features: Annotated[tuple[Positive, ...], Field(min_length=3)]
    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]
    blocks: tuple[Positive, ...]
    decoder_convs: tuple[Positive, ...]
    batch_dice: bool = False

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        stages = len(self.features)
        for name in ("strides", "kernels", "blocks"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} needs one entry per stage ({stages})")
        if len(self.decoder_convs) != stages - 1:
            raise ValueError(f"decoder_convs needs one entry per decoder stage ({stages - 1})")
        for axis, voxels in enumerate(self.patch_zyx):
            factor = math.prod(stride[axis] for stride in self.strides)
            if voxels % factor:
                raise ValueError(f"patch_zyx[{axis}] = {voxels} is not a multiple of {factor}")
        return self


class Recipe(Section):
    """What every task's recipe has.

    Attributes:
        seed: of weights, batches and splits.
        folds: number of networks, one per part of the cross-validation.
        schedule: training of each fold.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    folds: Annotated[int, Field(ge=2, le=20)]
    schedule: Schedule


class StudentRound(Section):
    """A round of noisy student: the networks before it are the teachers.

    Attributes:
        schedule: training of each fold of students.
        start: ``random`` weights, or those of the ``teacher`` of the same fold.
    """

    schedule: Schedule
    start: Literal["random", "teacher"] = "random"


R = TypeVar("R", bound=Recipe)


def parse_recipe(text: str, kind: type[R], where: str) -> R:
    """Read a recipe.

    Args:
        text: YAML.
        kind: the recipe's class.
        where: named in the error.

    Raises:
        UserError: not YAML, an unknown key, or a value out of range; the message names each.
    """
    import yaml

    try:
        return kind.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UserError(f"the recipe is not valid YAML ({error})", where=where) from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise UserError(f"the recipe has errors ({faults})", where=where) from error


def load_preset(package: str, preset: str, kind: type[R]) -> R:
    """Read ``<preset>.yaml`` of a task's package.

    Raises:
        UserError: there is no such preset, or it has errors.
    """
    file = resources.files(package).joinpath(f"{preset}.yaml")
    if not file.is_file():
        known = sorted(
            entry.name.removesuffix(".yaml")
            for entry in resources.files(package).iterdir()
            if entry.name.endswith(".yaml")
        )
        raise UserError(f"there is no preset {preset!r}", fix=f"Known: {', '.join(known)}")
    return parse_recipe(file.read_text(encoding="utf-8"), kind, f"{package}/{preset}.yaml")


def describe_schedule(schedule: Schedule) -> str:
    """One line for a model card."""
    return (
        f"{count(schedule.epochs, 'epoch')} of "
        f"{count(schedule.iterations_per_epoch, 'iteration')}, "
        f"{schedule.optimizer} from learning rate {schedule.learning_rate:g}, "
        f"augmentation {schedule.augmentation}{'' if schedule.mirror else ' without mirroring'}"
    )
