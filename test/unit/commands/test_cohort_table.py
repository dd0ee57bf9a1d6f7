"""The cohort's table: cells that are safe in a spreadsheet, and rows that stay."""

from __future__ import annotations

import csv
import types
from pathlib import Path
from typing import Any

import pytest

from gc_panther.commands.cohort_table import TABLE, CohortTable, Outcome
from gc_panther.errors import OutputError, UserError

TASK: Any = types.SimpleNamespace(labels={0: "background", 1: "tumour"})
COLUMNS = [
    *("image", "status", "tumour_ml", "seconds", "notes", "error"),
    *("warnings", "empty", "weights", "task", "digest"),
]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_report_fills_the_row(tmp_path: Path) -> None:
    report = {
        "task": "task1",
        "labels": {"tumour": {"volume_ml": 1.5}},
        "seconds": {"segment": 2.25},
        "notes": ["One.", "Two."],
        "warnings": ["The image has few grey levels.", "Demonstration weights."],
        "empty_mask": "kept empty",
        "mask_sha256": "b",
        "models": {"task1": {"kind": "demonstration"}, "mr": {"kind": None}},
        "provenance": {
            "image": "a",
            "weights": {"task1": "0123456789abcdef", "mr": "fedcba9876543210"},
        },
    }
    table = CohortTable(tmp_path, TASK)
    table.put(Outcome("x.mha", "done", report))
    table.write()
    (row,) = rows_of(tmp_path)
    assert list(row) == COLUMNS
    assert len(row.pop("digest")) == 12
    assert list(row.values()) == [
        *("x.mha", "done", "1.5", "2.25", "One. Two.", ""),
        "The image has few grey levels. Demonstration weights.",
        "kept empty",
        "task1:0123456789ab (demonstration) mr:fedcba987654",
        "task1",
    ]


def test_the_digest_is_of_what_a_mask_was_made_of(tmp_path: Path) -> None:
    table = CohortTable(tmp_path, TASK)
    for name, image, mask in (("1", "a", "b"), ("2", "a", "c"), ("3", "d", "b")):
        report = {"provenance": {"image": image}, "mask_sha256": mask}
        table.put(Outcome(name, "done", report))
    table.write()
    first, same, other = (row["digest"] for row in rows_of(tmp_path))
    assert first == same != other


@pytest.mark.parametrize("name", ["=1+1.mha", "+1.mha", "-1.mha", "@x.mha", "'=1.mha", "''-.mha"])
def test_no_name_is_a_formula_and_every_name_is_found_again(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        table = CohortTable(tmp_path, TASK)
        table.put(Outcome(name, "failed", error="=cmd()"))
        table.put(Outcome("'plain'.mha", "done"))
        table.write()
    rows = rows_of(tmp_path)
    assert {row["image"] for row in rows} == {f"'{name}", "'plain'.mha"}
    assert {row["error"] for row in rows} == {"'=cmd()", ""}
    assert CohortTable(tmp_path, TASK).status(name) == "failed"


def test_rows_and_columns_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(
        "\ufeffimage,status,pancreas_ml,remark\na.mha,done,3.5,seen\nb.mha,done,4.5,seen\n"
        "c.mha,done,1,seen\n",
        encoding="utf-8",
    )
    table = CohortTable(tmp_path, TASK)
    table.put(Outcome("b_0000.mha", "done"))
    table.put(Outcome("c.mha", "kept"))
    table.write()
    first, second, third = rows_of(tmp_path)
    assert list(first) == [*COLUMNS, "pancreas_ml", "remark"]
    assert (first["status"], first["pancreas_ml"], first["remark"]) == ("done", "3.5", "seen")
    # A new mask has neither the earlier one's volumes nor a person's remark about it.
    assert (second["image"], second["pancreas_ml"], second["remark"]) == ("b_0000.mha", "", "")
    assert (third["status"], third["remark"]) == ("kept", "seen")


@pytest.mark.parametrize(
    "content",
    [b"patient,age\n1,70\n", b"image;status\na;b\n", b"image,status\n,done\n", b"\xff\xfe", b""],
)
def test_a_file_that_is_not_a_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TABLE).write_bytes(content)
    with pytest.raises(UserError, match="not a table of gc-panther cohort"):
        CohortTable(tmp_path, TASK)


def test_strange_reports_make_empty_cells(tmp_path: Path) -> None:
    table = CohortTable(tmp_path, TASK)
    report = {"labels": [1], "seconds": None, "notes": "x", "provenance": 3, "empty_mask": None}
    table.put(Outcome("x.mha", "kept", report))
    table.write()
    (row,) = rows_of(tmp_path)
    assert set(row.values()) == {"x.mha", "kept", ""}


def test_a_table_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    table = CohortTable(tmp_path, TASK)
    (tmp_path / TABLE).mkdir()
    with pytest.raises(OutputError, match="the table cannot be written"):
        table.write()
