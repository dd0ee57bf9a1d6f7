"""Where the weights are: ``--model-dir``, then the platform's folder, then the bundled ones.

``--model-dir`` may name an archive, ``model.tar.gz``, instead: what is uploaded can be tried as
it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from gc_panther.errors import WeightsError
from gc_panther.runtime.archives import is_archive, unpacked
from gc_panther.settings import Settings
from gc_panther.task import ModelRequirement, Task

#: Files by which a folder is known to be a model folder itself.
_MODEL_FILES = ("plans.json", "dataset.json")
#: The file of a weights pack that holds the digests of all others (gc_panther.nnunet.pack).
MANIFEST = "pack.json"


def weight_roots(settings: Settings, model_dir: Path | None = None) -> tuple[Path, ...]:
    """The folders weights are looked for in, the first one first.

    Raises:
        WeightsError: the chosen one is an archive that is missing, damaged or hostile.
    """
    chosen = model_dir or settings.model_dir
    if chosen is not None and is_archive(chosen):
        chosen = unpacked(chosen, settings.scratch)
    roots = (chosen, settings.platform_model_dir, settings.resources)
    return tuple(root for root in roots if root is not None)


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
        WeightsError: it is nowhere; the message says where it was looked for.
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
            return _file_digest(manifest)
        digest = hashlib.sha256()
        for name, content in sorted(_contents(folder)):
            # Neither a name nor a hexadecimal digest can hold the zero byte between them.
            digest.update(b"\0".join((os.fsencode(name), os.fsencode(content), b"")))
        return digest.hexdigest()
    except OSError as error:
        raise WeightsError(
            f"a file of the model cannot be read ({error.strerror})",
            where=error.filename or folder,
            fix="Check the folder and its permissions",
        ) from error


def _contents(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of each file at any depth, without hidden files and folders.

    Links are followed, because checkpoints are often links into a store. A folder that is reached
    again, which may be a loop, is given by its first name.
    """

    def stop(error: OSError) -> None:
        raise error

    seen: dict[tuple[int, int], str] = {}
    for root, folders, files in os.walk(folder, onerror=stop, followlinks=True):
        place = Path(root)
        name, stat = place.relative_to(folder).as_posix(), place.stat()
        first = seen.setdefault((stat.st_dev, stat.st_ino), name)
        if first != name:
            folders.clear()
            yield name, first
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (place / file for file in files if not file.startswith(".")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), _file_digest(path)


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest_of(path: str, size: int, changed_ns: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - the cache's key is the text
        return hashlib.file_digest(file, "sha256").hexdigest()
