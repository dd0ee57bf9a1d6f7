"""The one place that reads the environment: a table from setting to (variable, default)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gc_panther.errors import UserError
from gc_panther.task import Backend, Combine, Mode
from gc_panther.text import alternatives

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
    "keep_empty": ("GC_PANTHER_KEEP_EMPTY", ""),
    "folds": ("GC_PANTHER_FOLDS", ""),
    "mirroring": ("GC_PANTHER_MIRRORING", "1"),
    "step_size": ("GC_PANTHER_STEP_SIZE", "0.5"),
    "backend": ("GC_PANTHER_BACKEND", "auto"),
    "mode": ("GC_PANTHER_MODE", "exact"),
    "time_limit": ("GC_PANTHER_TIME_LIMIT", ""),
    "log_level": ("LOG_LEVEL", "INFO"),
}

_BOOLEANS = {
    "1": True, "true": True, "yes": True, "y": True, "on": True,
    "0": False, "false": False, "no": False, "n": False, "off": False,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The environment, read once. Command-line options override single values.

    Attributes:
        task: the task of this container, or empty.
        api: the platform's interface that this container serves, ``invoke`` or ``exec``, or empty.
        input: the platform's input folder. Kept unresolved: it is a symlink that the platform
            recreates between cases.
        output: the platform's output folder.
        model_dir: a folder or an archive of weights that takes precedence over all others, or
            None.
        platform_model_dir: where the platform unpacks the uploaded model.
        resources: the folder of the bundled weights.
        scratch: parent of temporary folders, or None for the system's.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to run without a usable GPU.
        combine: how folds are combined.
        keep_empty: leave an empty mask empty; None leaves it to the command.
        folds: the folds to use; None means those the task requires.
        mirroring: average over mirrored copies.
        step_size: distance of neighbouring windows as a fraction of the patch.
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
    keep_empty: bool | None
    folds: tuple[int, ...] | None
    mirroring: bool
    step_size: float
    backend: str
    mode: str
    time_limit: float | None
    log_level: str


def bundled_resources() -> Path:
    """The ``resources`` folder next to the package in a checkout."""
    return Path(__file__).resolve().parent.parent / "resources"


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where things are kept that can be made again (XDG Base Directory Specification)."""
    source = os.environ if environ is None else environ
    home = source.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gc_panther"


def cuda_visible_devices(environ: Mapping[str, str] | None = None) -> str | None:
    """``CUDA_VISIBLE_DEVICES``; None where it is not set, which is another thing than empty."""
    return (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")


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
    """Read the settings table from the environment (or from ``environ``).

    Raises:
        UserError: a variable has a value that is not valid; the message names it.
    """
    source = os.environ if environ is None else environ
    value = {
        name: source.get(variable, "") or default for name, (variable, default) in VARIABLES.items()
    }
    return Settings(
        task=value["task"],
        api=_choice("api", value["api"], ("", "invoke", "exec")),
        input=Path(value["input"]),
        output=Path(value["output"]),
        model_dir=Path(value["model_dir"]) if value["model_dir"] else None,
        platform_model_dir=Path(value["platform_model_dir"]),
        resources=Path(value["resources"]) if value["resources"] else bundled_resources(),
        scratch=Path(value["scratch"]) if value["scratch"] else None,
        device=_device(value["device"]),
        require_gpu=_boolean("require_gpu", value["require_gpu"]),
        combine=_choice("combine", value["combine"], get_args(Combine)),
        keep_empty=_boolean("keep_empty", value["keep_empty"]) if value["keep_empty"] else None,
        folds=parse_folds(value["folds"], VARIABLES["folds"][0]) if value["folds"] else None,
        mirroring=_boolean("mirroring", value["mirroring"]),
        step_size=_number("step_size", value["step_size"], at_most=1),
        backend=_choice("backend", value["backend"], get_args(Backend)),
        mode=_choice("mode", value["mode"], get_args(Mode)),
        time_limit=_number("time_limit", value["time_limit"]) if value["time_limit"] else None,
        log_level=value["log_level"],
    )


def parse_folds(text: str, source: str) -> tuple[int, ...]:
    """Read a list of folds such as ``0,1,2``; what is named twice counts once.

    Args:
        text: the list.
        source: the option or variable it comes from, for the message.

    Raises:
        UserError: it is not a list of numbers.
    """
    folds = [fold.strip() for fold in text.split(",")]
    if not all(fold.isdecimal() for fold in folds):
        raise UserError(
            f"{source} is {text!r}, which is not a valid list of folds", fix="Write it as 0,1,2"
        )
    return tuple(dict.fromkeys(map(int, folds)))


def _boolean(name: str, text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise _refused(
            name, text, "Use 1 or 0 (true or false, yes or no, y or n, on or off)"
        ) from None


def _choice(name: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise _refused(name, text, f"Choose {alternatives(word for word in known if word)}")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise _refused("device", text, "Choose auto, cpu, cuda or cuda:N")
    return text


def _number(name: str, text: str, *, at_most: float = math.inf) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and 0 < number <= at_most):
        upper = "" if math.isinf(at_most) else f" and at most {at_most:g}"
        raise _refused(name, text, f"Give a number above 0{upper}")
    return number


def _refused(name: str, text: str, fix: str) -> UserError:
    return UserError(f"{VARIABLES[name][0]} is {text!r}, which is not valid", fix=fix)
