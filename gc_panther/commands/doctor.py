"""Is this machine, or this container, ready to run a task? One finding per check."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy

from gc_panther.errors import GCPantherError
from gc_panther.findings import Finding, checked, failure
from gc_panther.hardware import Device
from gc_panther.model_identity import describe_model, read_identity
from gc_panther.options import RunOptions
from gc_panther.platform.sockets import unserved
from gc_panther.plugins import installed_versions, registered_tasks
from gc_panther.runtime.device import device_for, select_device
from gc_panther.runtime.weights import find_model, model_digest, weight_roots
from gc_panther.session import Choices, Session
from gc_panther.settings import Settings
from gc_panther.task import Task

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


def examine_installed(
    manager: pluggy.PluginManager, settings: Settings, options: RunOptions
) -> list[Finding]:
    """Run all checks, with every installed task.

    Args:
        manager: the plugins.
        settings: the environment.
        options: device and weights.
    """
    tasks: list[Task] = []

    def listed() -> list[Finding]:
        tasks.extend(registered_tasks(manager).values())
        fix = "Install a task's distribution, such as tasks/task1"
        return [] if tasks else [Finding("tasks", "fail", "none", fix)]

    return [*checked("tasks", listed), *examine(tasks, manager, settings, options)]


def examine(
    tasks: Iterable[Task], manager: pluggy.PluginManager, settings: Settings, options: RunOptions
) -> list[Finding]:
    """Run all checks; one that fails with an error, whatever it is, is a finding, too.

    In a container of the platform (``GC_PANTHER_TASK`` is set) those of its user, its size and its
    interface, too.

    Args:
        tasks: their weights are searched for, and each is tried.
        manager: the plugins.
        settings: the environment.
        options: device and weights.
    """
    tasks = list(tasks)
    served = [task for task in tasks if not unserved(task)]
    devices, chosen = _devices(served, manager, options)
    findings = [
        *checked("distributions", partial(_distributions, manager)),
        *devices,
        *checked("memory limit", lambda: [_memory_limit()]),
        *checked("shared memory", lambda: [_shared_memory()]),
        *checked("scratch", lambda: [_scratch(settings)]),
        *checked("input", lambda: [_folder("input", settings.input)]),
        *checked("output", lambda: [_folder("output", settings.output, write=True)]),
    ]
    if settings.task:
        findings += checked("user", lambda: [_user(os.getuid())])
        findings += checked("image size", lambda: [_image_size(Path("/"))])
        findings += checked("interface", lambda: _interface(settings.api))
    for task in tasks:
        if task not in served:
            fix = "Its author has to change its interfaces; other tasks are not concerned"
            found = "; ".join(unserved(task))
            findings.append(Finding(f"sockets {task.name}", "fail", found, fix))
            continue
        there = chosen.get(task.name)
        models = checked(
            f"models {task.name}", partial(_models, task, manager, settings, options, there)
        )
        findings += models
        if there is not None and not any(finding.failed for finding in models):
            findings.append(_trial(task, manager, settings, options))
    return findings


def _devices(
    tasks: list[Task], manager: pluggy.PluginManager, options: RunOptions
) -> tuple[list[Finding], dict[str, Device]]:
    """Where each task would run: they are computed by different libraries.

    Returns:
        The findings about the device, or about each task's where they differ; and the device of
        each task that can run, by the task's name.
    """
    chosen: dict[str, Device] = {}

    def check_device(task: Task) -> list[Finding]:
        chosen[task.name] = device_for(
            task, manager, options.device, require_gpu=options.require_gpu
        )
        return _about(chosen[task.name])

    checks = {task.name: checked("device", partial(check_device, task)) for task in tasks}
    if not checks:
        return checked(
            "device", lambda: _about(select_device(options.device, require_gpu=options.require_gpu))
        ), chosen
    first, *others = checks.values()
    if all(other == first for other in others):
        return first, chosen
    return [
        replace(finding, check=f"device {name}")
        for name, findings in checks.items()
        for finding in findings
    ], chosen


def _about(device: Device) -> list[Finding]:
    shown = Finding("device", "ok", ". ".join((device.description, *device.notes)))
    return [shown, *(Finding("device", "warn", warning) for warning in device.warnings)]


def _distributions(manager: pluggy.PluginManager) -> list[Finding]:
    """What is installed; what a task lacks, its trial finds out."""
    versions = installed_versions(manager)
    return [Finding(name, "ok", version) for name, version in versions.items() if version]


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
    place = Path("/dev/shm")  # noqa: S108 - read only
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


def _interface(api: str, port: int | None = None) -> list[Finding]:
    """What the platform will ask this container."""
    if api == "exec":
        return [Finding("interface", "ok", "exec: one case per start")]
    if api != "invoke":
        return []
    if port is None:
        from gc_panther.commands.serve import PORT

        port = PORT
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


def _trial(
    task: Task, manager: pluggy.PluginManager, settings: Settings, options: RunOptions
) -> Finding:
    """Load the networks and segment noise, while nothing can be reached over a network."""
    check, begin = f"offline trial {task.name}", time.perf_counter()
    with _no_network() as asked:
        try:
            with Session(task, manager, settings, Choices(options)) as session:
                session.self_test()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; others are tried
            if not asked:
                return failure(check, error)
            fix = "The platform has no network: put what is fetched into the image or the model"
            return Finding(check, "fail", f"the network was used ({asked[0]})", fix)
    shown = f"networks loaded and tried in {time.perf_counter() - begin:.0f} s"
    return Finding(check, "ok", shown)


@contextmanager
def _no_network() -> Iterator[list[str]]:
    """Looking up a host or connecting to one from Python raises OSError in this block.

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
    """The platform's folders exist in its containers only, so their absence is not a failure."""
    if not place.is_dir():
        return Finding(name, "ok", f"{place} is not there (needed by `run` only)")
    if not os.access(place, os.W_OK if write else os.R_OK):
        verb = "written to" if write else "read"
        return Finding(name, "fail", f"{place} cannot be {verb}", "Check the mount and the user")
    return Finding(name, "ok", str(place))


def _models(
    task: Task,
    manager: pluggy.PluginManager,
    settings: Settings,
    options: RunOptions,
    device: Device | None,
) -> Iterator[Finding]:
    """A row for each model of a task, and what plugins find out about them."""
    findings, models = _weights(task, settings, options)
    yield from findings
    for found in manager.hook.gc_panther_doctor(task=task, models=models, device=device):
        yield from found


def _weights(
    task: Task, settings: Settings, options: RunOptions
) -> tuple[list[Finding], Mapping[str, Path]]:
    """A row for each model, and the folders of those that are there."""
    findings, folders = [], {}
    for model in task.models:
        check = f"weights {model.name}"
        try:
            folder = find_model(model, weight_roots(settings, options.model_dir), task)
            identity = read_identity(folder)
            found = f"{describe_model(folder, identity)}, SHA-256 {model_digest(folder)[:16]}"
        except GCPantherError as error:
            findings.append(failure(check, error))
            continue
        folders[model.name] = folder
        if identity.kind == "demonstration":
            findings.append(Finding(check, "warn", found, model.source))
        else:
            findings.append(Finding(check, "ok", found))
    return findings, folders
