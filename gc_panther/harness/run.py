"""The exec door: one case per start, from the platform's input folder to its output folder."""

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
    done: list[tuple[Engine, Case, Segmentation, dict[str, Any]]] = []

    def segment(case: Case) -> Segmentation:
        logger.info("case %s: %s", case.name, _sizes(case))
        with shown_progress() as progress:
            segmentation, report = engine.process(case, progress)
        done.append((engine, case, segmentation, report))
        return segmentation

    with told_to_plugins(manager, task):
        # The contract first: a broken input is told at once, not after the networks are loaded.
        algorithm = GrandChallengeAlgorithm(
            task, segment, input_path=input_path, output_path=output_path
        )
        with Engine(task, manager, settings, choices) as engine:
            algorithm.process()
            _, case, segmentation, report = done[-1]
            engine.finished(case, segmentation, report)
    if report_path is not None:
        write_json(report, report_path)
    return report


def _sizes(case: Case) -> str:
    return ", ".join(
        f"{slug} {'×'.join(map(str, volume.geometry.size_xyz))} voxels at "
        f"{'×'.join(f'{mm:.3g}' for mm in volume.geometry.spacing_xyz)} mm"
        for slug, volume in case.images.items()
    )
