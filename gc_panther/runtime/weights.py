"""Where the weights are: ``--model-dir``, then the platform's folder, then the bundled ones.

``--model-dir`` may name an archive, ``model.tar.gz``, instead: what is uploaded can be tried as
it is.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gc_panther.errors import WeightsError
from gc_panther.model_identity import (
    MANIFEST,
    ModelIdentity,
    demonstration_warning,
    read_identity,
)
from gc_panther.runtime.archives import is_archive, unpacked
from gc_panther.settings import Settings
from gc_panther.task import ModelRequirement, Task

#: Files by which a folder is known to be a model folder itself.
_MODEL_FILES = ("plans.json", "dataset.json")
#: Files that are read at the same time for a digest.
_READERS = 4


def weight_roots(settings: Settings, model_dir: Path | None = None) -> tuple[Path, ...]:
    """The folders to search for weights, in order.

    Args:
        settings: the platform's folder, the bundled weights, and the scratch folder.
        model_dir: a folder or an archive that takes precedence over them.

    Raises:
        WeightsError: the chosen one cannot be read, or is an archive that is missing, damaged or
            hostile.
    """
    chosen = model_dir
    if chosen is not None:
        _refuse_unusable(chosen)
        if is_archive(chosen):
            chosen = unpacked(chosen, settings.scratch)
    roots = (chosen, settings.platform_model_dir, settings.resources)
    return tuple(root for root in roots if root is not None)


def _refuse_unusable(path: Path) -> None:
    """Refuse a loop of links, or a name that is too long; what is missing is found out later."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise WeightsError(
            f"the chosen model folder cannot be read ({error.strerror})", where=path
        ) from error


def find_models(task: Task, roots: tuple[Path, ...], *, explicit: bool) -> dict[str, Path]:
    """Find the folder of every model a task needs.

    Only the place is decided here; the task opens the folder and refuses an incomplete one, so
    that a broken folder is reported and not passed over for the next root.

    Args:
        task: whose models.
        roots: folders in the order of :func:`weight_roots`.
        explicit: the first root was named by the user and has to hold at least one of the models.

    Returns:
        The model folders by requirement name.

    Raises:
        WeightsError: a model is nowhere.
    """
    if explicit and not any(_candidates(roots[0], model, task) for model in task.models):
        raise WeightsError(
            f"the chosen folder holds none of the models of {task.name} "
            f"({', '.join(model.name for model in task.models)})",
            where=roots[0],
            fix=f"Expected {roots[0] / task.models[0].name / 'plans.json'}",
        )
    return {model.name: find_model(model, roots, task) for model in task.models}


def find_model(model: ModelRequirement, roots: tuple[Path, ...], task: Task) -> Path:
    """Find the folder of one model.

    Raises:
        WeightsError: it was not found; the message names the folders that were searched.
    """
    for root in roots:
        for folder in _candidates(root, model, task):
            return folder
    raise WeightsError(
        f"there are no weights {model.name!r}",
        where=", ".join(str(root / model.name) for root in roots),
        fix=model.source,
    )


def _candidates(root: Path, model: ModelRequirement, task: Task) -> list[Path]:
    return list(_possible(root, model, task))


def _possible(root: Path, model: ModelRequirement, task: Task) -> Iterator[Path]:
    if (root / model.name).is_dir():
        yield root / model.name
    # A task with one model may be given that model's folder itself.
    elif len(task.models) == 1 and any((root / name).is_file() for name in _MODEL_FILES):
        yield root


@dataclass(frozen=True)
class ModelRecord:
    """A model that is used: where it is, what it says about itself, and which one exactly it is.

    Attributes:
        path: its folder.
        identity: what it says.
    """

    path: Path
    identity: ModelIdentity
    _digest: Future[str]

    @property
    def digest(self) -> str:
        """:func:`model_digest` of the folder; waits until it is known.

        Raises:
            WeightsError: a file cannot be read.
        """
        return self._digest.result()

    def facts(self) -> dict[str, Any]:
        """JSON-compatible facts for the report."""
        return {
            "path": str(self.path),
            "digest": self.digest,
            "kind": self.identity.kind or "unknown origin",
            **self.identity.model_dump(include={"title", "licence", "model_card"}),
        }


def model_records(models: Mapping[str, Path]) -> dict[str, ModelRecord]:
    """Describe model folders; their digests are computed in the background.

    Raises:
        WeightsError: what a folder says about itself cannot be read.
    """
    records = {}
    for name, path in models.items():
        digest: Future[str] = Future()
        records[name] = ModelRecord(path, read_identity(path), digest)
        # A daemon: a run that fails does not wait for digests that nobody will see.
        threading.Thread(target=_fulfil, args=(digest, path), daemon=True).start()
    return records


def model_warnings(records: Mapping[str, ModelRecord]) -> tuple[str, ...]:
    """The warnings that accompany every result of these models."""
    names = [name for name, record in records.items() if record.identity.kind == "demonstration"]
    return (demonstration_warning(names),) if names else ()


def _fulfil(digest: Future[str], folder: Path) -> None:
    try:
        digest.set_result(model_digest(folder))
    except BaseException as error:  # noqa: BLE001 - raised where the digest is asked for
        digest.set_exception(error)


def model_digest(folder: Path) -> str:
    """The SHA-256 of a model's files, hexadecimal: the same only for the same model.

    A weights pack's is that of its manifest, which holds the digests of its other files; they are
    checked when the files are read. Of any other folder all files are read, hidden ones excepted,
    wherever they lie in it. A file is not read again in this process while its path, size and time
    of change stay the same.

    Raises:
        WeightsError: a file cannot be read.
    """
    manifest = folder / MANIFEST
    try:
        if manifest.is_file():
            return _content_digest(manifest)
        digest = hashlib.sha256()
        contents = sorted(_contents(folder))
        with ThreadPoolExecutor(_READERS) as readers:
            digests = readers.map(_content_digest, (content for _, content in contents))
            for (name, _), content in zip(contents, digests, strict=True):
                # Neither a name nor a hexadecimal digest can hold the zero byte between them.
                digest.update(b"\0".join((os.fsencode(name), content.encode(), b"")))
        return digest.hexdigest()
    except OSError as error:
        raise WeightsError(
            f"a file of the model cannot be read ({error.strerror})",
            where=error.filename or folder,
            fix="Check the folder and its permissions",
        ) from error


def _contents(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each file at any depth, without hidden files and folders.

    Links are followed, because checkpoints are often links into a store. A folder that is reached
    again, which may be a loop, is given by its first path.
    """

    def stop(error: OSError) -> None:
        raise error

    seen: dict[tuple[int, int], Path] = {}
    for root, folders, files in os.walk(folder, onerror=stop, followlinks=True):
        place = Path(root)
        stat = place.stat()
        first = seen.setdefault((stat.st_dev, stat.st_ino), place)
        if first is not place:
            folders.clear()
            yield place.relative_to(folder).as_posix(), first
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (place / file for file in files if not file.startswith(".")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _content_digest(path: Path) -> str:
    """The digest of a file; of a folder that was reached twice, of its name."""
    if path.is_dir():
        return hashlib.sha256(os.fsencode(path.name)).hexdigest()
    stat = path.stat()
    return _digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest_of(path: str, size: int, changed_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
