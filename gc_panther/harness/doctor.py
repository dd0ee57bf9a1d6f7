"""Is this machine, or this container, ready to run a task? One finding per check."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gc_panther.errors import GCPantherError
from gc_panther.runtime.device import half_convolution_error, select_device
from gc_panther.runtime.info import DISTRIBUTIONS, installed_version
from gc_panther.runtime.weights import find_model, weight_roots
from gc_panther.settings import Settings
from gc_panther.task import Task

Verdict = Literal["ok", "warn", "fail"]

#: Free space for temporary files below which a full-size case may fail, GiB.
MIN_SCRATCH_GIB = 1.0
#: Memory limit of the process below which full-size networks do not fit, GiB.
MIN_MEMORY_GIB = 4.0
#: Distributions only some tasks need.
OPTIONAL = ("mrsegmentator",)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was looked at.
        verdict: ``fail`` means a run would not work.
        found: what is there.
        fix: what to do about it; empty where it is well.
    """

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def examine(tasks: Iterable[Task], settings: Settings, device: str = "auto") -> list[Finding]:
    """Run all checks.

    Args:
        tasks: those whose weights are looked for.
        settings: the environment.
        device: as :func:`~gc_panther.runtime.device.select_device` takes it.
    """
    tasks = list(tasks)
    findings = [*_distributions(), *_device(settings, device), _memory_limit()]
    findings.append(_scratch(settings))
    findings += [_folder("input", settings.input), _folder("output", settings.output, write=True)]
    if not tasks:
        findings.append(
            Finding("tasks", "fail", "none", "Install a task's distribution, such as tasks/task1")
        )
    for task in tasks:
        findings += _weights(task, settings)
    return findings


def _distributions() -> list[Finding]:
    findings = []
    for name in DISTRIBUTIONS:
        version = installed_version(name)
        if version is not None:
            findings.append(Finding(name, "ok", version))
        elif name not in OPTIONAL:
            findings.append(
                Finding(name, "fail", "not installed", "Install what requirements.lock lists")
            )
    return findings


def _device(settings: Settings, device: str) -> list[Finding]:
    try:
        chosen = select_device(device, require_gpu=settings.require_gpu)
    except GCPantherError as error:
        return [Finding("device", "fail", error.what, error.fix)]
    except ImportError as error:
        return [Finding("device", "fail", f"torch cannot be imported ({error})", "Reinstall torch")]
    # The CPU is as good a device as any: why no GPU was chosen is worth a line, not a warning.
    if chosen.name == "cpu":
        return [Finding("device", "ok", ". ".join((chosen.description, *chosen.notes)))]
    return [
        Finding("device", "warn" if chosen.notes else "ok", chosen.description),
        *(Finding("device", "warn", note) for note in chosen.notes),
        Finding(
            "3-D convolution",
            "ok",
            f"half precision is off by {half_convolution_error(chosen.name):.1e}",
        ),
    ]


def _memory_limit() -> Finding:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return Finding("memory limit", "ok", "none for the process")
    gib = limit / 2**30
    return Finding(
        "memory limit",
        "ok" if gib >= MIN_MEMORY_GIB else "warn",
        f"{gib:.1f} GiB of data per process",
        "" if gib >= MIN_MEMORY_GIB else "Choose an instance with more memory",
    )


def _scratch(settings: Settings) -> Finding:
    place = settings.scratch or Path(tempfile.gettempdir())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        return Finding("scratch", "fail", f"{place} is not writable", "Set GC_PANTHER_SCRATCH")
    free = shutil.disk_usage(place).free / 2**30
    return Finding(
        "scratch",
        "ok" if free >= MIN_SCRATCH_GIB else "warn",
        f"{place}, {free:.1f} GiB free",
        "" if free >= MIN_SCRATCH_GIB else "Free some space or set GC_PANTHER_SCRATCH",
    )


def _folder(name: str, place: Path, *, write: bool = False) -> Finding:
    """The platform's folders exist in its containers only, so their absence is no failure."""
    if not place.is_dir():
        return Finding(name, "ok", f"{place} is not there (needed by `run` only)")
    if not os.access(place, os.W_OK if write else os.R_OK):
        verb = "written to" if write else "read"
        return Finding(name, "fail", f"{place} cannot be {verb}", "Check the mount and the user")
    return Finding(name, "ok", str(place))


def _weights(task: Task, settings: Settings) -> list[Finding]:
    from gc_panther.nnunet.model_folder import open_model_folder

    findings = []
    for model in task.models:
        check = f"weights {model.name}"
        try:
            folder = find_model(model, weight_roots(settings), task)
            opened = open_model_folder(folder, model.folds)
            for fold in opened.checkpoints:
                opened.read_weights(fold)
        except GCPantherError as error:
            findings.append(Finding(check, "fail", f"{error.what}: {error.where}", error.fix))
        else:
            folds = ", ".join(map(str, opened.checkpoints))
            findings.append(Finding(check, "ok", f"{folder}, folds {folds}"))
    return findings
