"""The trainer of the published approach's student networks.

nnU-Net finds it by name where ``nnUNet_extTrainer`` points at this file's folder.
"""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gc_panther.nnunet.training.recipe import PLANS_KEY, Schedule
from gc_panther.nnunet.training.schedule import apply_schedule


class nnUNetTrainer_Student(nnUNetTrainer):
    """nnU-Net's trainer with the schedule that the plans carry under ``gc_panther_recipe``.

    A checkpoint holds its plans, so it tells how it was trained. The arguments are nnU-Net's.

    Raises:
        KeyError: the plans carry no schedule.
        pydantic.ValidationError: the schedule has errors.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        apply_schedule(self, Schedule.model_validate(plans[PLANS_KEY]["schedule"]))
