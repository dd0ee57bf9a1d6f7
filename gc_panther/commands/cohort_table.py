"""The cohort's table: a row per image, also of the images that this run does not touch."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gc_panther.commands.cohort_plan import result_key
from gc_panther.commands.cohort_record import SHORT, record_in, short_digest
from gc_panther.errors import OutputError, UserError
from gc_panther.files import whole_file
from gc_panther.task import Task

TABLE = "cohort.csv"
Status = Literal["waiting", "done", "kept", "failed"]

#: What spreadsheets take for a formula, also after the apostrophes that are put before it.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True)
class Outcome:
    """What became of an image: a row of the table.

    Attributes:
        name: the image.
        status: ``waiting`` (this run has not come to it), ``done``, ``kept`` (the mask was there)
            or ``failed``.
        report: the run report, where there is one.
        error: why it failed.
    """

    name: str
    status: Status
    report: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class CohortTable:
    """``cohort.csv``, read if it is there, and written as a whole.

    Args:
        folder: the folder of masks.
        task: whose labels have columns.

    Raises:
        UserError: a file of that name is there which is not a cohort's table.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.path = folder / TABLE
        labels = [name for value, name in task.labels.items() if value]
        self._labels = {f"{label}_ml": label for label in labels}
        self._columns = ["image", "status", *self._labels, "seconds", "notes", "error"]
        self._columns += ["warnings", "empty", "weights", "task", "digest"]
        self._rows: dict[str, dict[str, Any]] = {}
        for row in self._read():
            self._columns += [column for column in row if column not in self._columns]
            self._rows[result_key(row["image"])] = row

    def status(self, name: str) -> str:
        """What the table says about an image's results; empty if nothing."""
        row = self._rows.get(result_key(name), {})
        return str(row.get("status", ""))

    def put(self, outcome: Outcome) -> None:
        """Replace the row of an image, or add it; an image of the same results loses its row."""
        key = result_key(outcome.name)
        earlier = self._rows.get(key, {}) if outcome.status == "kept" else {}
        self._rows[key] = {**earlier, **self._row(outcome)}

    def write(self) -> None:
        """Write all rows in the order of the names.

        Raises:
            OutputError: the file cannot be written.
        """
        text = io.StringIO(newline="")
        rows = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        rows.writeheader()
        for row in sorted(self._rows.values(), key=lambda row: str(row["image"])):
            rows.writerow({column: _cell(value) for column, value in row.items()})
        try:
            with whole_file(self.path) as file:
                file.write(text.getvalue().encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise OutputError(
                f"the table cannot be written ({error.strerror})",
                where=self.path,
                fix="Check the folder and the free space; --continue goes on",
            ) from error

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        report, record = outcome.report, record_in(outcome.report)
        sizes = _mapping(report.get("labels"))
        return {
            "image": outcome.name,
            "status": outcome.status,
            **{
                column: _mapping(sizes.get(label)).get("volume_ml", "")
                for column, label in self._labels.items()
            },
            "seconds": _mapping(report.get("seconds")).get("segment", ""),
            "notes": _sentences(report.get("notes")),
            "error": outcome.error,
            "warnings": _sentences(report.get("warnings")),
            "empty": report.get("empty_mask", ""),
            "weights": _weights(_mapping(record.get("weights")), _mapping(report.get("models"))),
            "task": report.get("task", ""),
            "digest": short_digest(record),
        }

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise self._unknown() from error
        reader = csv.DictReader(io.StringIO(text, newline=""))
        try:
            rows = [
                {column: _plain(value) for column, value in row.items() if column} for row in reader
            ]
        except csv.Error as error:
            raise self._unknown() from error
        if not {"image", "status"} <= set(reader.fieldnames or ()) or not all(
            row["image"] for row in rows
        ):
            raise self._unknown()
        return rows

    def _unknown(self) -> UserError:
        return UserError(
            "the file is not a table of gc-panther cohort, or was changed by another program",
            where=self.path,
            fix="Move or rename it; it would be replaced",
        )


def _weights(digests: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Each model's short digest, and whether it is a demonstration."""
    texts = []
    for name, digest in digests.items():
        demonstration = _mapping(models.get(name)).get("kind") == "demonstration"
        texts.append(f"{name}:{str(digest)[:SHORT]}{' (demonstration)' if demonstration else ''}")
    return " ".join(texts)


def _cell(value: Any) -> Any:
    """A value for the file: numbers stay numbers, and no text is a formula."""
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return "" if value is None else value


def _plain(value: Any) -> str:
    """What :func:`_cell` was given, as text."""
    text = value if isinstance(value, str) else ""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sentences(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else ""
