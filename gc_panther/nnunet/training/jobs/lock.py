"""Locks that the operating system releases when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gc_panther.errors import UserError


@contextmanager
def locked(path: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file for the time of a block.

    The file stays and says who held it last; that alone keeps nobody out.

    Args:
        path: the lock file; its folder is made.
        what: what is at work there, such as "a training", for the error.
        wait: seconds in which another holder may end.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with path.open("a+", encoding="utf-8") as file:
        while not _try(file.fileno(), path):
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{what} is at work here already ({_holder(path)})",
                    where=path.parent,
                    fix="Wait for its end or stop it; or choose another --work folder",
                )
            time.sleep(0.1)
        file.truncate(0)
        json.dump({"process": os.getpid(), "machine": platform.node()}, file)
        file.flush()
        yield


def _try(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"the file system has no locks ({error.strerror})",
            where=path,
            fix="Choose a --work folder on another file system",
        ) from error
    return True


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['machine']}"
    except (OSError, ValueError, KeyError, TypeError):
        # It has the lock, but has not written yet.
        return "process unknown"
