"""Progress of long work: a bar on a terminal, a few log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gc_panther import interruption
from gc_panther.task import Progress
from gc_panther.text import count

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

logger = logging.getLogger(__name__)

#: Seconds between two log lines of the same stage.
LOG_INTERVAL_S = 20.0


class InterruptibleProgress:
    """Another :class:`~gc_panther.task.Progress`, each step of which is a safe point.

    Args:
        shown: notified of every step.
    """

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def start(self, label: str, total: int) -> None:
        """Begin a stage, unless a signal asked the work to stop."""
        interruption.check()
        self._shown.start(label, total)

    def advance(self, steps: int = 1) -> None:
        """Count steps, and stop if a signal asked for it."""
        self._shown.advance(steps)
        interruption.check()

    def finish(self) -> None:
        """End a stage."""
        self._shown.finish()


class LoggedProgress:
    """A :class:`~gc_panther.task.Progress` in whole log lines, for logs that people read later."""

    def __init__(self) -> None:
        self._label, self._total, self._done, self._next = "", 0, 0, 0.0

    def start(self, label: str, total: int) -> None:
        """Log that a stage begins."""
        self._label, self._total, self._done = label, total, 0
        self._next = time.monotonic() + LOG_INTERVAL_S
        logger.info("%s: %s", label, count(total, "pass"))

    def advance(self, steps: int = 1) -> None:
        """Log how far the stage is, now and then."""
        self._done += steps
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_INTERVAL_S
            logger.info("%s: %d of %d", self._label, self._done, self._total)

    def finish(self) -> None:
        """Does nothing: the next stage, or the result, ends this one."""


class BarProgress:
    """A :class:`~gc_panther.task.Progress` as a Rich bar."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, label: str, total: int) -> None:
        """Show a new bar."""
        self._task = self._bars.add_task(label, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def finish(self) -> None:
        """Leave the bar where it is."""
        self._task = None


@contextmanager
def shown_progress(*, transient: bool = False) -> Iterator[Progress]:
    """The progress that suits where stdout goes.

    Args:
        transient: take the bars away at the end, where many cases follow each other.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(markup=False)
    if not console.is_terminal:
        yield LoggedProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=transient) as bars:
        yield BarProgress(bars)
