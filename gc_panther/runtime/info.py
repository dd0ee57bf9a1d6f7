"""What is installed, without importing any of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import __version__
from gc_panther.errors import WeightsError
from gc_panther.model_identity import describe_model, read_identity
from gc_panther.plugins import installed_versions
from gc_panther.runtime.weights import find_model, weight_roots
from gc_panther.settings import VARIABLES, Settings
from gc_panther.task import ModelRequirement, Task


def information(
    tasks: Iterable[Task], settings: Settings, manager: pluggy.PluginManager
) -> dict[str, Any]:
    """Collect versions, tasks, weights and settings as JSON-compatible values."""
    roots = weight_roots(settings)
    return {
        "gc_panther": __version__,
        "versions": installed_versions(manager),
        "plugins": sorted(name for name, _ in manager.list_name_plugin()),
        "tasks": [{**task.describe(), "weights": _weights_of(task, roots)} for task in tasks],
        "settings": {
            name: {"variable": variable, "value": _shown(getattr(settings, name))}
            for name, (variable, _) in VARIABLES.items()
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


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


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
