"""A signal to stop is noted, and the work stops at its next safe point.

A handler that raises does so wherever Python happens to be, also inside a callback that swallows
the exception: the work then goes on as if nobody had asked. The handlers here only note the signal.
Code that can stop without leaving half of anything behind calls :func:`check`.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MESSAGES = {
    int(signal.SIGINT): "interrupted",
    int(signal.SIGTERM): "terminated by the platform or a person",
}
#: The signals that have come; a process has one set of handlers.
_noted: list[int] = []


class Interrupted(BaseException):
    """The work stops because a signal asked for it.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(_MESSAGES[number])
        self.number = number

    @property
    def exit_code(self) -> int:
        """The shell's convention: 130 or 143."""
        return 128 + self.number


def check() -> None:
    """Stop here if a signal has asked for it; to be called at every safe point.

    Raises:
        Interrupted: SIGINT or SIGTERM has come.
    """
    if _noted:
        raise Interrupted(_noted[0])


@contextmanager
def signals_noted() -> Iterator[None]:
    """Note SIGINT and SIGTERM inside the block; a second one ends the process at once.

    Only the main thread can set handlers: in another thread the block changes nothing. A signal
    that is ignored, such as SIGINT in a shell's background job, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _noted.clear()
    # Python calls a handler between two of its own instructions only, and once for several equal
    # signals that came during a long computation. The descriptor gets each of them at once.
    received, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    watcher = threading.Thread(target=_end_at_the_second, args=(received,), daemon=True)
    watcher.start()
    descriptor_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, _note)
        for number in _MESSAGES
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(descriptor_before)
        os.close(wakeup)
        watcher.join()
        os.close(received)
        _noted.clear()


def stopping_at_safe_points(work: Callable[P, T]) -> Callable[P, T]:
    """Run a function inside :func:`signals_noted`."""

    @functools.wraps(work)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        with signals_noted():
            return work(*arguments, **options)

    return run


def _note(number: int, _frame: FrameType | None) -> None:
    _noted.append(number)


def _end_at_the_second(received: int) -> None:
    """Read signals' numbers until the pipe is closed; end the process at the second one."""
    signals = 0
    while numbers := os.read(received, 64):
        for number in numbers:
            signals += number in _MESSAGES
            if signals == 2:
                os.write(2, f"error: {_MESSAGES[number]}, at once\n".encode())
                os._exit(128 + number)
