"""What may be written, and how."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther import files
from gc_panther.case import Geometry, Segmentation, Volume
from gc_panther.contract.outputs import (
    check_mask,
    check_output_folder,
    encode_mask,
    publish_case,
    write_json,
)
from gc_panther.errors import OutputError

GRID = Geometry((4, 3, 2), (1.0, 1.5, 3.0), (7.0, 8.0, 9.0))


def mask(dtype: Any = np.uint8, value: int = 1, geometry: Geometry = GRID) -> Volume:
    return Volume(np.full(geometry.shape_zyx, value, dtype), geometry)


def test_a_sound_mask_passes(toy_plugin: Any) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    check_mask(mask(), GRID, task)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (mask(np.float32), "float32"),
        (mask(value=2), r"values \[2\]"),
        (mask(geometry=replace(GRID, origin_xyz=(7.0, 8.0, 9.1))), "image's grid"),
        (mask(geometry=replace(GRID, size_xyz=(4, 3, 3))), "image's grid"),
    ],
)
def test_an_unsound_mask_is_refused(toy_plugin: Any, wrong: Volume, said: str) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    with pytest.raises(OutputError, match=said):
        check_mask(wrong, GRID, task)


def test_the_mask_gets_the_images_geometry_to_the_last_digit(tmp_path: Path) -> None:
    exact = replace(GRID, spacing_xyz=(1.0 + 4e-5, 1.5, 3.0))
    path = tmp_path / "deep/er/m.mha"
    publish_case(encode_mask(Segmentation(mask()), exact), path, [{"x": 1}], tmp_path / "r.json")
    image = sitk.ReadImage(str(path))
    assert image.GetSpacing() == pytest.approx(exact.spacing_xyz, abs=1e-9)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert "CompressedData = True" in path.read_bytes()[:500].decode("latin-1")
    assert [entry.name for entry in path.parent.iterdir()] == ["m.mha"]
    assert json.loads((tmp_path / "r.json").read_text()) == [{"x": 1}]
    assert path.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_process_killed_at_any_moment_leaves_no_half_of_a_case(
    unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends a process before each of its calls that touch the file system."""
    if not unnamed:

        def refuse(*_: Any) -> None:
            raise OSError("no unnamed files here")

        monkeypatch.setattr(files, "_publish_unnamed", refuse)
    content, results = b"all of the mask" * 1000, {"all": "of it"}
    moments = 0
    while True:
        folder = tmp_path / str(moments)
        mask_path, results_path = folder / "images" / "m.mha", folder / "results.json"
        child = os.fork()
        if child == 0:
            left = iter(range(moments))

            def end(event: str, _: Any, left: Any = left) -> None:
                if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir"):
                    next(left, None) is not None or os._exit(9)

            sys.addaudithook(end)
            publish_case(content, mask_path, results, results_path)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        if mask_path.exists():
            assert mask_path.read_bytes() == content
            assert json.loads(results_path.read_text()) == results
        elif results_path.exists():
            assert json.loads(results_path.read_text()) == results
        if unnamed and folder.exists():
            there = {path.name for path in folder.rglob("*") if path.is_file()}
            assert there <= {"m.mha", "results.json"}
        moments += 1
    assert moments > 5
    assert mask_path.read_bytes() == content


def test_other_files_in_the_output_are_not_deleted_but_refused(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "absent", "m.mha")
    (tmp_path / "m.mha").touch()
    check_output_folder(tmp_path, "m.mha")
    (tmp_path / "other.mha").touch()
    with pytest.raises(OutputError, match=r"other files \(other.mha\)"):
        check_output_folder(tmp_path, "m.mha")
    assert (tmp_path / "other.mha").exists()


def test_json_is_utf8_and_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "results.json"
    write_json([{"größe": float("nan"), "b": (1, float("-inf"))}], path)
    assert json.loads(path.read_text(encoding="utf-8")) == [{"größe": None, "b": [1, None]}]
    assert "größe" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]
