"""What ``gc-panther doctor`` checks of nnU-Net's models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from gc_panther.findings import Finding, Verdict, checked
from gc_panther.hardware import Device
from gc_panther.nnunet.model.folder import is_model_folder, open_model_folder
from gc_panther.task import ModelRequirement, Task


def examine_models(
    task: Task, models: Mapping[str, Path], device: Device | None
) -> Iterator[Finding]:
    """Read the weights of a task's nnU-Net models; say what a GPU computes them in.

    Args:
        task: the task; its models of other libraries are left out.
        models: the folder of each model that was found, by name.
        device: where it would run; None if no device can be used.
    """
    for required in task.models:
        folder = models.get(required.name)
        if folder is None or not (required.folds or is_model_folder(folder)):
            continue
        rows = checked(f"folds {required.name}", partial(_folds, required, folder))
        yield from rows
        if device is not None and device.name != "cpu" and not any(row.failed for row in rows):
            look = partial(_precision, required, folder, device.name)
            yield from checked(f"precision {required.name}", look)


def _folds(required: ModelRequirement, folder: Path) -> Iterator[Finding]:
    """The folds whose weights can be read."""
    model = open_model_folder(folder, required.folds)
    for fold in model.checkpoints:
        model.read_weights(fold)
    yield Finding(f"folds {required.name}", "ok", ", ".join(map(str, model.checkpoints)))


def _precision(required: ModelRequirement, folder: Path, device: str) -> Iterator[Finding]:
    """What a GPU computes the passes in."""
    from gc_panther.nnunet.inference.ensemble import precision_of

    choice = precision_of(open_model_folder(folder, required.folds), device)
    found = f"{choice.precision}: {choice.reason}" if choice.reason else choice.precision
    if choice.trial is not None:
        found += f"; off by {choice.trial.error:.1e}, {choice.trial.time:.2f} of float32's time"
    verdict: Verdict = "warn" if choice.reason else "ok"
    yield Finding(f"precision {required.name}", verdict, found)
