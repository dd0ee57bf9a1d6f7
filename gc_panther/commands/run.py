"""The platform's case, from its input folder to its output folder, and the exec entry point.

It takes one case per start; :mod:`gc_panther.commands.serve` is the other one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pluggy

from gc_panther.case import Case, Result
from gc_panther.files import staged_files
from gc_panther.platform.algorithm import GrandChallengeAlgorithm, PlatformCase, find_case
from gc_panther.platform.outputs import as_json, remove_earlier_mask, remove_earlier_results
from gc_panther.progress import shown_progress
from gc_panther.session import (
    Choices,
    Engine,
    Work,
    check_sockets,
    told_to_plugins,
)
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
        GCPantherError: with what was wrong; nothing has been written then.
    """
    with told_to_plugins(manager, task) as work:
        check_sockets(task, manager)
        # The contract first: a broken input is told at once, not after the networks are loaded.
        case = find_case(task, input_path, output_path, report_path)
        with Engine(task, manager, settings, choices) as engine:
            remove_earlier_results(output_path, task)
            return process_case(engine, case, work, report_path)


def process_case(
    engine: Engine, files: PlatformCase, work: Work, report_path: Path | None = None
) -> dict[str, Any]:
    """Segment the platform's case and fill the output folder; return the run report.

    Args:
        engine: segments it.
        files: where everything lies. A mask of an earlier run in the place of this one's is
            removed first, so that it cannot be taken for it.
        work: is told the case, as soon as it has been read.
        report_path: where the run report goes, if anywhere.

    Raises:
        GCPantherError: with what was wrong; nothing has been written then.
    """
    remove_earlier_mask(files.mask_path)
    done: list[tuple[Case, Result, dict[str, Any]]] = []

    def segment(case: Case) -> Result:
        work.case = case
        logger.info("case %s: %s", case.name, _sizes(case))
        with shown_progress() as progress:
            result, report = engine.process(case, progress)
        done.append((case, result, report))
        return result

    with staged_files() as staged:
        GrandChallengeAlgorithm(files, segment, staged=staged, scratch=engine.scratch).process()
        ((case, result, report),) = done
        engine.finished(case, result, report)
        if report_path is not None:
            staged.write(report_path, as_json(report))
    return report


def _sizes(case: Case) -> str:
    return ", ".join(
        f"{slug} {'×'.join(map(str, volume.geometry.size_xyz))} voxels at "
        f"{'×'.join(f'{mm:.3g}' for mm in volume.geometry.spacing_xyz)} mm"
        for slug, volume in case.images.items()
    )
