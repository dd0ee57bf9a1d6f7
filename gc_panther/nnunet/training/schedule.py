"""Makes an nnU-Net trainer follow a recipe's schedule.

Works on any ``nnUNetTrainer``, so that models which stock software must recognise by the stock
trainer's name can be trained with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gc_panther.nnunet.training.recipe import Schedule

#: All three axes: inference averages over the same mirrored copies.
MIRROR_AXES = (0, 1, 2)

#: Decoupled from the learning rate's gradient, so larger than nnU-Net's 3e-5 for SGD.
ADAMW_WEIGHT_DECAY = 1e-3


def apply_schedule(trainer: nnUNetTrainer, schedule: Schedule) -> None:
    """Set a trainer's hyperparameters; call it before ``initialize``."""
    trainer.num_epochs = schedule.epochs
    trainer.initial_lr = schedule.learning_rate
    trainer.num_iterations_per_epoch = schedule.iterations_per_epoch
    trainer.num_val_iterations_per_epoch = schedule.validation_iterations
    trainer.oversample_foreground_percent = schedule.oversample_foreground
    trainer.save_every = schedule.save_every
    if schedule.optimizer == "adamw":
        trainer.configure_optimizers = lambda: _adamw(trainer)
    if schedule.augmentation != "full":
        _use_cheap_augmentation(trainer, intensities=schedule.augmentation == "light")
    if not schedule.mirror:
        _stop_mirroring(trainer)


def _adamw(trainer: nnUNetTrainer) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
    optimizer = torch.optim.AdamW(
        trainer.network.parameters(), trainer.initial_lr, weight_decay=ADAMW_WEIGHT_DECAY
    )
    return optimizer, PolyLRScheduler(optimizer, trainer.initial_lr, trainer.num_epochs)


def _use_cheap_augmentation(trainer: nnUNetTrainer, *, intensities: bool) -> None:
    def geometry() -> tuple[tuple[float, float], bool, list[int], tuple[int, ...]]:
        trainer.inference_allowed_mirroring_axes = MIRROR_AXES
        # Nothing rotates or zooms, so a patch is read at its final size.
        return (0.0, 0.0), False, list(trainer.configuration_manager.patch_size), MIRROR_AXES

    def transforms(
        patch_size: Any,
        rotation: Any,
        deep_supervision_scales: Any,
        mirror_axes: Any,
        *_: Any,
        **__: Any,
    ) -> BasicTransform:
        return cheap_transforms(
            deep_supervision_scales, intensities=intensities, mirror_axes=mirror_axes
        )

    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = geometry
    trainer.get_training_transforms = transforms


def _stop_mirroring(trainer: nnUNetTrainer) -> None:
    """As nnU-Net's own trainer without mirroring does."""
    usual = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size

    def geometry() -> tuple[Any, ...]:
        *others, _ = usual()
        trainer.inference_allowed_mirroring_axes = None
        return *others, None

    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = geometry


def cheap_transforms(
    deep_supervision_scales: list[list[float]] | None,
    *,
    intensities: bool,
    mirror_axes: Sequence[int] | None = MIRROR_AXES,
) -> BasicTransform:
    """nnU-Net's transforms without rotation, zoom, blur and low resolution.

    Probabilities and ranges are nnU-Net's own. They are for single-channel label maps: no
    cascades, no regions.
    """
    steps: list[BasicTransform] = []
    if intensities:
        wide = BGContrast((0.75, 1.25))
        noise = GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True)
        brightness = MultiplicativeBrightnessTransform(wide, False, p_per_channel=1)
        contrast = ContrastTransform(wide, True, False, p_per_channel=1)
        gamma = GammaTransform(BGContrast((0.7, 1.5)), 0, False, 1, 1)
        steps += [
            RandomTransform(step, apply_probability=probability)
            for step, probability in (
                (noise, 0.1),
                (brightness, 0.15),
                (contrast, 0.15),
                (gamma, 0.3),
            )
        ]
    if mirror_axes:
        steps.append(MirrorTransform(tuple(mirror_axes)))
    steps.append(RemoveLabelTansform(-1, 0))
    if deep_supervision_scales is not None:
        steps.append(DownsampleSegForDSTransform(deep_supervision_scales))
    return ComposeTransforms(steps)
