"""Which images a cohort has, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gc_panther.commands.cohort_plan import Planned, plan_cohort, printable, result_key
from gc_panther.errors import OutputError, UserError


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a/scan_0000.nii.gz", "a/scan"),
        ("a/scan.NRRD", "a/scan"),
        ("scan.v1.mha", "scan.v1"),
        ("_0000.mha", "_0000"),
        ("notes", "notes"),
        ("/", "/"),
    ],
)
def test_images_of_one_result_have_one_key(name: str, key: str) -> None:
    assert result_key(name) == key


def test_names_are_printable_and_still_distinct() -> None:
    assert printable("Bäckerei 1/x.mha") == "Bäckerei 1/x.mha"
    assert printable("a\udcffb\n\x1b[31m.mha") == "a\\udcffb\\n\\x1b[31m.mha"
    assert printable("a\\n") != printable("a\n")
    assert printable(os.fsdecode(b"\xff")).encode()


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images/closed").mkdir(parents=True)
    (tmp_path / "images/x.mha").touch()
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\).*closed"):
        plan_cohort(tmp_path / "images", tmp_path / "masks")


def test_results_that_cannot_take_their_places_are_refused(tmp_path: Path) -> None:
    def check(name: str) -> None:
        Planned(name, tmp_path / name, tmp_path / name).check(tmp_path)

    check("x.mha")
    (tmp_path / "x.json").mkdir()
    with pytest.raises(OutputError, match="a folder"):
        check("x.mha")
    (tmp_path / "y.nrrd").symlink_to("nowhere")
    with pytest.raises(OutputError, match="another format"):
        check("y.mha")
    with pytest.raises(OutputError, match="longer than"):
        check("z" * 300 + ".mha")
