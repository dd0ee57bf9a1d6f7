"""Which device a task runs on: the policy, and its messages.

The driver is asked what GPUs there are; the libraries that compute a task's networks, through the
hook ``gc_panther_device_check``, whether they can use the one that was chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import pluggy

from gc_panther.errors import DeviceError
from gc_panther.hardware import Device, DeviceCheck, Driver, Gpu, no_gpu, no_such_gpu
from gc_panther.runtime.driver import find_driver
from gc_panther.task import Task
from gc_panther.text import count


class CheckDevice(Protocol):
    """Asks the libraries about a device."""

    def __call__(self, *, device: str, driver: Driver | None) -> Iterable[DeviceCheck]:
        """Return what each of them says; nothing where no library has to be asked.

        Args:
            device: ``cpu`` or ``cuda:N``.
            driver: the driver, or None where there is none or the CPU is meant.
        """


def no_library(*, device: str, driver: Driver | None) -> Iterable[DeviceCheck]:
    """A :class:`CheckDevice` for a task that computes with nothing that has to be checked."""
    return ()


def device_for(
    task: Task, manager: pluggy.PluginManager, wanted: str, *, require_gpu: bool
) -> Device:
    """Choose and check the device of a task.

    Args:
        task: the task; plugins check the device with the libraries that compute it.
        manager: the plugins.
        wanted: as for :func:`select_device`.
        require_gpu: do not fall back on the CPU.

    Raises:
        DeviceError: the device is absent or cannot run the task.
    """
    check = partial(manager.hook.gc_panther_device_check, task=task)
    return select_device(wanted, require_gpu=require_gpu, check=check)


def select_device(
    wanted: str = "auto",
    *,
    require_gpu: bool = False,
    check: CheckDevice = no_library,
    driver: Callable[[], Driver | None] | None = None,
) -> Device:
    """Choose and check a device.

    Args:
        wanted: ``auto`` (a GPU that can be used, otherwise the CPU), ``cpu``, ``cuda`` or
            ``cuda:N``.
        require_gpu: do not fall back on the CPU.
        check: asks the libraries that have to use it. They take precedence over the driver: they
            have tried the device.
        driver: finds the driver; asked only if a GPU is wanted. None is
            :func:`~gc_panther.runtime.driver.find_driver`.

    Raises:
        DeviceError: the device is absent or cannot be used.
    """
    chosen = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", wanted, re.ASCII)
    if chosen is None:
        raise DeviceError(f"there is no device {wanted!r}", fix="Choose auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        if require_gpu:
            raise DeviceError(
                "the CPU was chosen although a GPU is required",
                fix="Drop --require-gpu or choose --device cuda",
            )
        return _cpu(check)
    index, found = int(chosen[1] or 0), (driver or find_driver)()
    checks = list(check(device=f"cuda:{index}", driver=found))
    problem = _problem(index, found, checks)
    if problem is None:
        return _gpu(index, found, checks)
    if wanted != "auto" or require_gpu:
        raise problem
    if found is None:
        return _cpu(check, notes=(f"No GPU is used: {problem.what}",))
    # There is a GPU, and a run on the CPU may exceed the time limit.
    return _cpu(check, warnings=(f"No GPU is used: {problem}",))


def _problem(
    index: int, driver: Driver | None, checks: Sequence[DeviceCheck]
) -> DeviceError | None:
    """Why a GPU cannot be used, with the versions that have to fit together; None if it can."""
    refusal = next((check for check in checks if check.problem is not None), None)
    if refusal is None and checks:
        return None
    problem = refusal.problem if refusal is not None else _missing(index, driver)
    if problem is None:
        return None
    versions = [version for check in checks for version in check.versions]
    versions.append(f"NVIDIA driver {driver.version}" if driver else "no NVIDIA driver")
    known = "; ".join(filter(None, (", ".join(versions), refusal.cause if refusal else "")))
    return DeviceError(f"{problem.what} ({known})", fix=problem.fix)


def _missing(index: int, driver: Driver | None) -> DeviceError | None:
    """The error for a GPU that the driver does not show; None if it does."""
    if driver is None or not driver.gpus:
        return no_gpu()
    return no_such_gpu(index, len(driver.gpus)) if index >= len(driver.gpus) else None


def _gpu(index: int, driver: Driver | None, checks: Sequence[DeviceCheck]) -> Device:
    """The GPU as a library sees it, as the driver does where none was asked."""
    gpus: list[Gpu] = [check.gpu for check in checks if check.gpu is not None]
    if driver is not None:
        gpus += driver.gpus[index : index + 1]
    description = gpus[0].description if gpus else f"GPU {index}"
    return Device(f"cuda:{index}", description, *_said(checks))


def _cpu(check: CheckDevice, notes: tuple[str, ...] = (), warnings: tuple[str, ...] = ()) -> Device:
    checks = list(check(device="cpu", driver=None))
    for one in checks:
        if one.problem is not None:
            raise one.problem
    threads = [one.threads for one in checks if one.threads is not None]
    computing = count(threads[0], "thread") if threads else count(os.cpu_count() or 1, "core")
    more_notes, more_warnings = _said(checks)
    return Device("cpu", f"CPU, {computing}", notes + more_notes, warnings + more_warnings)


def _said(checks: Sequence[DeviceCheck]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The notes and the warnings of all libraries."""
    return (
        tuple(note for check in checks for note in check.notes),
        tuple(warning for check in checks for warning in check.warnings),
    )
