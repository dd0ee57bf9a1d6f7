"""Is this machine, or this container, ready to run a task? One finding per check."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pluggy

from gc_panther.commands.serve import PORT
from gc_panther.errors import GCPantherError, missing_package
from gc_panther.model_identity import describe_model, read_identity
from gc_panther.platform.sockets import unserved
from gc_panther.plugins import registered_tasks
from gc_panther.runtime.device import select_device
from gc_panther.runtime.info import DISTRIBUTIONS, installed_version
from gc_panther.runtime.weights import find_model, model_digest, weight_roots
from gc_panther.session import Choices, Session
from gc_panther.settings import Settings
from gc_panther.task import Task

logger = logging.getLogger(__name__)

Verdict = Literal["ok", "warn", "fail"]

#: Free space for temporary files below which a full-size case may fail, GiB.
MIN_SCRATCH_GIB = 1.0
#: Memory limit of the process below which full-size networks do not fit, GiB.
MIN_MEMORY_GIB = 4.0
#: The platform's nominal limit of an image, GB.
LARGEST_IMAGE_GB = 10
#: What is mounted into a container, or is none of its files.
_NOT_OF_THE_IMAGE = {
    f"/{name}" for name in ("proc", "sys", "dev", "tmp", "input", "output", "opt/ml/model")
}
#: Distributions only some tasks need.
OPTIONAL = ("mrsegmentator",)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was checked.
        verdict: ``fail`` means a run would not work.
        found: what is there.
        fix: what to do about it; empty where nothing has to be done.
    """

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def examine_installed(
    manager: pluggy.PluginManager, settings: Settings, device: str = "auto"
) -> list[Finding]:
    """Run all checks, with every installed task.

    Args:
        manager: the plugins.
        settings: the environment.
        device: as :func:`~gc_panther.runtime.device.select_device` takes it.
    """
    tasks: list[Task] = []

    def listed() -> list[Finding]:
        tasks.extend(registered_tasks(manager).values())
        fix = "Install a task's distribution, such as tasks/task1"
        return [] if tasks else [Finding("tasks", "fail", "none", fix)]

    return [*_checked("tasks", listed), *examine(tasks, manager, settings, device)]


def examine(
    tasks: Iterable[Task], manager: pluggy.PluginManager, settings: Settings, device: str = "auto"
) -> list[Finding]:
    """Run all checks; one that fails with an error, whatever it is, is a finding, too.

    In a container of the platform (``GC_PANTHER_TASK`` is set) those of its user, its size and its
    interface, too.

    Args:
        tasks: those whose weights are looked for, and which are tried.
        manager: the plugins.
        settings: the environment.
        device: as :func:`~gc_panther.runtime.device.select_device` takes it.
    """
    devices = _checked("device", lambda: _device(settings, device))
    findings = [
        *_checked("distributions", _distributions),
        *devices,
        *_checked("memory limit", lambda: [_memory_limit()]),
        *_checked("shared memory", lambda: [_shared_memory()]),
        *_checked("scratch", lambda: [_scratch(settings)]),
        *_checked("input", lambda: [_folder("input", settings.input)]),
        *_checked("output", lambda: [_folder("output", settings.output, write=True)]),
    ]
    if settings.task:
        findings += _checked("user", lambda: [_user(os.getuid())])
        findings += _checked("image size", lambda: [_image_size(Path("/"))])
        findings += _checked("interface", lambda: _interface(settings.api))
    usable = all(finding.verdict != "fail" for finding in devices)
    for task in tasks:
        if problems := unserved(task):
            fix = "Its author has to change its interfaces; other tasks are not concerned"
            findings.append(Finding(f"sockets {task.name}", "fail", "; ".join(problems), fix))
            continue
        weights = _checked(f"weights {task.name}", partial(_weights, task, settings))
        findings += weights
        if usable and all(finding.verdict != "fail" for finding in weights):
            findings += _checked(
                f"precision {task.name}", partial(_precision, task, settings, device)
            )
            findings.append(_trial(task, manager, settings, device))
    return findings


def _checked(check: str, findings: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check finds; its failure where it cannot be finished."""
    try:
        return findings()
    except Exception as error:  # noqa: BLE001 - one check must not hide the others
        return [_failure(check, error)]


def _failure(check: str, error: Exception) -> Finding:
    """A row for an error, foreseen or not."""
    if isinstance(error, GCPantherError):
        found = f"{error.what}: {error.where}" if error.where else error.what
        return Finding(check, "fail", found, error.fix)
    logger.debug("%s", check, exc_info=error)
    missing = missing_package(error)
    if missing is not None:
        return Finding(check, "fail", missing.what, missing.fix)
    found = " ".join(f"{type(error).__name__}: {error}".split())
    fix = "LOG_LEVEL=DEBUG shows the traceback; report it to the author of what failed"
    return Finding(check, "fail", found, fix)


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
    shown = Finding("device", "ok", ". ".join((chosen.description, *chosen.notes)))
    return [shown, *(Finding("device", "warn", warning) for warning in chosen.warnings)]


def _precision(task: Task, settings: Settings, device: str) -> list[Finding]:
    """A row for each nnU-Net of a task, on a GPU: what its passes are computed in."""
    chosen = select_device(device, require_gpu=settings.require_gpu)
    if chosen.name == "cpu":
        return []
    from gc_panther.nnunet.inference.ensemble import precision_of
    from gc_panther.nnunet.model.folder import is_model_folder, open_model_folder

    findings = []
    for model in task.models:
        folder = find_model(model, weight_roots(settings), task)
        if model.folds or is_model_folder(folder):
            choice = precision_of(open_model_folder(folder, model.folds), chosen.name)
            found = f"{choice.precision}: {choice.reason}" if choice.reason else choice.precision
            if choice.trial is not None:
                found += (
                    f"; off by {choice.trial.error:.1e}, {choice.trial.time:.2f} of float32's time"
                )
            verdict: Verdict = "warn" if choice.reason else "ok"
            findings.append(Finding(f"precision {model.name}", verdict, found))
    return findings


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


def _shared_memory() -> Finding:
    """For information: no process here shares memory with another."""
    place = Path("/dev/shm")  # noqa: S108 - looked at only
    if not place.is_dir():
        return Finding("shared memory", "ok", "none; none is needed")
    size = shutil.disk_usage(place).total / 2**20
    return Finding("shared memory", "ok", f"{size:.0f} MiB; none is needed")


def _user(number: int) -> Finding:
    if number == 0:
        return Finding("user", "fail", "root", "Give the Dockerfile a USER that is not root")
    return Finding("user", "ok", str(number))


def _image_size(root: Path) -> Finding:
    """Of all files of the container that are not mounted into it."""
    device, total, waiting = root.stat().st_dev, 0, [root]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            # What this user may not list is small: /root and the like.
            continue
        for entry in entries:
            stat = entry.stat(follow_symlinks=False)
            if entry.path in _NOT_OF_THE_IMAGE or stat.st_dev != device:
                continue
            total += stat.st_size
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
    good = total <= LARGEST_IMAGE_GB * 1e9
    fix = "Leave weights to the model upload, and caches and compilers out of the image"
    shown = f"{total / 1e9:.1f} GB of files; the platform takes {LARGEST_IMAGE_GB} GB"
    return Finding("image size", "ok" if good else "fail", shown, "" if good else fix)


def _interface(api: str, port: int = PORT) -> list[Finding]:
    """What the platform will ask this container."""
    if api == "exec":
        return [Finding("interface", "ok", "exec: one case per start")]
    if api != "invoke":
        return []
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return [Finding("interface", "ok", f"invoke: healthy on port {port} ({answer.status})")]
    except urllib.error.HTTPError as error:
        return [
            Finding("interface", "warn", f"invoke: port {port} answers {error.code}", "Wait for it")
        ]
    except OSError:
        pass
    try:
        with socket.create_server(("127.0.0.1", port)):
            return [Finding("interface", "ok", f"invoke: port {port} is free to serve on")]
    except OSError as error:
        why = f"invoke: port {port} is unavailable ({error.strerror})"
        return [Finding("interface", "fail", why, "Stop what listens there")]


def _trial(task: Task, manager: pluggy.PluginManager, settings: Settings, device: str) -> Finding:
    """Load the networks and segment noise, while nothing can be reached over a network."""
    check, begin = f"offline trial {task.name}", time.perf_counter()
    with _no_network() as asked:
        try:
            choices = Choices(device=device, require_gpu=settings.require_gpu)
            with Session(task, manager, settings, choices) as session:
                session.self_test()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; others are tried
            if not asked:
                return _failure(check, error)
            fix = "The platform has no network: put what is fetched into the image or the model"
            return Finding(check, "fail", f"the network was used ({asked[0]})", fix)
    shown = f"networks loaded and tried in {time.perf_counter() - begin:.0f} s"
    return Finding(check, "ok", shown)


@contextmanager
def _no_network() -> Iterator[list[str]]:
    """Whoever looks up a host or connects to one from Python in this block gets an OSError.

    Yields:
        The addresses that were asked for.
    """
    asked: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        asked.append(next((str(a) for a in arguments if isinstance(a, (str, tuple))), "a host"))
        raise OSError(f"{asked[-1]} was asked for while no network may be used")

    patched = [(socket, "getaddrinfo"), (socket.socket, "connect"), (socket.socket, "connect_ex")]
    before = [getattr(owner, name) for owner, name in patched]
    for owner, name in patched:
        setattr(owner, name, refuse)
    try:
        yield asked
    finally:
        for (owner, name), function in zip(patched, before, strict=True):
            setattr(owner, name, function)


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
    """A row for each model; those of other libraries than nnU-Net are opened by the trial only."""
    from gc_panther.nnunet.model.folder import is_model_folder, open_model_folder

    findings = []
    for model in task.models:
        check = f"weights {model.name}"
        try:
            folder = find_model(model, weight_roots(settings), task)
            identity, shown = read_identity(folder), ""
            if model.folds or is_model_folder(folder):
                opened = open_model_folder(folder, model.folds)
                for fold in opened.checkpoints:
                    opened.read_weights(fold)
                shown = f", folds {', '.join(map(str, opened.checkpoints))}"
            shown += f", SHA-256 {model_digest(folder)[:16]}"
        except GCPantherError as error:
            findings.append(Finding(check, "fail", f"{error.what}: {error.where}", error.fix))
            continue
        found = describe_model(folder, identity) + shown
        if identity.kind == "demonstration":
            findings.append(Finding(check, "warn", found, model.source))
        else:
            findings.append(Finding(check, "ok", found))
    return findings
