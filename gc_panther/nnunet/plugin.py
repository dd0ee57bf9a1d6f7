"""Registers nnU-Net's layer; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gc_panther.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

    from gc_panther.findings import Finding
    from gc_panther.hardware import Device, DeviceCheck, Driver
    from gc_panther.task import Task

TORCH = "torch"


@hookimpl
def gc_panther_commands(app: typer.Typer) -> None:
    """Add ``pack`` and ``train``."""
    from gc_panther.nnunet import commands
    from gc_panther.nnunet.training import cli as training

    commands.register(app)
    training.register(app)


@hookimpl
def gc_panther_hookspecs() -> Iterable[object]:
    """Declare the hook for training pipelines."""
    from gc_panther.nnunet import hookspecs

    return [hookspecs]


@hookimpl
def gc_panther_distributions() -> Iterable[str]:
    """List what nnU-Net's networks are computed with."""
    return [TORCH, "nnunetv2", "openvino"]


@hookimpl
def gc_panther_device_check(task: Task, device: str, driver: Driver | None) -> DeviceCheck | None:
    """Try the device with torch, for tasks that compute with it, as far as is known."""
    if task.libraries is None:
        if find_spec(TORCH) is None:
            return None
    elif TORCH not in task.libraries:
        return None
    from gc_panther.nnunet.device import check_torch

    return check_torch(device, driver)


@hookimpl
def gc_panther_doctor(
    task: Task, models: Mapping[str, Path], device: Device | None
) -> Iterable[Finding]:
    """Read the weights of nnU-Net's models, and report in which precision they are computed."""
    from gc_panther.nnunet.doctor import examine_models

    return examine_models(task, models, device)
