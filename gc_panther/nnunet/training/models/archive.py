"""Trained models as Grand Challenge takes them: one archive, unpacked to ``/opt/ml/model``."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gc_panther.files import whole_file
from gc_panther.nnunet.model.deploy import pack_model
from gc_panther.nnunet.model.folder import open_model_folder

#: Weights hardly shrink, and higher levels take minutes for large ones.
LEVEL = 1


def write_archive(models: Mapping[str, Path], path: Path) -> Path:
    """Pack model folders into one ``.tar.gz``; the same folders give the same bytes.

    Each becomes a weights pack at the archive's top level.

    Args:
        models: model folders by the name that the task looks them up by.
        path: the archive; it appears as a whole.

    Raises:
        WeightsError: a folder is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        for name, folder in models.items():
            pack_model(open_model_folder(folder), Path(scratch) / name)
        with (
            whole_file(path) as file,
            gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name in sorted(models):
                archive.add(Path(scratch) / name, arcname=name, filter=_plain)
    return path


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs between machines; readable by any user."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
