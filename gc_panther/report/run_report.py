"""The run report: what was done, with what, and what came out, as JSON-compatible values."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from gc_panther import __version__
from gc_panther.case import Case, Result
from gc_panther.task import Task

#: Raised whenever a key changes its meaning.
SCHEMA_VERSION = 2


def run_report(
    task: Task,
    case: Case,
    result: Result,
    *,
    device: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    versions: Mapping[str, str | None],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Describe one finished case.

    Args:
        task: what was run.
        case: its input.
        result: the checked result; its details become keys of the report.
        device: name, description and notes of the device.
        models: path, digest, kind, title, licence and card of each model, by name.
        options: name and value of what the user chose or left at its default.
        versions: of the relevant distributions, None where one is not installed.
        seconds: wall time of each stage, and ``total``.
    """
    geometry = result.mask.geometry
    volumes = {}
    for value, label in task.labels.items():
        if value != 0:
            voxels = int(np.count_nonzero(result.mask.array_zyx == value))
            mm3 = voxels * geometry.voxel_volume_mm3
            volumes[label] = {
                "voxels": voxels,
                "volume_mm3": round(mm3, 3),
                "volume_ml": round(mm3 / 1000, 6),
            }
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "case": case.name,
        "image": {
            "size_xyz": list(geometry.size_xyz),
            "spacing_xyz": list(geometry.spacing_xyz),
        },
        "versions": {
            "python": platform.python_version(),
            "gc_panther": __version__,
            **{name: version for name, version in versions.items() if version is not None},
        },
        "device": dict(device),
        "models": {name: dict(facts) for name, facts in models.items()},
        "options": dict(options),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "labels": volumes,
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        **result.details,
    }
