"""The platform's case, from its input folder to its output folder, and the exec door.

The exec door takes one case per start; :mod:`gc_panther.harness.serve` is the other one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pluggy

from gc_panther.case import Case, Segmentation
from gc_panther.contract.algorithm import GrandChallengeAlgorithm
from gc_panther.contract.outputs import write_json
from gc_panther.harness.engine import Choices, Engine, told_to_plugins
from gc_panther.harness.progress import shown_progress
from gc_panther.settings import Settings
from gc_panther.task import Task

logger = logging.getLogger(__name__)


def run(
    task: Task,
    manager: pluggy.PluginManager,
    settings: Settings,
    choices: Choices,
    *,
    input_path: Path,
    output_path: Path,
    report_path: Path | None = None,
) -> dict[str, Any]:
    """Segment the case in the input folder.

    Args:
        task: the task.
        manager: the plugins.
        settings: the environment.
        choices: device, weights and inference options.
        input_path: the platform's ``/input``.
        output_path: the platform's ``/output``.
        report_path: where the run report goes, if anywhere.

    Returns:
        The run report.

    Raises:
        GCPantherError: with what was wrong; the output folder is then as if nothing had run.
    """
    with told_to_plugins(manager, task):
        # The contract first: a broken input is told at once, not after the networks are loaded.
        case = PlatformCase(task, input_path, output_path)
        with Engine(task, manager, settings, choices) as engine:
            report = case.process(engine)
    if report_path is not None:
        write_json(report, report_path)
    return report


class PlatformCase:
    """The case that lies in the platform's input folder, found and checked.

    Args:
        task: the task.
        input_path: the platform's ``/input``.
        output_path: the platform's ``/output``.

    Raises:
        GCPantherError: the input breaks the contract.
    """

    def __init__(self, task: Task, input_path: Path, output_path: Path) -> None:
        self._engine: Engine | None = None
        self._done: tuple[Case, Segmentation, dict[str, Any]] | None = None
        self._algorithm = GrandChallengeAlgorithm(
            task, self._segment, input_path=input_path, output_path=output_path
        )

    def process(self, engine: Engine) -> dict[str, Any]:
        """Segment it and fill the output folder; return the run report.

        Raises:
            GCPantherError: with what was wrong; the output folder is then as if nothing had run.
        """
        self._engine = engine
        self._algorithm.process()
        assert self._done is not None, "evalutils calls _segment"  # noqa: S101
        case, segmentation, report = self._done
        engine.finished(case, segmentation, report)
        return report

    def _segment(self, case: Case) -> Segmentation:
        assert self._engine is not None, "process() was called"  # noqa: S101
        logger.info("case %s: %s", case.name, _sizes(case))
        with shown_progress() as progress:
            segmentation, report = self._engine.process(case, progress)
        self._done = (case, segmentation, report)
        return segmentation


def _sizes(case: Case) -> str:
    return ", ".join(
        f"{slug} {'×'.join(map(str, volume.geometry.size_xyz))} voxels at "
        f"{'×'.join(f'{mm:.3g}' for mm in volume.geometry.spacing_xyz)} mm"
        for slug, volume in case.images.items()
    )
