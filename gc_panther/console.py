"""Output on stdout, besides the files that a command writes."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line; a stdout that cannot be written does not make the command fail."""
    try:
        print(text, flush=True)
    except OSError:
        drop_stdout()


def drop_stdout() -> None:
    """Discard what is buffered for stdout, so that the interpreter's exit does not fail on it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
