"""Processes that do not outlive the one that started them, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

#: How a process says on a line of its own why it fails (:func:`gc_panther.errors.error_line`).
ERROR = "error: "


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        code: its exit code; minus the signal's number where a signal ended it.
        reason: what its last line that begins with ``error:`` says, or empty.
    """

    code: int
    reason: str = ""

    @property
    def killed_by(self) -> str:
        """The name of the signal that ended it, or empty."""
        return signal.Signals(-self.code).name if self.code < 0 else ""


class Children:
    """Processes that are started here; none of them, nor any that they start, survives the block.

    Each leads a process group of its own, which is killed when the process or the block ends. Where
    this process is killed itself, its children read the end of their standard input; those that
    called :func:`end_with_stdin` then end their groups.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs; nothing can be started any more."""
        with self._guard:
            self._closed = True
            for process in self._running:
                _kill_group(process)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        emit: Callable[[str], None],
    ) -> Ending:
        """Run a command to its end; threads may run several at a time.

        Args:
            command: program and arguments.
            environment: all of its environment.
            emit: called with each line it writes on stdout or stderr, without the line's end.
        """
        with self._guard:
            if self._closed:
                return Ending(-signal.SIGKILL)
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                process_group=0,
            )
            self._running.add(process)
        reasons = []

        def read() -> None:
            for line in process.stdout or ():
                if line.startswith(ERROR):
                    reasons.append(line.removeprefix(ERROR).strip())
                emit(line.rstrip("\n"))

        # A thread, because what the process started may hold the pipe open after its end.
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            code = process.wait()
        finally:
            with self._guard:
                _kill_group(process)
                self._running.remove(process)
            process.wait()
            reader.join()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        return Ending(code, reasons[-1] if reasons else "")


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_with_stdin() -> None:
    """End this process and its group when standard input ends: its starter is gone then."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass

    _end_after(wait)


def end_with_parent() -> None:
    """End this process when its parent does; for processes that ``multiprocessing`` started.

    Without it the processes of a pool whose owner was killed stay for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        _end_after(parent.join)


def _end_after(wait: Callable[[], object]) -> None:
    def watch() -> None:
        wait()
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end with the starter", daemon=True).start()
