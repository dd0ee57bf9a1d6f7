"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes its own name when the block ends well.

    At every moment ``path`` holds all of the new content or is as it was, also where the process is
    killed or the disk is full. Its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(content: bytes, path: Path) -> None:
    """Let a file appear as a whole; a process that is killed on the way leaves nothing else behind.

    The content is written to a file without a name, where the file system has such files (Linux's
    ``O_TMPFILE``), and under a temporary name elsewhere. The folder has to be there.
    """
    try:
        _publish_unnamed(content, path)
    except OSError:
        # No such files on this file system, or no /proc; a full disk says so again.
        with whole_file(path) as file:
            file.write(content)


def _publish_unnamed(content: bytes, path: Path) -> None:
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        folder = os.open("/proc/self/fd", os.O_PATH)
        try:
            # A link needs a free name. With a folder Python calls linkat, which alone follows.
            path.unlink(missing_ok=True)
            os.link(str(descriptor), path, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
