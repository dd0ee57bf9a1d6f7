"""Cohorts on a folder that has results: what is kept, what is made again, what is refused."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import deliver

from gc_panther.commands import cohort, cohort_record
from gc_panther.commands.cohort import LOCK
from gc_panther.imaging.images import read_image
from gc_panther.report import overlay
from gc_panther.task import ModelRequirement

CommandLine = Callable[[list[str]], int]
NAMES = ("a/one.nii.gz", "two.mha")


@pytest.fixture
def images(tmp_path: Path, write_volume: Callable[..., Path]) -> Path:
    """Two images."""
    for number, name in enumerate(NAMES):
        array = np.random.default_rng(number).integers(0, 500, (4, 5, 6)).astype(np.int16)
        write_volume(tmp_path / "images" / name, array)
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures are drawn, and no memory is collected; both are tested elsewhere."""

    def save(image: Any, mask: Any, path: Path, **more: Any) -> None:
        path.write_bytes(mask.array_zyx.tobytes())

    monkeypatch.setattr(overlay, "save_overlay", save)
    monkeypatch.setattr(cohort, "release_memory", lambda: None)


@pytest.fixture
def masks(images: Path) -> Path:
    """Where the masks go."""
    return images.parent / "masks"


@pytest.fixture
def segment(toy_command_line: CommandLine, images: Path, masks: Path) -> Callable[..., int]:
    """Run a cohort and return its exit code."""

    def run(*more: str, folder: Path = images, task: str = "toy") -> int:
        arguments = ["cohort", task, str(folder), "-o", str(masks), "--device", "cpu", *more]
        return toy_command_line(arguments)

    return run


def rows_of(masks: Path) -> dict[str, dict[str, str]]:
    with (masks / "cohort.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def statuses(masks: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in rows_of(masks).items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def results(masks: Path) -> dict[str, Any]:
    """All results, without what differs from run to run: the seconds, and who made them."""
    found: dict[str, Any] = dict(contents(masks))
    for name in [name for name in found if name.endswith(".json")]:
        found[name] = {**json.loads(found[name]), "seconds": None}
    found["cohort.csv"] = {
        name: {**row, "seconds": "", "status": ""} for name, row in rows_of(masks).items()
    }
    return found


# Two at once


def test_a_second_cohort_on_a_folder_is_refused(
    segment: Callable[..., int], toy_plugin: Any, images: Path, masks: Path, capfd: Any
) -> None:
    codes = []

    def meanwhile(mask: np.ndarray) -> np.ndarray:
        if len(toy_plugin.runs) == 2:
            codes.extend([segment("--overwrite"), segment("--continue"), segment()])
        return mask

    toy_plugin.change = meanwhile
    assert segment() == 0
    assert codes == [2, 2, 2]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(f"another cohort is running in this folder: {masks}" in line for line in lines)
    assert statuses(masks) == dict.fromkeys(NAMES, "done")
    assert len(contents(masks)) == 2 * 2 + 1


def test_a_killed_process_blocks_no_other(segment: Callable[..., int], masks: Path) -> None:
    masks.mkdir()
    script = (
        "import sys, filelock\n"
        "lock = filelock.FileLock(sys.argv[1])\n"
        "lock.acquire()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(masks / LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert segment() == 2
        other.kill()
    assert segment() == 0


# Other images


def test_a_run_with_part_of_the_images_keeps_the_rows_of_the_others(
    segment: Callable[..., int], images: Path, masks: Path
) -> None:
    assert segment() == 0
    before = rows_of(masks)
    part = shutil.copytree(images, images.parent / "part")
    (part / NAMES[1]).unlink()
    assert segment("--continue", folder=part) == 0
    assert statuses(masks) == {NAMES[0]: "kept", NAMES[1]: "done"}
    assert segment("--overwrite", folder=part) == 0
    assert rows_of(masks)[NAMES[1]] == before[NAMES[1]]


def test_other_images_are_added_to_the_table(
    segment: Callable[..., int], images: Path, masks: Path, write_volume: Callable[..., Path]
) -> None:
    assert segment() == 0
    before = rows_of(masks)
    write_volume(images.parent / "more/three.nrrd")
    assert segment(folder=images.parent / "more") == 0
    rows = rows_of(masks)
    assert list(rows) == [NAMES[0], "three.nrrd", NAMES[1]]
    assert {name: rows[name] for name in NAMES} == before


def test_a_row_goes_with_the_mask_that_it_described(
    segment: Callable[..., int], images: Path, masks: Path
) -> None:
    """``two.mha`` and ``two_0000.mha`` of another folder have the same mask."""
    assert segment() == 0
    other = images.parent / "other"
    other.mkdir()
    shutil.copy(images / NAMES[1], other / "two_0000.mha")
    assert segment("--overwrite", folder=other) == 0
    assert list(rows_of(masks)) == [NAMES[0], "two_0000.mha"]


# What --continue keeps


def make_other_task(toy_plugin: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "name", "other")
    return "other"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--no-mirroring"], "other options (mirroring)"),
        (["--combine", "vote", "--step-size", "0.25"], "other options (combine, step_size)"),
        (["--time-limit", "1000"], "other options (time_limit)"),
        (["--pictures"], "the picture is missing"),
    ],
)
def test_continue_repeats_what_other_options_change(
    segment: Callable[..., int], toy_plugin: Any, masks: Path, caplog: Any, more: Any, reason: str
) -> None:
    assert segment() == 0
    with caplog.at_level(logging.INFO):
        assert segment("--continue", *more) == 0
    assert f"2 masks made again ({reason}): a/one.nii.gz, two.mha" in caplog.messages
    assert statuses(masks) == dict.fromkeys(NAMES, "done")
    assert segment("--continue", *more) == 0
    assert statuses(masks) == dict.fromkeys(NAMES, "kept")
    assert len(toy_plugin.runs) == 4


def test_continue_repeats_what_another_task_has_made(
    segment: Callable[..., int],
    toy_plugin: Any,
    masks: Path,
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert segment() == 0
    other = make_other_task(toy_plugin, monkeypatch)
    with caplog.at_level(logging.INFO):
        assert segment("--continue", task=other) == 0
    assert "another task (other instead of toy)" in caplog.text
    assert {row["task"] for row in rows_of(masks).values()} == {"other"}
    monkeypatch.setattr(cohort_record, "__version__", "99")
    with caplog.at_level(logging.INFO):
        assert segment("--continue", task=other) == 0
    assert "another version" in caplog.text
    assert len(toy_plugin.runs) == 6


def test_continue_repeats_what_other_weights_have_made(
    segment: Callable[..., int],
    toy_plugin: Any,
    masks: Path,
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "models", (ModelRequirement("toy", ()),))
    model = tmp_path / "models/toy"
    model.mkdir(parents=True)
    (model / "plans.json").write_text("{}")
    assert segment("--model-dir", str(tmp_path / "models")) == 0
    before = rows_of(masks)
    (model / "plans.json").write_text('{"changed": 1}')
    with caplog.at_level(logging.INFO):
        assert segment("--continue", "--model-dir", str(tmp_path / "models")) == 0
    assert "2 masks made again (other weights (toy))" in caplog.text
    for name, row in rows_of(masks).items():
        assert row["weights"] != before[name]["weights"]
        assert row["digest"] != before[name]["digest"]
        assert row["weights"].startswith("toy:")


def change_image(images: Path, masks: Path, write_volume: Callable[..., Path]) -> str:
    write_volume(images / NAMES[1])
    return "the image has changed"


def lose_report(images: Path, masks: Path, write_volume: Callable[..., Path]) -> str:
    (masks / "two.json").unlink()
    return "the report is missing"


def damage_report(images: Path, masks: Path, write_volume: Callable[..., Path]) -> str:
    (masks / "two.json").write_text("{")
    return "the report is missing"


def take_record(images: Path, masks: Path, write_volume: Callable[..., Path]) -> str:
    (masks / "two.json").write_text('{"schema_version": 1}')
    return "the report does not say how the mask was made"


def lose_picture(images: Path, masks: Path, write_volume: Callable[..., Path]) -> str:
    (masks / "two.png").unlink()
    return "the picture is missing"


@pytest.mark.parametrize(
    "change", [change_image, lose_report, damage_report, take_record, lose_picture]
)
def test_continue_repeats_only_the_case_that_needs_it(
    segment: Callable[..., int],
    images: Path,
    masks: Path,
    caplog: Any,
    write_volume: Callable[..., Path],
    change: Callable[..., str],
) -> None:
    assert segment("--pictures") == 0
    before = contents(masks)
    reason = change(images, masks, write_volume)
    with caplog.at_level(logging.INFO):
        assert segment("--continue", "--pictures") == 0
    assert f"1 mask made again ({reason}): two.mha" in caplog.messages
    assert statuses(masks) == {NAMES[0]: "kept", NAMES[1]: "done"}
    after = contents(masks)
    assert list(after) == list(before)
    assert all(after[name] == before[name] for name in before if name.startswith("a/"))
    given = read_image(images / NAMES[1]).array_zyx
    assert np.array_equal(read_image(masks / NAMES[1]).array_zyx, given > 250)


def test_an_image_in_two_files_is_known_by_its_pixels(
    segment: Callable[..., int], images: Path, masks: Path
) -> None:
    (images / NAMES[0]).unlink()
    (images / NAMES[1]).unlink()
    header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
    (images / "x.mhd").write_text(f"{header}ElementSpacing = 1 1 1\nElementDataFile = x.raw\n")
    (images / "x.raw").write_bytes(bytes(8))
    assert segment() == 0
    assert segment("--continue") == 0
    assert statuses(masks) == {"x.mhd": "kept"}
    (images / "x.raw").write_bytes(bytes([255] * 8))
    assert segment("--continue") == 0
    assert statuses(masks) == {"x.mhd": "done"}


# Masks of people


def test_masks_of_others_are_neither_kept_nor_replaced_by_continue(
    segment: Callable[..., int], toy_plugin: Any, masks: Path, write_volume: Any, capfd: Any
) -> None:
    write_volume(masks / "two.mha")
    before = contents(masks)
    assert segment("--continue") == 2
    said = capfd.readouterr().err
    assert "1 mask was not made by gc-panther cohort" in said
    assert "two.mha" in said
    assert contents(masks) == before
    assert not toy_plugin.runs
    assert segment("--overwrite") == 0
    assert read_image(masks / "two.mha").array_zyx.dtype == np.uint8


def test_a_mask_that_was_corrected_by_hand_is_not_replaced_by_continue(
    segment: Callable[..., int], masks: Path, write_volume: Any, capfd: Any
) -> None:
    assert segment() == 0
    write_volume(masks / "two.mha")
    corrected = contents(masks)
    for more in ([], ["--no-mirroring"]):
        assert segment("--continue", *more) == 2
        assert "changed afterwards; the first is two.mha" in capfd.readouterr().err
        assert contents(masks) == corrected


def test_a_mask_of_the_same_name_in_another_format_is_left_alone(
    segment: Callable[..., int], masks: Path, write_volume: Any
) -> None:
    write_volume(masks / "two.nii.gz")
    before = (masks / "two.nii.gz").read_bytes()
    assert segment("--overwrite") == 1
    assert "in another format" in rows_of(masks)[NAMES[1]]["error"]
    assert (masks / "two.nii.gz").read_bytes() == before
    assert sorted(contents(masks)) == ["a/one.json", "a/one.nii.gz", "cohort.csv", "two.nii.gz"]


def test_a_table_of_others_is_not_replaced(segment: Callable[..., int], masks: Path) -> None:
    masks.mkdir()
    for text in ("patient,age\n1,70\n", "image;status\na;b\n"):
        (masks / "cohort.csv").write_text(text)
        assert segment() == 2
        assert contents(masks) == {"cohort.csv": text.encode()}


# --overwrite


def test_overwrite_leaves_the_mask_of_an_image_that_cannot_be_read(
    segment: Callable[..., int], images: Path, masks: Path, write_volume: Any
) -> None:
    assert segment("--pictures") == 0
    before = contents(masks)
    (images / NAMES[1]).write_bytes(b"damaged")
    assert segment("--overwrite", "--pictures") == 1
    after = contents(masks)
    assert all(after[name] == before[name] for name in before if name.startswith("two"))
    row = rows_of(masks)[NAMES[1]]
    assert row["status"] == "failed"
    assert row["error"].endswith("The earlier mask was left as it was")
    # The earlier mask is not presented as this run's.
    assert {row[key] for key in ("foreground_ml", "seconds", "digest")} == {""}
    write_volume(images / NAMES[1])
    assert segment("--continue", "--pictures") == 0
    assert statuses(masks) == {NAMES[0]: "kept", NAMES[1]: "done"}


def test_an_old_picture_does_not_stay_beside_a_new_mask(
    segment: Callable[..., int], masks: Path
) -> None:
    assert segment("--pictures") == 0
    (masks / "notes.png").touch()
    assert segment("--overwrite") == 0
    assert [name for name in contents(masks) if name.endswith(".png")] == ["notes.png"]


# Interruptions


@contextmanager
def fault_at(step: int, error: BaseException) -> Iterator[list[str]]:
    """Let file operations fail from this number on, counted from 0.

    A full disk lets no file be written or named; of a process that was killed nothing comes any
    more, also no clearing up.
    """
    operations = ["fsync", "link", "replace"]
    if not isinstance(error, OSError):
        operations.append("unlink")
    steps: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            steps.append(name)
            if len(steps) > step:
                raise error
            return function(*arguments, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in operations:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield steps


# Two runs for each of some twenty operations take several seconds.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("overwrite", "error"),
    [(False, OSError(errno.ENOSPC, "No space left on device")), (True, KeyboardInterrupt())],
    ids=["full disk", "interrupted overwrite"],
)
def test_after_any_interruption_continue_ends_as_if_there_had_been_none(
    segment: Callable[..., int],
    toy_plugin: Any,
    masks: Path,
    images: Path,
    overwrite: bool,
    error: BaseException,
) -> None:
    # One image: each step of its way costs two runs.
    (images / NAMES[1]).unlink()
    mask, report, picture = (masks / f"a/one.{ending}" for ending in ("nii.gz", "json", "png"))
    earlier = masks.with_name("earlier")
    if overwrite:
        toy_plugin.change = np.zeros_like
        assert segment("--pictures") == 0
        toy_plugin.change = lambda mask: mask
    else:
        masks.mkdir()
    shutil.copytree(masks, earlier)
    more = ["--pictures", *(["--overwrite"] if overwrite else [])]
    assert segment(*more) == 0
    undisturbed = results(masks)

    for step in range(1000):
        shutil.rmtree(masks)
        shutil.copytree(earlier, masks)
        with fault_at(step, error) as steps:
            code = segment(*more)
        if len(steps) <= step:
            assert code == 0
            break
        assert code == (130 if isinstance(error, KeyboardInterrupt) else 1), step
        if mask.exists():
            assert report.exists(), step
            assert picture.exists(), step
        else:
            assert not overwrite, step
        # The table says that masks are to be replaced, before anything else is done.
        begun = contents(masks).get("cohort.csv") != contents(earlier).get("cohort.csv")
        assert segment("--continue", "--pictures") == 0, step
        if overwrite and not begun:
            assert set(statuses(masks).values()) == {"kept"}, step
            continue
        assert results(masks) == undisturbed, step
        assert set(statuses(masks).values()) <= {"done", "kept"}
    assert step >= 10, "a case's files take more operations"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_cohort_with_whole_cases_only(
    segment: Callable[..., int], toy_plugin: Any, masks: Path, capfd: Any, number: int
) -> None:
    def signalled(mask: np.ndarray) -> np.ndarray:
        if len(toy_plugin.runs) == 2:
            deliver(number)
        return mask

    toy_plugin.change = signalled
    assert segment("--pictures") == 128 + number
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert sorted(contents(masks)) == ["a/one.json", "a/one.nii.gz", "a/one.png", "cohort.csv"]
    assert statuses(masks) == {NAMES[0]: "done", NAMES[1]: "waiting"}
    assert segment("--continue", "--pictures") == 0
    assert statuses(masks) == {NAMES[0]: "kept", NAMES[1]: "done"}


# Names


def test_the_longest_names_have_results_or_a_row(
    segment: Callable[..., int], images: Path, masks: Path
) -> None:
    fits, too_long = "x" * 240 + ".mha", "y" * 251 + ".mha"
    shutil.copy(images / NAMES[1], images / fits)
    shutil.copy(images / NAMES[1], images / too_long)
    assert segment() == 1
    assert statuses(masks) == {**dict.fromkeys((*NAMES, fits), "done"), too_long: "failed"}
    assert "longer than 255 bytes" in rows_of(masks)[too_long]["error"]
    assert (masks / fits).is_file()


def test_a_name_that_is_not_utf8_fails_alone(
    segment: Callable[..., int], images: Path, masks: Path
) -> None:
    shutil.copy(images / NAMES[1], os.fsdecode(os.fsencode(images) + b"/a\xff.mha"))
    assert segment() == 1
    assert statuses(masks) == {**dict.fromkeys(NAMES, "done"), "a\\udcff.mha": "failed"}
    assert "not valid UTF-8" in rows_of(masks)["a\\udcff.mha"]["error"]
    assert segment("--continue") == 1
    assert len(rows_of(masks)) == 3


def test_a_broken_link_is_an_image_that_failed(
    segment: Callable[..., int], images: Path, masks: Path
) -> None:
    (images / "link.mha").symlink_to("nowhere.mha")
    assert segment() == 1
    assert statuses(masks)["link.mha"] == "failed"


def test_a_failing_plugin_fails_the_image_and_leaves_nothing(
    segment: Callable[..., int], toy_plugin: Any, masks: Path
) -> None:
    class FailsOnce:
        def keys(self) -> tuple[str, ...]:
            if len(toy_plugin.runs) == 1:
                raise ZeroDivisionError("in the hook")
            return ()

    toy_plugin.report_extra = FailsOnce()
    assert segment() == 1
    assert statuses(masks) == {NAMES[0]: "failed", NAMES[1]: "done"}
    assert sorted(contents(masks)) == ["cohort.csv", "two.json", "two.mha"]
