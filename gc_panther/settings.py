"""The one place that reads the environment: a table from setting to (variable, default)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gc_panther.errors import UserError

#: setting -> (environment variable, default). An empty default means "not set".
VARIABLES: Mapping[str, tuple[str, str]] = {
    "task": ("GC_PANTHER_TASK", ""),
    "api": ("GC_PANTHER_API", ""),
    "input": ("GC_PANTHER_INPUT", "/input"),
    "output": ("GC_PANTHER_OUTPUT", "/output"),
    "model_dir": ("GC_PANTHER_MODEL_DIR", ""),
    "platform_model_dir": ("GC_PANTHER_PLATFORM_MODEL_DIR", "/opt/ml/model"),
    "resources": ("GC_PANTHER_RESOURCES", ""),
    "scratch": ("GC_PANTHER_SCRATCH", ""),
    "device": ("GC_PANTHER_DEVICE", "auto"),
    "require_gpu": ("GC_PANTHER_REQUIRE_GPU", "0"),
    "combine": ("GC_PANTHER_COMBINE", "probabilities"),
    "keep_empty": ("GC_PANTHER_KEEP_EMPTY", "0"),
    "folds": ("GC_PANTHER_FOLDS", ""),
    "mirroring": ("GC_PANTHER_MIRRORING", "1"),
    "step_size": ("GC_PANTHER_STEP_SIZE", "0.5"),
    "backend": ("GC_PANTHER_BACKEND", "auto"),
    "mode": ("GC_PANTHER_MODE", "exact"),
    "time_limit": ("GC_PANTHER_TIME_LIMIT", ""),
    "log_level": ("LOG_LEVEL", "INFO"),
}

_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class Settings:
    """The environment, read once. Command-line options override single values.

    Attributes:
        task: the task of this container, or empty.
        api: the platform's interface that this container serves, ``invoke`` or ``exec``, or empty.
        input: the platform's input folder. Kept unresolved: it is a symlink that the platform
            recreates between cases.
        output: the platform's output folder.
        model_dir: a folder or an archive of weights that goes before all others, or None.
        platform_model_dir: where the platform unpacks the uploaded model.
        resources: the folder of the bundled weights.
        scratch: parent of temporary folders, or None for the system's.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to run without a usable GPU.
        combine: how folds are combined.
        keep_empty: leave an empty mask empty.
        folds: the folds to use, as ``0,1,2``; empty means those the task requires.
        mirroring: average over mirrored copies.
        step_size: distance of windows as a part of the patch.
        backend: ``auto``, ``torch`` or ``openvino``.
        mode: ``exact`` or ``adaptive``.
        time_limit: seconds a run may take, or None.
        log_level: name of the logging level.
    """

    task: str
    api: str
    input: Path
    output: Path
    model_dir: Path | None
    platform_model_dir: Path
    resources: Path
    scratch: Path | None
    device: str
    require_gpu: bool
    combine: str
    keep_empty: bool
    folds: str
    mirroring: bool
    step_size: float
    backend: str
    mode: str
    time_limit: float | None
    log_level: str


def bundled_resources() -> Path:
    """The ``resources`` folder beside the package in a checkout."""
    return Path(__file__).resolve().parent.parent / "resources"


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where things are kept that can be made again (XDG Base Directory Specification)."""
    source = os.environ if environ is None else environ
    home = source.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gc_panther"


def visible_gpus(count: int, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What ``CUDA_VISIBLE_DEVICES`` has to be for a process that shall see one GPU, for each GPU.

    Args:
        count: number of GPUs that this process sees.
        environ: instead of the environment.
    """
    source = os.environ if environ is None else environ
    chosen = source.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in chosen.split(",")] if chosen else map(str, range(count))
    return tuple(names)[:count]


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process to start: this one's, for its PATH and locale, with changes."""
    return {**os.environ, **changes}


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings table from the environment (or from ``environ``)."""
    source = os.environ if environ is None else environ
    value = {
        name: source.get(variable, "") or default for name, (variable, default) in VARIABLES.items()
    }
    return Settings(
        task=value["task"],
        api=value["api"],
        input=Path(value["input"]),
        output=Path(value["output"]),
        model_dir=Path(value["model_dir"]) if value["model_dir"] else None,
        platform_model_dir=Path(value["platform_model_dir"]),
        resources=Path(value["resources"]) if value["resources"] else bundled_resources(),
        scratch=Path(value["scratch"]) if value["scratch"] else None,
        device=value["device"],
        require_gpu=value["require_gpu"].lower() in _TRUE,
        combine=value["combine"],
        keep_empty=value["keep_empty"].lower() in _TRUE,
        folds=value["folds"],
        mirroring=value["mirroring"].lower() in _TRUE,
        step_size=_number("step_size", value["step_size"]),
        backend=value["backend"],
        mode=value["mode"],
        time_limit=_number("time_limit", value["time_limit"]) if value["time_limit"] else None,
        log_level=value["log_level"],
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{VARIABLES[name][0]} is {text!r}, which is no number") from error
