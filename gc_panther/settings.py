"""Where a container finds its things: declared as options are, most of them without a flag."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gc_panther.options import Option, Options, read_options


def bundled_resources() -> Path:
    """The ``resources`` folder next to the package in a checkout."""
    return Path(__file__).resolve().parent.parent / "resources"


class Settings(Options):
    """What the environment settles for a container, and ``run`` and ``serve`` for one start."""

    task: Annotated[
        str, Field(description="The task; a container's image names it by the variable.")
    ] = ""
    #: Kept unresolved: it is a symlink that the platform recreates between cases.
    input: Annotated[Path, Field(description="The platform's input folder.")] = Path("/input")
    output: Annotated[Path, Field(description="The platform's output folder.")] = Path("/output")
    api: Annotated[
        Literal["", "invoke", "exec"],
        Field(description="The platform's interface that this container serves, for doctor."),
        Option(flag=None),
    ] = ""
    platform_model_dir: Annotated[
        Path,
        Field(description="Where the platform unpacks an uploaded model."),
        Option(flag=None),
    ] = Path("/opt/ml/model")
    resources: Annotated[
        Path,
        Field(description="The bundled weights."),
        Option(flag=None, shown_default="`resources/` of the checkout"),
    ] = bundled_resources()
    scratch: Annotated[
        Path | None,
        Field(description="Parent of temporary folders."),
        Option(flag=None, shown_default="the system's"),
    ] = None
    log_level: Annotated[
        str,
        Field(description="The least level of the log on stdout, such as DEBUG."),
        Option(flag=None, variable="LOG_LEVEL"),
    ] = "INFO"


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment (or of ``environ``).

    Raises:
        UserError: a variable has a value that is not valid; the message names it.
    """
    return read_options(Settings, environ=environ)


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
