"""Signals for tests in this process."""

import signal


def deliver(number: int) -> None:
    """Call a signal's handler, as Python does when the signal has come.

    The signal itself would end the tests' process wherever no handler is installed. Real ones are
    sent in test/unit/test_interruption.py.
    """
    handler = signal.getsignal(number)
    assert callable(handler), f"{signal.Signals(number).name} is not handled here"
    handler(number, None)
