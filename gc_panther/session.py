"""A task that is loaded once, and through which cases run."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pluggy

from gc_panther import interruption
from gc_panther.case import Case, Geometry, Result, Volume
from gc_panther.deprecated import as_predictor
from gc_panther.errors import InputError, UserError, clear_memory_errors
from gc_panther.options import Options, RunOptions, as_report
from gc_panther.platform.outputs import check_outputs
from gc_panther.platform.sockets import check_served
from gc_panther.plugins import installed_versions, plugin_of
from gc_panther.progress import InterruptibleProgress
from gc_panther.report.run_report import run_report
from gc_panther.runtime.device import device_for
from gc_panther.runtime.weights import (
    ModelRecord,
    find_models,
    model_records,
    model_warnings,
    weight_roots,
)
from gc_panther.settings import Settings
from gc_panther.task import Progress, RunContext, Runtime, SilentProgress, Task

logger = logging.getLogger(__name__)

#: Of the noise that the self-test segments, (z, y, x), and mm. At 48 mm × 40 mm × 40 mm it is
#: smaller than the windows of networks for a part of the body, so it takes one window.
SELF_TEST_SHAPE = (8, 10, 10)
SELF_TEST_SPACING_XYZ = (4.0, 4.0, 6.0)

#: Kept back from a time limit for checking and writing the mask, seconds.
WRITING_S = 0.7


@dataclass(frozen=True)
class Choices:
    """What a command lets its user choose.

    Attributes:
        run: what every task has. A time limit counts from the start of the process to the mask;
            the ensembles use the folds and mirrored copies that fit, one fold without mirroring at
            least.
        options: the task's own; None takes their defaults.
        started: when the process started, on :func:`time.perf_counter`'s clock, for a command that
            runs one case; None counts from the case's beginning.
    """

    run: RunOptions = field(default_factory=RunOptions)
    options: Options | None = None
    started: float | None = None


class Clock:
    """Adds up the wall time of named stages, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the enclosed block; its beginning is a safe point."""
        interruption.check()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class Session:
    """A task with its networks loaded, for any number of cases. Use it as a context manager.

    Args:
        task: the task.
        manager: whose hooks are called.
        settings: the environment.
        choices: the command's.

    Attributes:
        task: the task.
        models: what is known of each model, by name.
        model_warnings: warnings that accompany every result of these models.
        scratch: a folder for temporary files, removed at the end.

    Raises:
        GCPantherError: device or weights are not fit for the task, or its sockets are not served.
    """

    def __init__(
        self, task: Task, manager: pluggy.PluginManager, settings: Settings, choices: Choices
    ) -> None:
        check_sockets(task, manager)
        self.task = task
        self._manager = manager
        self._run_options = choices.run
        self._options = task.Options() if choices.options is None else choices.options
        roots = weight_roots(settings, choices.run.model_dir)
        explicit = choices.run.model_dir is not None
        folders = find_models(task, roots, explicit=explicit) if task.models else {}
        self.models: Mapping[str, ModelRecord] = model_records(folders)
        run = choices.run
        self._device = device_for(task, manager, run.device, require_gpu=run.require_gpu)
        logger.info("%s on %s", task.name, self._device.description)
        for warning in self._device.warnings:
            logger.warning(warning)
        for note in self._device.notes:
            logger.info(note)
        for name, folder in folders.items():
            logger.info("weights %s: %s", name, folder)
        self.model_warnings = model_warnings(self.models)
        for warning in self.model_warnings:
            logger.warning(warning)
        clock = Clock()
        with ExitStack() as resources:
            self.scratch = Path(resources.enter_context(_scratch_folder(settings)))
            runtime = Runtime(
                device=self._device.name,
                options=self._options,
                models=folders,
                scratch=self.scratch,
            )
            with clock.stage("load"), clear_memory_errors("loading the networks"):
                self._predictor = as_predictor(task.load(runtime), task)
            self._resources = resources.pop_all()
        self._load_seconds = clock.seconds["load"]
        logger.info("loaded in %.1f s", self._load_seconds)

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the scratch folder."""
        self._resources.close()

    def run(
        self, case: Case, progress: Progress | None = None, *, began: float | None = None
    ) -> tuple[Result, dict[str, Any]]:
        """Run one case: the plugins' checks, the predictor, and the checks of its result.

        Args:
            case: the case.
            progress: shown advance; None shows nothing.
            began: since when the case's time counts, on :func:`time.perf_counter`'s clock; None
                counts from now.

        Returns:
            The result on exactly the grid of the case's first image, with all of the case's
            warnings, and the run report.

        Raises:
            GCPantherError: with what was wrong.
            Interrupted: a signal asked the work to stop.
        """
        interruption.check()
        warnings = (*self.model_warnings, *self._checked(case))
        self._manager.hook.gc_panther_before_case(task=self.task, case=case)
        clock = Clock()
        start = time.perf_counter()
        began = start if began is None else began
        deadline = None
        if self._run_options.time_limit is not None:
            deadline = began + self._run_options.time_limit - WRITING_S
        run = RunContext(InterruptibleProgress(progress or SilentProgress()), clock, deadline)
        result = self._predict(case, run, f"segmenting {case.name}")
        for note in result.notes:
            logger.info(note)
        for warning in result.warnings:
            logger.warning(warning)
        result = replace(result, warnings=(*warnings, *result.warnings))
        segmenting = time.perf_counter() - start
        report = run_report(
            self.task,
            case,
            result,
            device={
                "name": self._device.name,
                "description": self._device.description,
                "notes": [*self._device.warnings, *self._device.notes],
            },
            models={name: record.facts() for name, record in self.models.items()},
            options=as_report(self._run_options, self._options),
            versions=installed_versions(self._manager),
            seconds={
                "load": self._load_seconds,
                **clock.seconds,
                "segment": segmenting,
                "total": time.perf_counter() - began,
            },
        )
        logger.info("segmented %s in %.1f s", case.name, segmenting)
        return result, report

    def delivered(self, case: Case, result: Result, report: dict[str, Any]) -> None:
        """Notify the plugins of a result that is about to be published.

        They may add to the report. Where one of them fails, nothing is to be published.
        """
        self._manager.hook.gc_panther_after_case(
            task=self.task, case=case, result=result, report=report, segmentation=result
        )

    def self_test(self) -> None:
        """Segment noise: the networks run, and what comes back is a mask.

        Its deadline is now, so that ensembles run one fold without mirroring: start-up counts
        against the platform's time limit. No plugin is notified.

        Raises:
            GCPantherError: with what was wrong.
        """
        noise = np.random.default_rng(0).normal(300, 100, SELF_TEST_SHAPE).clip(1).astype(np.int16)
        volume = Volume(noise, Geometry(SELF_TEST_SHAPE[::-1], SELF_TEST_SPACING_XYZ))
        inputs = self.task.interfaces[0].inputs
        case = Case("self-test", {socket.slug: volume for socket in inputs})
        begin = time.perf_counter()
        run = RunContext(InterruptibleProgress(SilentProgress()), Clock(), deadline=begin)
        self._predict(case, run, "testing the networks")
        logger.info("self-test passed in %.1f s", time.perf_counter() - begin)

    def _checked(self, case: Case) -> tuple[str, ...]:
        """The plugins' warnings about a case, logged before any work: it can still be stopped.

        Raises:
            InputError: a plugin refuses the case.
        """
        hook = self._manager.hook
        refused = hook.gc_panther_check_case(task=self.task, case=case)
        problems = [problem for group in refused for problem in group]
        if problems:
            raise InputError(
                "; ".join(problems), where=next(iter(case.sources.values()), case.name)
            )
        doubted = hook.gc_panther_warn_case(task=self.task, case=case)
        warnings = tuple(warning for group in doubted for warning in group)
        for warning in warnings:
            logger.warning(warning)
        return warnings

    def _predict(self, case: Case, run: RunContext, doing: str) -> Result:
        """What the predictor returns, verified, with the image's grid to the last digit."""
        with clear_memory_errors(doing):
            result = self._predictor.predict(case, run)
        check_outputs(result, case, self.task)
        grid = next(iter(case.images.values())).geometry
        exact = {socket: Volume(mask.array_zyx, grid) for socket, mask in result.outputs.items()}
        return replace(result, outputs=exact)


def check_sockets(task: Task, manager: pluggy.PluginManager) -> None:
    """Refuse to use a task with sockets that would be ignored.

    Raises:
        PluginError: with plugin, task and sockets.
    """
    check_served(task, plugin_of(manager, task))


@contextmanager
def errors_notified(
    manager: pluggy.PluginManager, task: Task, case: Case | None = None
) -> Iterator[None]:
    """Call the on-error hook for whatever goes wrong in the block, and raise it again.

    A hook that fails itself is logged: what went wrong before it is what people need to know.

    Args:
        manager: whose hooks are called.
        task: the task.
        case: what the block is about; None where it has not been read yet.
    """
    try:
        yield
    except BaseException as error:
        try:
            manager.hook.gc_panther_on_error(task=task, error=error, case=case)
        except Exception:
            # A plugin may raise anything; the error that it was to be notified of goes on.
            logger.exception("a plugin failed when it was notified of an error")
        raise


def _scratch_folder(settings: Settings) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(
            prefix="gc_panther-", dir=settings.scratch, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise UserError(
            f"no folder for temporary files can be made ({error.strerror})",
            where=settings.scratch or "the system's folder for temporary files",
            fix="Set GC_PANTHER_SCRATCH to a folder that can be written",
        ) from error
