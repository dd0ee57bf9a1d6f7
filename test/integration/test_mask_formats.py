"""Masks only where they lie on the image: checked before any work, through the commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CommandLine = Callable[[list[str]], int]
OTHERS = ("vtk", "gipl", "tif", "png", "dcm", "stl", "jpg", "mhd", "nhdr")
#: Sheared by so little that an image passes, and by more than NIfTI can hold.
SHEARED = (1.0, 4e-4, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("ending", OTHERS)
def test_predict_writes_no_format_in_which_a_mask_would_lie_elsewhere(
    ending: str,
    toy_command_line: CommandLine,
    toy_plugin: Any,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    capfd: Any,
) -> None:
    image = write_volume(tmp_path / "scan.mha")
    mask = tmp_path / f"mask.{ending}"
    assert toy_command_line(["predict", "toy", str(image), "-o", str(mask)]) == 2
    assert f"masks are not written as .{ending}: {mask}" in capfd.readouterr().err
    assert not toy_plugin.runs
    assert list(tmp_path.iterdir()) == [image]


def test_predict_says_where_nifti_cannot_hold_the_grid(
    toy_command_line: CommandLine,
    toy_plugin: Any,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    capfd: Any,
) -> None:
    image = write_volume(tmp_path / "scan.mha", direction=SHEARED)
    mask = tmp_path / "mask.nii.gz"
    assert toy_command_line(["predict", "toy", str(image), "-o", str(mask)]) == 2
    said = capfd.readouterr().err
    assert "cannot hold the image's grid (a voxel would lie" in said
    assert "Choose .mha" in said
    assert not toy_plugin.runs
    assert toy_command_line(["predict", "toy", str(image), "-o", str(tmp_path / "m.mha")]) == 0


@pytest.mark.parametrize("name", [b"M\xfcller.nii.gz", b"\xff.mha", b"n" * 251 + b".mha"])
def test_names_that_are_not_utf_8_or_as_long_as_can_be(
    name: bytes,
    toy_command_line: CommandLine,
    write_volume: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """SimpleITK ended the process over the first ones, and temporary names were too long."""
    written = write_volume(tmp_path / f"image{'.mha' if name.endswith(b'.mha') else '.nii.gz'}")
    image = written.rename(tmp_path / os.fsdecode(name))
    mask = tmp_path / "masks" / image.name
    mask.parent.mkdir()
    assert toy_command_line(["predict", "toy", str(image), "-o", str(mask)]) == 0
    assert list(mask.parent.iterdir()) == [mask]
