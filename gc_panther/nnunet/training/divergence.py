"""Steps that would spoil the weights are left out, and a training that diverges ends at once."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from gc_panther.errors import ProcessingError

log = logging.getLogger(__name__)

#: Steps in a row without a usable gradient after which no more are tried: a single one may be bad
#: luck, so many are the data or the weights.
MOST_IN_A_ROW = 20


def guard_steps(trainer: Any, title: str) -> None:
    """Let an ``nnUNetTrainer`` leave out a step whose gradient is not finite.

    On a GPU nnU-Net's gradient scaler does; elsewhere one such gradient makes all weights NaN, and
    the training would go on to its end, for hours, without learning anything.

    Args:
        trainer: initialized. Its ``train_step`` raises :class:`ProcessingError` where
            :data:`MOST_IN_A_ROW` steps follow each other without a usable gradient; its checkpoints
            hold the weights before them.
        title: what log lines start with.
    """
    step = trainer.train_step
    in_a_row = 0
    usable = True

    def look_at_gradient(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal usable
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        usable = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if not usable:
            # An optimizer leaves weights without a gradient alone, and its averages, too.
            optimizer.zero_grad(set_to_none=True)

    def train_step(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal in_a_row, usable
        usable = True
        result: dict[str, Any] = step(batch)
        if usable and math.isfinite(float(result["loss"])):
            in_a_row = 0
            return result
        in_a_row += 1
        log.warning("%s: a step is left out, because its gradient is not finite", title)
        if in_a_row == MOST_IN_A_ROW:
            raise ProcessingError(
                f"{title} diverged: {in_a_row} steps in a row had no finite gradient",
                where=trainer.output_folder,
                fix="Look at the data for values that are not finite, or choose a lower learning "
                "rate; the last checkpoint is from before",
            )
        return result

    if trainer.grad_scaler is None:
        trainer.optimizer.register_step_pre_hook(look_at_gradient)
    trainer.train_step = train_step
