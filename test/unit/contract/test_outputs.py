"""What may be written, and how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther.case import Geometry, Segmentation, Volume
from gc_panther.contract.outputs import check_mask, check_output_folder, write_json, write_mask
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
    path = write_mask(Segmentation(mask()), exact, tmp_path / "deep/er", "m.mha")
    image = sitk.ReadImage(str(path))
    assert image.GetSpacing() == pytest.approx(exact.spacing_xyz, abs=1e-9)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert "CompressedData = True" in path.read_bytes()[:500].decode("latin-1")
    assert [entry.name for entry in path.parent.iterdir()] == ["m.mha"]


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
