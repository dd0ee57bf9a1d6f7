"""What a test run shows of its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image, write_image

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import show_result

SOCKETS = ("abdominal-t2-mri", "pancreatic-tumor-segmentation")


@pytest.fixture
def run(write_volume: Any, tmp_path: Path) -> tuple[Path, Path, Volume]:
    """The output and the input folder of a run of task 2, and its mask of ten voxels."""
    given, out = tmp_path / "input", tmp_path / "out"
    image, mask = (
        folder / "images" / socket / "scan.mha"
        for folder, socket in zip((given, out / "output"), SOCKETS, strict=True)
    )
    for file in (image, mask):
        file.parent.mkdir(parents=True)
    volume = read_image(write_volume(image))
    array_zyx = np.zeros(volume.geometry.shape_zyx, np.uint8)
    array_zyx.flat[:10] = 1
    write_image(Volume(array_zyx, volume.geometry), mask)
    results = [{"outputs": [], "warnings": ["demonstration weights"]}]
    (out / "output" / "results.json").write_text(json.dumps(results))
    return out, given, read_image(mask)


def shown(*arguments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["show_result.py", "task2", *map(str, arguments)])
    show_result.main()


def test_it_names_mask_picture_volume_and_dice(
    run: tuple[Path, Path, Volume], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, given, mask = run
    reference = out / "reference.mha"
    write_image(mask, reference)
    shown(out, given, reference, monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("output/images/pancreatic-tumor-segmentation/scan.mha")
    assert lines[1].endswith("mask.png")
    assert (out / "mask.png").stat().st_size > 1000
    millilitres = 10 * mask.geometry.voxel_volume_mm3 / 1000
    assert lines[2].split(maxsplit=1)[1] == f"{millilitres:.2f} mL (10 voxels)"
    assert lines[3].split()[1] == "1.000"


def test_an_empty_mask_is_an_error(
    run: tuple[Path, Path, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, given, mask = run
    empty = Volume(np.zeros_like(mask.array_zyx), mask.geometry)
    write_image(empty, out / "output" / "images" / SOCKETS[1] / "scan.mha")
    with pytest.raises(SystemExit, match="the mask is empty"):
        shown(out, given, monkeypatch=monkeypatch)
