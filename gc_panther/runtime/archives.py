"""Model archives as they are uploaded to the platform, unpacked with distrust."""

from __future__ import annotations

import atexit
import errno
import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from gc_panther.errors import WeightsError

ENDINGS = (".tar.gz", ".tgz", ".tar")
#: Weights hardly shrink; an archive that grows more than this is not an archive of weights.
MOST_GROWTH = 20
#: Bytes that even the smallest archive may unpack to: plans and cards shrink well.
_ALWAYS_ALLOWED = 64 << 20
_MOST_MEMBERS = 10_000
#: Folders within each other, and bytes of a name, that any file system takes.
_DEEPEST = 16
_LONGEST_NAME = 200
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_FIX = "Make it again with gc-panther train --export or ./do_save.sh"

_unpacked: dict[Path, Path] = {}


def is_archive(path: Path) -> bool:
    """Whether a path names an archive and not a folder."""
    return path.name.lower().endswith(ENDINGS) and not path.is_dir()


def unpacked(path: Path, scratch: Path | None = None) -> Path:
    """The folder that an archive is unpacked to, once and until this process ends.

    Args:
        path: a ``model.tar.gz``, its model folders at the top level.
        scratch: parent of the folder; the system's if None.

    Raises:
        WeightsError: it is missing or damaged, leads out of its folder, or grows beyond measure.
    """
    path = path.resolve()
    if path not in _unpacked:
        folder = Path(tempfile.mkdtemp(prefix="gc-panther-model-", dir=scratch))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        unpack(path, folder)
        _unpacked[path] = folder
    return _unpacked[path]


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive of plain files and folders, compressed by gzip or not at all.

    Raises:
        WeightsError: as :func:`unpacked`.
    """
    if not path.is_file():
        raise WeightsError("there is no such model archive", where=path)
    try:
        with _decompressed(path) as stream:
            allowed = max(_ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size)
            limited, total = _Limited(stream, allowed), 0
            # As a stream: each byte is read once, and counted, also those of long names.
            with tarfile.open(fileobj=cast("Any", limited), mode="r|", bufsize=_CHUNK) as archive:
                for count, member in enumerate(archive, 1):
                    if count > _MOST_MEMBERS:
                        raise _Refused(f"holds more than {_MOST_MEMBERS} files")
                    # The holes of a sparse file take no bytes of the stream.
                    total += max(0, member.size)
                    if total > allowed:
                        raise _TooLarge(allowed)
                    _unpack_member(archive, member, folder.resolve())
            # gzip's checksum comes last.
            while limited.read(_CHUNK):
                pass
    except _Refused as error:
        raise WeightsError(f"the model archive {error}", where=path, fix=_FIX) from error
    except OSError as error:
        # A full disk says so itself.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _damaged(path, error) from error
    # Python 3.11's tarfile lets through what it stumbles over in damaged headers.
    except (tarfile.TarError, EOFError, zlib.error, ArithmeticError, LookupError, ValueError) as e:
        raise _damaged(path, e) from e


class _Refused(Exception):
    """The archive is not one of a model; the message says what it does."""


class _TooLarge(_Refused):
    def __init__(self, limit: int) -> None:
        super().__init__(f"unpacks to far more than weights would (over {limit >> 20} MiB)")


class _Limited:
    """Reads a stream up to a limit, of bytes."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._left = self._limit = limit

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _TooLarge(self._limit)
        return content


def _decompressed(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast("BinaryIO", gzip.open(path)) if compressed else path.open("rb")


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"the model archive is damaged or incomplete ({error})", where=path, fix="Copy it again"
    )


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """Write one file or folder below ``root``.

    Raises:
        _Refused: it is something else, has an unusable name, or would lie elsewhere.
    """
    shown = ascii(member.name)[1:-1][:80]
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    # By hand: Python 3.11 knows tarfile's filters from 3.11.4 on only.
    if ".." in parts:
        raise _Refused(f"leads out of its folder ({shown})")
    if len(parts) > _DEEPEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        raise _Refused(f"holds a file with an over-long name ({shown}…)")
    if not member.name.isprintable() or member.size < 0:
        raise _Refused(f"holds a file with an unusable name or size ({shown})")
    target = root.joinpath(*parts)
    try:
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.isfile() and (content := archive.extractfile(member)) is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("xb") as file:
                shutil.copyfileobj(content, file, _CHUNK)
        else:
            raise _Refused(f"holds a link or a device ({shown})")
    except (FileExistsError, NotADirectoryError) as error:
        raise _Refused(f"holds a file twice ({shown})") from error
