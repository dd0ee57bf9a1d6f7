"""Runs plugins of the earlier interface: ``Segmenter.segment`` returning a ``Segmentation``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from gc_panther.case import Case, Result
from gc_panther.errors import PluginError
from gc_panther.task import Predictor, RunContext, Segmenter, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _SegmenterAsPredictor:
    segmenter: Segmenter
    task: Task

    def predict(self, case: Case, run: RunContext) -> Result:
        found = self.segmenter.segment(case, run)
        (socket,) = self.task.interface_of(case).outputs
        return Result({socket: found.mask}, found.details, found.notes, found.warnings)


def as_predictor(loaded: Any, task: Task) -> Predictor:
    """What a task has loaded, as a predictor; a segmenter is named in the log.

    Args:
        loaded: what :meth:`gc_panther.task.Task.load` returned.
        task: the task.

    Raises:
        PluginError: it can neither ``predict`` nor ``segment``.
    """
    kind = type(loaded).__name__
    if hasattr(loaded, "predict"):
        predictor: Predictor = loaded
        return predictor
    if not hasattr(loaded, "segment"):
        raise PluginError(
            f"what the task {task.name} has loaded ({kind}) has no method predict",
            fix="Its author has to add one; docs/plugins.md has an example",
        )
    logger.warning(
        "deprecated: the task %s has %s.segment(case, run) -> Segmentation; "
        "predict(case, run) -> Result replaces it (docs/plugins.md)",
        task.name,
        kind,
    )
    return _SegmenterAsPredictor(loaded, task)
