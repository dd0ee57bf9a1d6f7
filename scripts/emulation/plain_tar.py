"""Unpacks the model archive for the shim in the same way with every Python.

The shim asks for tar's data filter, which came with Python 3.11.4; Debian 12 has 3.11.2.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

_extractall = tarfile.TarFile.extractall


def _plain(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members below the archive's top level, readable by any user.

    Raises:
        tarfile.ReadError: one leads out of it, or is neither a file nor a folder. The platform
            takes links within the archive; a model needs none, and gc-panther refuses them.
    """
    for member in archive.getmembers():
        if ".." in PurePosixPath(member.name).parts:
            raise tarfile.ReadError(f"{member.name!r} leads out of its folder")
        if not (member.isfile() or member.isdir()):
            raise tarfile.ReadError(f"{member.name!r} is a link or a device")
        member.name = member.name.lstrip("/")
        member.mode = 0o755 if member.isdir() else (member.mode | 0o600) & 0o755
        if member.name:
            yield member


def extractall(archive: tarfile.TarFile, path: Any = ".", **_: Any) -> None:
    """Unpack plain files and folders; in place of ``TarFile.extractall``."""
    members = list(_plain(archive))
    if hasattr(tarfile, "data_filter"):
        _extractall(archive, path, members, filter="fully_trusted")
    else:
        _extractall(archive, path, members)


def install() -> None:
    """From now on, archives are unpacked by :func:`extractall`."""
    tarfile.TarFile.extractall = extractall  # type: ignore[method-assign, assignment]
