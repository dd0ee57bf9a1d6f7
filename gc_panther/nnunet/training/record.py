"""What a work folder was begun with; a run with anything else is refused.

``recipe.json`` holds the task, the recipe and the splits, and the SHA-256 of every file that the
training depends on: the data, the model it starts from, a localizer. Digests of files whose size
and times have not changed are taken from ``digests.json``, so that resuming reads nothing again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gc_panther.errors import UserError
from gc_panther.json_files import write_json
from gc_panther.model_identity import IDENTITY_FILE
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Recipe
from gc_panther.text import count

log = logging.getLogger(__name__)

RECORD, DIGESTS = "recipe.json", "digests.json"
#: A file that changed less than this before it was read may change again within one tick of the
#: file system's clock; its digest isn't kept. Nanoseconds.
SETTLED = 2 * 10**9
#: Files of a model that decide what its networks are; its card, for example, does not.
MODEL_ENDINGS = (".json", ".pth", ".safetensors")

#: Files by name; None where a training has none of that role.
Files = Mapping[str, Path] | None


def claim(
    folder: Path,
    task: str,
    recipe: Recipe,
    request: TrainingRequest,
    files: Mapping[str, Files],
    check: Callable[[], None],
) -> None:
    """Mark a work folder as that of a recipe, splits and files.

    Args:
        folder: the work folder.
        task: name of the task.
        recipe: as chosen.
        request: preset and splits.
        files: what the training depends on, by role: ``data``, ``start``, ``localizer``.
        check: raises where the data or the splits cannot be trained on. It runs before the folder
            is marked, so that a mistake can be corrected without another folder, and not again:
            files that have changed since are refused.

    Raises:
        UserError: the folder was begun with anything else, or by a version that did not record its
            files.
    """
    path, digests = folder / RECORD, FileDigests(folder / DIGESTS)
    begun = path.is_file()
    if not begun:
        check()
    document: dict[str, Any] = {
        "task": task,
        "preset": request.preset,
        "recipe": recipe.model_dump(mode="json"),
        "splits": request.splits and _read_splits(request.splits),
        "files": {role: None if of is None else digests.of(of) for role, of in files.items()},
    }
    # As it will be read back.
    document = json.loads(json.dumps(document))
    if begun:
        _compare(json.loads(path.read_text(encoding="utf-8")), document, folder)
    else:
        write_json(path, document)
    digests.save()


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that decide what its networks are, by name."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in MODEL_ENDINGS and path.name != IDENTITY_FILE and path.is_file()
    }


class FileDigests:
    """SHA-256 of files, kept as long as a file's size and times are what they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            self._known: dict[str, list[Any]] = dict(json.loads(path.read_text(encoding="utf-8")))
        # Absent or damaged: every file is read.
        except (OSError, ValueError, TypeError):
            self._known = {}

    def of(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The digest of each file, by its name.

        Raises:
            UserError: one cannot be read.
        """
        return {name: self._digest(path) for name, path in files.items()}

    def save(self) -> None:
        """Keep what was read."""
        if self._changed:
            write_json(self._path, self._known)

    def _digest(self, path: Path) -> str:
        try:
            return self._read(path)
        except OSError as error:
            raise UserError(
                f"a file cannot be read ({error.strerror})", where=path, fix="Check it"
            ) from error

    def _read(self, path: Path) -> str:
        key = str(path.resolve())
        read_at = time.time_ns()
        status = path.stat()
        # The time of change, too: a copy can keep size and time of modification.
        times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(key)
        if isinstance(known, list) and known[:-1] == times:
            return str(known[-1])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if read_at - max(times[1:]) >= SETTLED:
            self._known[key] = [*times, digest]
            self._changed = True
        return digest


def _read_splits(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError("the splits cannot be read", where=path, fix="Check --splits") from error


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other sources than the folder was begun with.

    Raises:
        UserError: they differ; the message says in what.
    """
    if "files" not in before:
        raise UserError(
            "the work folder was begun by an earlier version of gc-panther, which did not record "
            "its data and the model it starts from",
            where=folder,
            fix="Choose another --work folder, or finish this one with the earlier version",
        )
    differences = []
    if any(before.get(key) != now[key] for key in ("task", "preset", "recipe")):
        differences.append(f"another recipe ({_recipe_difference(before, now)})")
    if before.get("splits") != now["splits"]:
        differences.append("other splits")
    names = {"data": "other data", "start": "another model to start from"}
    for role in sorted(before["files"].keys() | now["files"].keys()):
        old, new = before["files"].get(role), now["files"].get(role)
        if old != new:
            differences.append(
                f"{names.get(role, f'another {role}')} ({_file_difference(old, new)})"
            )
    if differences:
        raise UserError(
            f"the work folder was begun with {' and '.join(differences)}",
            where=folder,
            fix="Give what it was begun with, or choose another --work folder",
        )


def _recipe_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for key in ("task", "preset"):
        if before.get(key) != now[key]:
            return f"{key} {before.get(key)}"
    old, new = before.get("recipe") or {}, now["recipe"]
    return ", ".join(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))


def _file_difference(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> str:
    """How many files differ, and the first."""
    if before is None or now is None:
        return "none" if before is None else f"{count(len(before), 'file')}, none now"
    parts = {
        "changed since": sorted(n for n in before.keys() & now.keys() if before[n] != now[n]),
        "added since": sorted(now.keys() - before.keys()),
        "missing now": sorted(before.keys() - now.keys()),
    }
    found = [(what, names) for what, names in parts.items() if names]
    return "; ".join(
        f"{count(len(names), 'file')} {what}, such as {names[0]}"
        if names[1:]
        else f"{names[0]} {what}"
        for what, names in found
    )
