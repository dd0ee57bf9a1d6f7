"""How the program ends: every failure is one line on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from gc_panther import interruption
from gc_panther.console import drop_stdout, say
from gc_panther.errors import (
    EXIT_OK,
    EXIT_USER,
    GCPantherError,
    UserError,
    describe,
    error_line,
)
from gc_panther.log import start_log
from gc_panther.settings import read_settings

PROGRAM = "gc-panther"
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_INTERRUPTED = 128 + signal.SIGINT


def run_program(invoke: Callable[[list[str]], int]) -> NoReturn:
    """Run the process's command line and end the process.

    Args:
        invoke: runs a command line and returns its exit code.
    """
    # Threads that spin while they wait take the cores from those of another process that have work
    # to do. Before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        start_log(read_settings().log_level)
    except UserError as error:
        sys.exit(_fail(*describe(error)))
    sys.exit(_printed(invoke(sys.argv[1:])))


def exit_code(work: Callable[[], object]) -> int:
    """Do what a command line asks for and return its exit code; a failure is one line on stderr.

    Args:
        work: the command; an integer that it returns is the exit code.
    """
    try:
        code = work()
    except interruption.Interrupted as stop:
        return _fail(str(stop), stop.exit_code)
    except (GCPantherError, KeyboardInterrupt, MemoryError, BrokenPipeError) as error:
        return _fail(*describe(error))
    except SystemExit as end:
        # Rich ends the process without a word where the reader of the output has gone.
        if isinstance(end.__context__, BrokenPipeError):
            return _fail(*describe(end.__context__))
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: say it and exit
        # Typer's own usage errors; its exception classes are not public.
        if hasattr(error, "format_message"):
            return _fail(_usage_message(error), EXIT_USER)
        say(traceback.format_exc())
        return _fail(*describe(error))
    if code == EXIT_INTERRUPTED:
        # Typer takes Ctrl-C for an end without a word.
        return _fail(describe(KeyboardInterrupt())[0], code)
    return code if isinstance(code, int) else EXIT_OK


def _usage_message(error: Any) -> str:
    """One line for a usage error of Typer's, which names the help of the command it concerns."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else PROGRAM
    message = error.format_message().strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        # Typer has printed the help; or the message is the help, where Rich is switched off.
        if message:
            print(message)
        message = "a command is missing"
    stop = "" if message.endswith((".", "?", "!")) else "."
    return f"{message}{stop} `{command} --help` shows how"


def _printed(code: int) -> int:
    """Write out the rest of stdout, and return the exit code: 1 where that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        return code or _fail(*describe(error))
    return code


def _fail(message: str, code: int) -> int:
    print(error_line(message), file=sys.stderr, flush=True)
    return code


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave through every ``finally`` block, so that nothing half-written stays."""
    print("error: terminated by the platform or a person", file=sys.stderr, flush=True)
    sys.exit(EXIT_TERMINATED)
