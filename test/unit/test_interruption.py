"""Signals that are noted, and the points at which work stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from gc_panther import interruption
from gc_panther.interruption import Interrupted, check, signals_noted


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """SIGINT as in a terminal (it is ignored where pytest runs in the background), and a SIGTERM
    that does not end the tests' process where it comes too late.
    """
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated by the platform")],
)
def test_a_signal_stops_the_work_at_the_next_safe_point(number: int, code: int, said: str) -> None:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    went_on = False
    with pytest.raises(Interrupted, match=said) as caught, signals_noted():
        check()
        os.kill(os.getpid(), number)
        went_on = True
        check()
    assert went_on
    assert caught.value.exit_code == code
    assert {one: signal.getsignal(one) for one in handlers} == handlers
    check()


def test_a_swallowed_exception_does_not_swallow_the_signal() -> None:
    """As in a callback of a weak reference, which Python calls with nobody to raise to."""

    class Referent:
        pass

    def swallow(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    referent = Referent()
    reference = weakref.ref(referent, swallow)
    with pytest.raises(Interrupted), signals_noted():
        del referent
        assert reference() is None
        check()


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_noted():
        os.kill(os.getpid(), signal.SIGINT)
        check()


def test_in_another_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def work() -> None:
        with signals_noted():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: int) -> None:
    """The main thread computes in C code, where no handler can run."""
    code = (
        "import hashlib, os, signal, threading, time\n"
        "from gc_panther.interruption import signals_noted\n"
        f"number = {int(number)}\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def send():\n"
        "    while True:\n"
        "        os.kill(os.getpid(), number)\n"
        # Two at the same moment would be one to the kernel.
        "        time.sleep(0.01)\n"
        "with signals_noted():\n"
        "    threading.Thread(target=send, daemon=True).start()\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 128 + number
    assert done.stderr == f"error: {interruption._MESSAGES[number]}, at once\n"
