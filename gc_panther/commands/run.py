"""``gc-panther run``: one case per start, from the platform's input folder to its output folder.

:mod:`gc_panther.commands.serve` is the platform's other interface.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pluggy

from gc_panther.commands.flow import process
from gc_panther.platform.inputs import read_case
from gc_panther.platform.outputs import (
    platform_outputs,
    remove_earlier_mask,
    remove_earlier_results,
)
from gc_panther.session import Choices, Session, check_sockets, errors_notified
from gc_panther.settings import Settings
from gc_panther.task import Task


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
    # The contract first: a broken input is refused at once, not after the networks are loaded.
    with errors_notified(manager, task):
        check_sockets(task, manager)
        case = read_case(input_path, task)
    with errors_notified(manager, task, case):
        outputs = platform_outputs(task, case, output_path, report_path)
        with Session(task, manager, settings, choices) as session:
            remove_earlier_results(output_path, task)
            remove_earlier_mask(outputs.mask)
            return process(session, case, outputs, began=choices.started)
