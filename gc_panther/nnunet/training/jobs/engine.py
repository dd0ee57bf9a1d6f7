"""Where the processes of a training run: on this machine, or on those of a Ray cluster."""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gc_panther.errors import DeviceError, ProcessingError
from gc_panther.processes import Children, Ending
from gc_panther.settings import child_environment, visible_gpus

#: Tells a module of :class:`Process` that its standard input ends with its starter.
CHILD = "--child"
#: Seconds after which a signal is noticed at the latest.
LONGEST_WAIT = 0.5


@dataclass(frozen=True)
class Process:
    """A Python process to run, which needs none of the others.

    Attributes:
        title: what errors begin with.
        module: run as ``python -m``.
        arguments: of the module; :data:`CHILD` is added.
        environment: what it finds besides the machine's own environment.
        gpu: whether it needs one.
        log: file with the details of a failure.
    """

    title: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    log: str | Path = ""


class Engine(Protocol):
    """Runs processes that do not need each other."""

    def threads(self, processes: int) -> int:
        """How many threads each of so many processes may use."""

    def run(self, processes: Sequence[Process]) -> list[ProcessingError]:
        """Run all of them and return what failed; a failure stops none of the others."""


@dataclass(frozen=True)
class LocalEngine:
    """Runs processes on this machine.

    Attributes:
        jobs: how many at a time, and at least one for each GPU that is used.
        device: ``cpu``; ``cuda`` for all visible GPUs; ``cuda:N`` for one of them.
    """

    jobs: int = 1
    device: str = "cpu"

    def threads(self, processes: int) -> int:
        """The cores are shared out."""
        return max(1, (os.cpu_count() or 1) // min(len(self._places()), max(1, processes)))

    def run(self, processes: Sequence[Process]) -> list[ProcessingError]:
        """Run all of them, each on its GPU; when this process is stopped, all of them are."""
        free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        places = self._places()
        for place in places:
            free.put(place)

        def run_one(process: Process) -> ProcessingError | None:
            place = free.get()
            try:
                return failure(process, run_here(process, children, place))
            finally:
                free.put(place)

        with ThreadPoolExecutor(len(places)) as pool, Children() as children:
            futures = [pool.submit(run_one, process) for process in processes]
            # Again and again, as an endless wait may sleep through a signal that came just before.
            while wait(futures, timeout=LONGEST_WAIT).not_done:
                pass
        return [error for future in futures if (error := future.result()) is not None]

    def _places(self) -> list[dict[str, str]]:
        """The environment of each process that can run at the same time as the others."""
        if not self.device.startswith("cuda"):
            return [{}] * self.jobs
        import torch

        gpus = visible_gpus(torch.cuda.device_count())
        _, _, number = self.device.partition(":")
        if number:
            gpus = gpus[int(number) : int(number) + 1]
        if not gpus:
            raise DeviceError(
                f"PyTorch sees no GPU for {self.device}", fix="Choose another --device, such as cpu"
            )
        count = max(self.jobs, len(gpus))
        return [{"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} for n in range(count)]


def run_here(
    process: Process,
    children: Children,
    environment: Mapping[str, str],
    emit: Callable[[str], None] | None = None,
) -> Ending:
    """Run a process on this machine; its lines are printed or given to ``emit``."""
    command = [sys.executable, "-W", "ignore", "-m", process.module, *process.arguments, CHILD]
    changes = {**process.environment, **environment}
    return children.run(command, child_environment(changes), emit or _print)


def failure(process: Process, ending: Ending) -> ProcessingError | None:
    """What to tell a person about a process that ended, or None if it did its work."""
    again = "run the same command again to continue"
    if ending.code == 0:
        return None
    if ending.killed_by:
        return ProcessingError(
            f"{process.title} was killed ({ending.killed_by})",
            where=process.log,
            fix=f"Often the machine had no memory left. Finished work is kept; {again}",
        )
    if ending.reason:
        return ProcessingError(f"{process.title}: {ending.reason}", fix=f"Then {again}")
    return ProcessingError(
        f"{process.title} failed",
        where=process.log,
        fix=f"The reason is in the lines above; {again}",
    )


def _print(line: str) -> None:
    # At once: `print` writes the line's end on its own, and other threads print, too.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
