"""The data flow of one case, which ``run``, ``serve``, ``predict`` and ``cohort`` share.

They differ only in where a case comes from and where its outputs go.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gc_panther.case import Case, Result
from gc_panther.files import StagedFiles, staged_files
from gc_panther.json_files import as_json
from gc_panther.progress import shown_progress
from gc_panther.session import Session


class Outputs(Protocol):
    """Where the outputs of one case go."""

    @property
    def report(self) -> Path | None:
        """Where the run report goes, if anywhere."""

    def write(
        self, staged: StagedFiles, case: Case, result: Result, scratch: Path
    ) -> Mapping[str, Any]:
        """Stage the files of a result, the declared outputs first.

        Args:
            staged: gets them; what is written first appears last.
            case: the case.
            result: what :meth:`~gc_panther.session.Session.run` returned.
            scratch: a folder for temporary files.

        Returns:
            Their entries in the run report.

        Raises:
            OutputError: a file cannot be written.
        """


def process(
    session: Session,
    case: Case,
    outputs: Outputs,
    *,
    began: float | None = None,
    transient: bool = False,
) -> dict[str, Any]:
    """Run a case and publish all of its outputs, or none of them.

    Args:
        session: runs it.
        case: has been read and checked against the contract.
        outputs: where its outputs go.
        began: since when the case's time counts, on :func:`time.perf_counter`'s clock; None counts
            from now.
        transient: take progress bars away at the end, where many cases follow each other.

    Returns:
        The run report.

    Raises:
        GCPantherError: with what was wrong; all files are as they were.
        Interrupted: a signal asked the work to stop; likewise.
    """
    with staged_files() as staged:
        with shown_progress(transient=transient) as progress:
            result, report = session.run(case, progress, began=began)
        report |= outputs.write(staged, case, result, session.scratch)
        session.delivered(case, result, report)
        if outputs.report is not None:
            staged.write(outputs.report, as_json(report))
    return report
