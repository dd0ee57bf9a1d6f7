"""Locks that the operating system releases when their process ends, however it ends."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gc_panther.errors import UserError


@contextmanager
def locked(path: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file for the time of a block.

    The file says who held it last; that alone keeps nobody out.

    Args:
        path: the lock file; its folder is made.
        what: what is running there, such as "a training", for the error.
        wait: seconds in which another holder may end.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not filelock's substitute for systems without locks, which outlives a process that is killed.
    lock = FileLock(path, timeout=wait, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{what} is already running here ({_holder(path)})",
            where=path.parent,
            fix="Wait for its end or stop it; or choose another --work folder",
        ) from error
    except OSError as error:
        raise UserError(
            f"the lock cannot be taken ({error.strerror})",
            where=path,
            fix="Choose a --work folder that can be written, on a file system with locks",
        ) from error
    try:
        holder = {"process": os.getpid(), "machine": platform.node()}
        path.write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['machine']}"
    except (OSError, ValueError, KeyError, TypeError):
        # It has the lock, but has not written yet.
        return "process unknown"
