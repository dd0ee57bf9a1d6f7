"""What is said on stdout beside the files that were asked for."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line; where stdout cannot be written, the work is not worth less without it."""
    try:
        print(text, flush=True)
    except OSError:
        drop_stdout()


def drop_stdout() -> None:
    """Let what is still to be written to stdout go nowhere: the interpreter would say so again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
