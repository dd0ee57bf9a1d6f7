"""Hooks of nnU-Net's layer, in addition to those of :mod:`gc_panther.hookspecs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gc_panther.hookspecs import hookspec

if TYPE_CHECKING:
    from gc_panther.nnunet.training.pipeline import TrainingPipeline


@hookspec
def gc_panther_training() -> Iterable[TrainingPipeline]:  # type: ignore[empty-body]
    """Return the training pipelines this plugin provides, one per task at most."""
