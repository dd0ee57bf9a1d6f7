"""Runs seeded cases in child processes, so that a crash is one failure and not the end.

A check is a callable that takes a ``random.Random``, makes one case of it, and raises where the
outcome is wrong. Each case has its own generator, made of the seed and the case's number, so that a
failure can be repeated alone::

    check(random_of(seed=0, case=4711))

The number of cases comes from ``GC_PANTHER_FUZZ_CASES``; ``-s`` shows the progress::

    GC_PANTHER_FUZZ_CASES=10000 ./run_tests.sh --all -s test/fuzz/test_images.py
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

#: Environment variable with the number of cases that each fuzz test runs.
CASES_VARIABLE = "GC_PANTHER_FUZZ_CASES"
#: Cases that one child process runs; a new one forgets what earlier cases left behind.
BATCH = 100
#: A case that takes so long, in seconds, hangs.
PATIENCE_S = 120.0
#: The same for a process between cases, which on a busy machine is slow to start.
BETWEEN_CASES_S = 120.0

Check = Callable[[random.Random], object]


@dataclass(frozen=True)
class Failure:
    """A case with a wrong outcome.

    Attributes:
        case: its number.
        seed: of the whole run.
        what: the exception with the last lines of its traceback, or how the process ended.
    """

    case: int
    seed: int
    what: str

    def __str__(self) -> str:
        return f"case {self.case} of seed {self.seed}: {self.what}"


def number_of_cases(default: int) -> int:
    """The number of cases that the environment asks for, or the default."""
    return int(os.environ.get(CASES_VARIABLE) or default)


def random_of(seed: int, case: int) -> random.Random:
    """The generator of one case."""
    return random.Random(f"{seed}/{case}")


def run_cases(
    check: Check, count: int = 300, seed: int = 0, memory_bytes: int = 2 << 30
) -> list[Failure]:
    """Run a check's cases in forked processes and collect what went wrong.

    Args:
        check: makes and checks one case; raises where the outcome is wrong.
        count: number of cases, unless the environment says another.
        seed: of the run.
        memory_bytes: what a case may allocate beyond what this process has already; more raises
            MemoryError in the case.
    """
    count = number_of_cases(count)
    failures: list[Failure] = []
    following = 0
    while following < count:
        stop = min(following + BATCH, count)
        following = _run_batch(check, range(following, stop), seed, memory_bytes, failures)
        _show_progress(following, count, len(failures))
    return failures


def _run_batch(
    check: Check, cases: range, seed: int, memory_bytes: int, failures: list[Failure]
) -> int:
    """Run cases in a child until one ends it; return the number of the case that follows."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_in_child(check, cases, seed, memory_bytes, writer)
    os.close(writer)
    hangs = False
    current: int | None = None
    with os.fdopen(reader, "rb", buffering=0) as messages:
        pending = b""
        while True:
            patience = BETWEEN_CASES_S if current is None else PATIENCE_S
            ready, _, _ = select.select([messages], [], [], patience)
            if not ready:
                hangs = True
                os.kill(child, signal.SIGKILL)
                break
            data = messages.read(1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                kind, number, text = line.decode().split(" ", 2)
                current = int(number) if kind == "start" else None
                if kind == "fail":
                    failures.append(Failure(int(number), seed, text.replace("\\n", "\n")))
    _, status = os.waitpid(child, 0)
    if current is not None:
        code = os.waitstatus_to_exitcode(status)
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        what = f"no end after {PATIENCE_S:.0f} s" if hangs else f"the process ended with {ended}"
        failures.append(Failure(current, seed, what))
        return current + 1
    if status:
        raise RuntimeError(f"a process that runs cases ended with status {status}")
    return cases.stop


def _run_in_child(
    check: Check, cases: range, seed: int, memory_bytes: int, writer: int
) -> NoReturn:
    """Run the cases one after the other and report each; never returns."""
    code = 1
    try:
        # A crash is counted, not described on pytest's terminal.
        faulthandler.disable()
        # No core files, which take seconds and disk space.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_memory(memory_bytes)
        for case in cases:
            _tell(writer, f"start {case} ")
            try:
                check(random_of(seed, case))
            except BaseException as error:  # noqa: BLE001 - whatever it is is the outcome
                _tell(writer, f"fail {case} {_shortened(error)}")
            else:
                _tell(writer, f"done {case} ")
        code = 0
    finally:
        # Without the parent's handlers and temporary folders.
        os._exit(code)


def _limit_memory(more: int) -> None:
    """Let this process allocate so many bytes more."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    used = next(int(line.split()[1]) for line in status.splitlines() if "VmData" in line) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, used + more))


def _tell(writer: int, line: str) -> None:
    message = line.replace("\n", "\\n").encode(errors="replace") + b"\n"
    while message:
        message = message[os.write(writer, message) :]


def _shortened(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:2000]} ({places})"


def _show_progress(done: int, count: int, failed: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == count else ""
        now = time.strftime("%H:%M:%S")
        print(f"\r{now} {done} of {count} cases, {failed} failed", end=end, file=sys.stderr)
