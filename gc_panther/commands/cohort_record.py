"""What a cohort's masks were made of, so that an earlier mask is kept only where it still holds.

The record is a part of the run report, ``provenance``: digests (SHA-256) of the image and of the
weights, the task with its version, and the options. The device is left out: it changes a mask by
rounding only. The mask's own digest is in the report as ``mask_sha256``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import __version__
from gc_panther.errors import InputError
from gc_panther.imaging.images import TWO_FILE_ENDINGS, read_image
from gc_panther.options import as_report
from gc_panther.plugins import distribution_of
from gc_panther.runtime.weights import find_models, model_digest, weight_roots
from gc_panther.session import Choices
from gc_panther.settings import Settings
from gc_panther.task import Task

#: The record's key in the run report.
PROVENANCE = "provenance"
#: Hexadecimal digits of a digest that people are shown.
SHORT = 12


@dataclass(frozen=True)
class Recipe:
    """What all masks of one run are made with.

    Attributes:
        task: the task's name.
        versions: of gc_panther and of the distribution that provides the task, where it has one.
        options: the inference options and the time limit, as JSON has them.
        weights: digest of each model, by name.
    """

    task: str
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    weights: Mapping[str, str]

    def record(self, image: str, *, picture: bool) -> dict[str, Any]:
        """The record of a mask.

        Args:
            image: the image's digest.
            picture: whether there is a picture of it.
        """
        return {
            "image": image,
            "task": self.task,
            "versions": dict(self.versions),
            "options": dict(self.options),
            "weights": dict(self.weights),
            "picture": picture,
        }


def recipe_of(
    task: Task, manager: pluggy.PluginManager, settings: Settings, choices: Choices
) -> Recipe:
    """Find out what a run's masks are made with; the networks are not loaded.

    Raises:
        WeightsError: a model is missing or cannot be read.
    """
    explicit = choices.run.model_dir is not None
    roots = weight_roots(settings, choices.run.model_dir) if task.models else ()
    models = find_models(task, roots, explicit=explicit) if task.models else {}
    options = task.Options() if choices.options is None else choices.options
    return Recipe(
        task=task.name,
        versions={"gc_panther": __version__, **_task_version(task, manager)},
        options={**as_report(options), "time_limit": choices.run.time_limit},
        weights={name: model_digest(folder) for name, folder in models.items()},
    )


def image_digest(path: Path) -> str:
    """The SHA-256 of an image file; of the pixels and the grid where they lie in two files.

    Raises:
        InputError: the image cannot be read.
    """
    if path.suffix.lower() in TWO_FILE_ENDINGS:
        volume = read_image(path)
        digest = hashlib.sha256(repr((volume.geometry, volume.array_zyx.dtype.str)).encode())
        digest.update(volume.array_zyx.tobytes())
        return digest.hexdigest()
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(
            f"the image cannot be read ({error.strerror})", where=path, fix="Check the file"
        ) from error


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_report(path: Path) -> dict[str, Any]:
    """The report of an earlier run; empty if there is none that can be read."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}


def record_in(report: Mapping[str, Any]) -> dict[str, Any]:
    """The record that a run report holds; empty if there is none, or no digest of the mask."""
    record = report.get(PROVENANCE)
    return record if isinstance(record, dict) and "mask_sha256" in report else {}


def differences(record: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Why a mask would come out differently now; the image is not compared.

    Args:
        record: of the mask.
        recipe: of this run.
    """
    found = []
    if record.get("task") != recipe.task:
        found.append(f"another task ({recipe.task} instead of {record.get('task')})")
    elif record.get("versions") != recipe.versions:
        found.append("another version of the task or of gc-panther")
    for name, now in (("options", recipe.options), ("weights", recipe.weights)):
        earlier = record.get(name)
        earlier = earlier if isinstance(earlier, dict) else {}
        changed = [key for key in {**earlier, **now} if earlier.get(key) != now.get(key)]
        if changed:
            found.append(f"other {name} ({', '.join(changed)})")
    return found


def short_digest(record: Mapping[str, Any]) -> str:
    """A short digest that differs between masks of different images, tasks, options or weights."""
    made_of = {key: value for key, value in record.items() if key != "picture"}
    text = json.dumps(made_of, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT] if made_of else ""


def _task_version(task: Task, manager: pluggy.PluginManager) -> dict[str, str]:
    package = type(task).__module__.partition(".")[0]
    for plugin in manager.get_plugins():
        distribution = distribution_of(manager, plugin)
        if distribution and str(getattr(plugin, "__name__", "")).partition(".")[0] == package:
            return {distribution.name: distribution.version}
    return {}
