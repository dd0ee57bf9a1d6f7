"""The cohort command: a folder of images, what fails on the way, and going on after an end."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gc_panther.commands import cohort
from gc_panther.commands.cohort_plan import plan_cohort
from gc_panther.errors import UserError
from gc_panther.imaging.images import read_image

CommandLine = Callable[[list[str]], int]


@pytest.fixture
def images(tmp_path: Path, write_volume: Callable[..., Path]) -> Path:
    """Four images in three formats, and files that are none."""
    folder = tmp_path / "images"
    for number, name in enumerate(
        ("10000_0001_0000.mha", "a/scan.nii.gz", "a/b/scan.nii", "b/scan.nrrd")
    ):
        array = np.random.default_rng(number).integers(0, 500, (6, 8, 10)).astype(np.int16)
        write_volume(folder / name, array)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.mha").write_text("no image")
    return folder


def segment(command_line: CommandLine, images: Path, *more: str) -> int:
    masks = images.parent / "masks"
    return command_line(["cohort", "toy", str(images), "-o", str(masks), "--device", "cpu", *more])


def table(masks: Path) -> list[dict[str, str]]:
    with (masks / "cohort.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files_in(folder: Path) -> list[str]:
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return [name for name in found if name != cohort.LOCK]


MASKS = {
    "10000_0001_0000.mha": "10000_0001.mha",
    "a/b/scan.nii": "a/b/scan.nii.gz",
    "a/scan.nii.gz": "a/scan.nii.gz",
    "b/scan.nrrd": "b/scan.nrrd",
}


def test_every_image_gets_its_mask_report_and_row(
    toy_command_line: CommandLine, toy_plugin: Any, images: Path, capfd: Any
) -> None:
    assert segment(toy_command_line, images, "--pictures") == 0
    masks, rows = images.parent / "masks", table(images.parent / "masks")
    assert [row["image"] for row in rows] == sorted(MASKS)
    for row in rows:
        given, mask = read_image(images / row["image"]), read_image(masks / MASKS[row["image"]])
        assert mask.geometry.matches(given.geometry)
        assert np.array_equal(mask.array_zyx, given.array_zyx > 250)
        bare = str(masks / MASKS[row["image"]]).split(".", 1)[0]
        report = json.loads(Path(f"{bare}.json").read_text())
        assert Path(f"{bare}.png").read_bytes().startswith(b"\x89PNG")
        assert float(row["foreground_ml"]) == report["labels"]["foreground"]["volume_ml"] > 0
        assert (row["status"], row["notes"], row["error"]) == ("done", "a note", "")
        assert float(row["seconds"]) >= 0
    assert len(files_in(masks)) == 4 * 3 + 1
    assert "masks: 4 in" in capfd.readouterr().out
    # The networks are loaded once, and plugins hear of each case.
    assert [call[0] for call in toy_plugin.calls] == ["check", "before", "after"] * 4


def test_the_masks_have_the_names_of_the_references(
    toy_command_line: CommandLine, images: Path, tmp_path: Path, write_volume: Any, capfd: Any
) -> None:
    assert segment(toy_command_line, images) == 0
    array = np.zeros((6, 8, 10), np.uint8)
    array[2:4, 2:5, 2:6] = 1
    write_volume(tmp_path / "references" / "10000_0001.mha", array)
    arguments = ["evaluate", str(tmp_path / "masks"), str(tmp_path / "references")]
    assert toy_command_line(arguments) == 0, capfd.readouterr().err


def test_an_image_that_fails_stops_no_other_and_is_tried_again(
    toy_command_line: CommandLine, toy_plugin: Any, images: Path, write_volume: Any, capfd: Any
) -> None:
    (images / "a/b/scan.nii").write_bytes(b"damaged")
    assert segment(toy_command_line, images) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert "1 of 4 images failed, the first is a/b/scan.nii (" in said[0]
    masks = images.parent / "masks"
    assert not (masks / "a/b").exists()
    rows = {row["image"]: row for row in table(masks)}
    assert [rows[name]["status"] for name in sorted(rows)] == ["done", "failed", "done", "done"]
    assert "damaged" in rows["a/b/scan.nii"]["error"]
    assert rows["a/b/scan.nii"]["foreground_ml"] == ""

    write_volume(images / "a/b/scan.nii")
    before = (masks / "a/scan.nii.gz").stat().st_mtime_ns
    runs = len(toy_plugin.runs)
    assert segment(toy_command_line, images, "--continue") == 0
    assert len(toy_plugin.runs) == runs + 1
    assert (masks / "a/scan.nii.gz").stat().st_mtime_ns == before
    again = {row["image"]: row for row in table(masks)}
    assert [again[name]["status"] for name in sorted(again)] == ["kept", "done", "kept", "kept"]
    # What is known of a kept image is still in the table.
    assert again["a/scan.nii.gz"]["foreground_ml"] == rows["a/scan.nii.gz"]["foreground_ml"]


def test_a_fault_of_the_task_stops_no_other_image(
    toy_command_line: CommandLine, toy_plugin: Any, images: Path, capfd: Any
) -> None:
    def change(mask: np.ndarray) -> np.ndarray:
        if len(toy_plugin.runs) == 2:
            raise ZeroDivisionError("in the task")
        return mask

    toy_plugin.change = change
    assert segment(toy_command_line, images) == 1
    assert [row["status"] for row in table(images.parent / "masks")].count("done") == 3
    assert "ZeroDivisionError" in table(images.parent / "masks")[1]["error"]
    assert [call[0] for call in toy_plugin.calls].count("error") == 1


def test_masks_that_are_there_are_not_replaced_unasked(
    toy_command_line: CommandLine, toy_plugin: Any, images: Path, capfd: Any
) -> None:
    assert segment(toy_command_line, images) == 0
    masks = images.parent / "masks"
    before = {name: (masks / name).read_bytes() for name in files_in(masks)}
    toy_plugin.change = lambda mask: mask * 0
    assert segment(toy_command_line, images) == 2
    assert "4 of 4 masks are already there" in capfd.readouterr().err
    assert {name: (masks / name).read_bytes() for name in files_in(masks)} == before
    assert segment(toy_command_line, images, "--overwrite", "--continue") == 2
    assert segment(toy_command_line, images, "--overwrite") == 0
    assert read_image(masks / "b/scan.nrrd").array_zyx.max() == 0


def test_after_an_interruption_no_old_mask_passes_for_a_new_one(
    toy_command_line: CommandLine, toy_plugin: Any, images: Path, capfd: Any
) -> None:
    assert segment(toy_command_line, images) == 0
    runs = len(toy_plugin.runs)

    def stopped(mask: np.ndarray) -> np.ndarray:
        if len(toy_plugin.runs) == runs + 2:
            raise KeyboardInterrupt
        return mask * 0

    toy_plugin.change = stopped
    assert segment(toy_command_line, images, "--overwrite") == 130
    assert capfd.readouterr().err == "error: interrupted\n"
    toy_plugin.change = lambda mask: mask * 0
    assert segment(toy_command_line, images, "--continue") == 0
    masks = images.parent / "masks"
    assert [row["status"] for row in table(masks)] == ["kept", "done", "done", "done"]
    assert all(read_image(masks / mask).array_zyx.max() == 0 for mask in MASKS.values())


def test_a_full_disk_stops_the_cohort_and_keeps_what_is_done(
    toy_command_line: CommandLine,
    toy_plugin: Any,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    write = cohort.FileOutputs.write

    def full(*arguments: Any) -> Any:
        if len(toy_plugin.runs) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(cohort.FileOutputs, "write", full)
    assert segment(toy_command_line, images) == 1
    assert "the disk is full" in capfd.readouterr().err
    statuses = [row["status"] for row in table(images.parent / "masks")]
    assert statuses == ["done", "waiting", "waiting", "waiting"]
    assert len(toy_plugin.runs) == 2


@pytest.mark.parametrize(
    ("change", "masks", "said"),
    [
        (lambda folder: None, "images/masks", "among the images"),
        (lambda folder: None, "images", "among the images"),
        (lambda folder: (folder / "a/scan.mha").touch(), "masks", "the same results"),
        (lambda folder: (folder / "10000_0001.mha").touch(), "masks", "the same results"),
        (lambda folder: [p.unlink() for p in folder.rglob("*scan*")], "", ""),
        (lambda folder: [p.unlink() for p in folder.rglob("*.*")], "masks", "dcm2niix"),
        (lambda folder: folder.rename(folder.with_name("moved")), "masks", "no such folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    images: Path, change: Callable[[Path], Any], masks: str, said: str
) -> None:
    change(images)
    if not said:
        (one,) = plan_cohort(images, images.parent / "masks")
        assert one.mask == images.parent / "masks" / "10000_0001.mha"
        return
    with pytest.raises(UserError) as caught:
        plan_cohort(images, images.parent / masks)
    assert said in str(caught.value)
