"""Model archives as they are uploaded to the platform, unpacked with distrust."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from gc_panther.errors import WeightsError

ENDINGS = (".tar.gz", ".tgz", ".tar")
#: Weights hardly shrink; an archive that grows more than this is no archive of weights.
MOST_GROWTH = 20
#: Bytes that even the smallest archive may unpack to: plans and cards shrink well.
_ALWAYS_ALLOWED = 64 << 20
_MOST_MEMBERS = 10_000
_FIX = "Make it anew with gc-panther train --export or ./do_save.sh"

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
    """Unpack an archive of plain files and folders.

    Raises:
        WeightsError: as :func:`unpacked`.
    """
    if not path.is_file():
        raise WeightsError("there is no such model archive", where=path)
    allowed = max(_ALWAYS_ALLOWED, MOST_GROWTH * path.stat().st_size)
    total, root = 0, folder.resolve()
    try:
        with tarfile.open(path) as archive:
            for count, member in enumerate(archive, 1):
                total += member.size
                if total > allowed or count > _MOST_MEMBERS:
                    raise WeightsError(
                        "the model archive unpacks to far more than weights would "
                        f"(over {allowed >> 20} MiB or {_MOST_MEMBERS} files)",
                        where=path,
                        fix=_FIX,
                    )
                # By hand: Python 3.11 knows tarfile's filters from 3.11.4 on only.
                target = (root / member.name.lstrip("/")).resolve()
                if not target.is_relative_to(root):
                    raise WeightsError(
                        f"the model archive leads out of its folder ({member.name})",
                        where=path,
                        fix=_FIX,
                    )
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                elif member.isfile() and (content := archive.extractfile(member)) is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with content, target.open("xb") as file:
                        shutil.copyfileobj(content, file)
                else:
                    raise WeightsError(
                        f"the model archive holds a link or a device ({member.name})",
                        where=path,
                        fix=_FIX,
                    )
    except FileExistsError as error:
        raise WeightsError(
            f"the model archive holds a file twice ({error.filename})", where=path, fix=_FIX
        ) from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise WeightsError(
            f"the model archive is damaged or incomplete ({error})", where=path, fix="Copy it again"
        ) from error
