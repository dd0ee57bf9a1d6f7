"""The contract between the core and its plugins. Flat: one function, one docstring, one hook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from gc_panther.case import Case, Result
    from gc_panther.findings import Finding
    from gc_panther.hardware import Device, DeviceCheck, Driver
    from gc_panther.task import Task

PROJECT = "gc_panther"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def gc_panther_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Return the tasks this plugin provides."""


@hookspec
def gc_panther_commands(app: typer.Typer) -> None:
    """Add commands to the ``gc-panther`` command line."""


@hookspec
def gc_panther_hookspecs() -> Iterable[object]:  # type: ignore[empty-body]
    """Return modules that declare further hooks, which other plugins may then implement."""


@hookspec
def gc_panther_distributions() -> Iterable[str]:  # type: ignore[empty-body]
    """Return the distributions whose versions ``info``, ``doctor`` and run reports list."""


@hookspec
def gc_panther_device_check(task: Task, device: str, driver: Driver | None) -> DeviceCheck | None:
    """Return what a library that computes the task makes of a device; None if none is involved."""


@hookspec
def gc_panther_doctor(  # type: ignore[empty-body]
    task: Task, models: Mapping[str, Path], device: Device | None
) -> Iterable[Finding]:
    """Return ``doctor``'s findings about a task and its models, before its trial run."""


@hookspec
def gc_panther_check_case(task: Task, case: Case) -> Iterable[str]:  # type: ignore[empty-body]
    """Return what is wrong with a case, one sentence each; any sentence refuses the case."""


@hookspec
def gc_panther_warn_case(task: Task, case: Case) -> Iterable[str]:  # type: ignore[empty-body]
    """Return what may make a case's result wrong, one sentence each; the case is segmented."""


@hookspec
def gc_panther_before_case(task: Task, case: Case) -> None:
    """Called when a case has been read and checked, before it is segmented."""


@hookspec(
    warn_on_impl_args={
        "segmentation": DeprecationWarning(
            "gc_panther_after_case: the argument 'segmentation' is deprecated, take 'result'"
        )
    }
)
def gc_panther_after_case(
    task: Task, case: Case, result: Result, report: dict[str, Any], segmentation: Result
) -> None:
    """Called before the result is published; ``report`` is the run report and may be added to."""


@hookspec
def gc_panther_on_error(task: Task, error: BaseException, case: Case | None) -> None:
    """Called when loading, or a case, failed; ``case`` is None until one has been read."""
