"""What is installed, without importing any of it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import __version__
from gc_panther.errors import WeightsError
from gc_panther.model_identity import describe_model, read_identity
from gc_panther.options import Options, RunOptions, environment_values, read_options
from gc_panther.plugins import installed_versions
from gc_panther.runtime.weights import find_model, weight_roots
from gc_panther.settings import Settings
from gc_panther.task import ModelRequirement, Task


def information(
    tasks: Collection[Task],
    manager: pluggy.PluginManager,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Collect versions, tasks, weights and settings as JSON-compatible values.

    Args:
        tasks: the installed ones.
        manager: the plugins.
        environ: instead of the process's environment.

    Raises:
        UserError: a variable has a value that is not valid.
    """
    groups: tuple[type[Options], ...] = (Settings, RunOptions, *(task.Options for task in tasks))
    roots = weight_roots(
        read_options(Settings, environ=environ), read_options(RunOptions, environ=environ).model_dir
    )
    return {
        "gc_panther": __version__,
        "versions": installed_versions(manager),
        "plugins": sorted(name for name, _ in manager.list_name_plugin()),
        "tasks": [{**task.describe(), "weights": _weights_of(task, roots)} for task in tasks],
        "settings": {
            variable.removeprefix("GC_PANTHER_").lower(): {"variable": variable, "value": value}
            for variable, value in environment_values(groups, environ).items()
        },
    }


def _weights_of(task: Task, roots: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Place and identity of each model; ``description`` is what a person reads."""
    return {model.name: _found(model, roots, task) for model in task.models}


def _found(model: ModelRequirement, roots: tuple[Path, ...], task: Task) -> dict[str, Any]:
    try:
        path = find_model(model, roots, task)
    except WeightsError:
        return {"path": None, "description": "not found"}
    try:
        identity = read_identity(path)
    except WeightsError as error:
        return {"path": str(path), "description": f"{path} ({error.what})"}
    return {
        "path": str(path),
        **identity.model_dump(),
        "description": describe_model(path, identity),
    }


def process_start() -> float:
    """When this process was started, on :func:`time.perf_counter`'s clock; now if unknown."""
    now = time.perf_counter()
    try:
        # proc(5): the 22nd field, counted from the end of the command's name in parentheses.
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        return now
    return now - max(0.0, age)
