"""Processes on the machines of a Ray cluster, whose file system they share."""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gc_panther.errors import DeviceError, ProcessingError, UserError
from gc_panther.nnunet.training.jobs.engine import Process, failure, run_here
from gc_panther.processes import Children, Ending

log = logging.getLogger(__name__)

#: How often a process is started again where its machine or its worker died.
RETRIES = 3

#: Ray reports its use to its makers, leaves out lines that it takes for repeated, and colours them.
_OFF = ("RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX")


class Killed(Exception):
    """A process was killed from outside."""


class FolderNotSharedError(Exception):
    """A machine does not see the work folder."""


@dataclass(frozen=True)
class RayEngine:
    """Runs processes as Ray tasks.

    It joins the cluster that Ray finds (``ray start``, or ``RAY_ADDRESS``), else it starts Ray on
    this machine alone.

    Attributes:
        folder: in which all processes work; every machine has to see it under the same path.
        jobs: how many processes share the cores of a machine. A process that needs a GPU gets one
            to itself.
    """

    folder: Path
    jobs: int = 1

    def threads(self, processes: int) -> int:
        """A share of the cores of the machine that has the fewest."""
        return max(1, _fewest_cores(_connected()) // min(self.jobs, max(1, processes)))

    def run(self, processes: Sequence[Process]) -> list[ProcessingError]:
        """Run all of them; their lines come to this process's stdout.

        Raises:
            DeviceError: the cluster has no GPU, and a process needs one.
            UserError: a machine does not see the folder.
        """
        ray = _connected()
        if any(process.gpu for process in processes) and not ray.cluster_resources().get("GPU"):
            raise DeviceError("the Ray cluster has no GPU", fix="Choose --device cpu, or add one")
        folder = self.folder.resolve()
        token = folder / f"seen-{uuid.uuid4().hex}"
        token.touch()
        threads = self.threads(len(processes))
        task = ray.remote(_run)
        waiting: dict[Any, Process] = {}
        failures = []
        try:
            for process in processes:
                options = task.options(
                    name=process.title,
                    num_cpus=1 if process.gpu else threads,
                    num_gpus=1 if process.gpu else 0,
                    max_retries=RETRIES,
                    retry_exceptions=[Killed],
                )
                waiting[options.remote(process, str(token))] = process
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                error = _outcome(ray, done, waiting.pop(done), folder)
                if error is not None:
                    log.info("%s", error)
                    failures.append(error)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            token.unlink(missing_ok=True)
        return failures


def _run(process: Process, token: str) -> Ending:
    """On one of the machines: run a process, or raise what Ray has to know."""
    if not Path(token).is_file():
        raise FolderNotSharedError(platform.node())
    with Children() as children:
        ending = run_here(process, children, {})
    if ending.killed_by:
        raise Killed(f"{process.title} ({ending.killed_by})")
    return ending


def _outcome(ray: Any, reference: Any, process: Process, folder: Path) -> ProcessingError | None:
    try:
        return failure(process, ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, FolderNotSharedError):
            raise UserError(
                f"machine {cause} of the Ray cluster does not see the work folder",
                where=folder,
                fix="Choose a --work folder on a file system that all machines share",
            ) from error
        reason = f"{type(cause).__name__}: {cause}"
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ProcessingError(
        f"{process.title} failed on the Ray cluster ({reason})",
        where=process.log,
        fix="Finished work is kept; run the same command again to continue",
    )


def _connected() -> Any:
    """The ``ray`` module, joined to a cluster.

    Raises:
        UserError: Ray is not installed, or the cluster does not answer.
    """
    for name in _OFF:
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed", fix="Run pip install 'gc-panther[ray]', or use --engine local"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the Ray cluster does not answer ({error})", fix="Check `ray status`"
            ) from error
    return ray


def _fewest_cores(ray: Any) -> int:
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return int(min((count for count in cores if count), default=1))
