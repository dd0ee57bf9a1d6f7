"""Warnings about a result are on the terminal, in the report, in the table and in the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gc_panther import cli

CommandLine = Callable[[list[str]], int]
WARNING, FINDING = "The image looks like a knee", "The mask is a guess"


@pytest.fixture
def warns(toy_plugin: Any) -> Any:
    toy_plugin.case_warnings, toy_plugin.warnings = [WARNING], (FINDING,)
    return toy_plugin


def test_predict_warns_on_the_terminal_and_in_the_report(
    warns: Any,
    toy_command_line: CommandLine,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: Any,
) -> None:
    image, report = write_volume(tmp_path / "scan.mha"), tmp_path / "report.json"
    arguments = ["predict", "toy", str(image), "-o", str(tmp_path / "mask.mha"), "--device", "cpu"]
    assert toy_command_line([*arguments, "--report", str(report)]) == 0
    logged = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert logged == [WARNING, FINDING]
    assert json.loads(report.read_text())["warnings"] == [WARNING, FINDING]
    # The platform marks a run that wrote to stderr.
    assert capfd.readouterr().err == ""


def test_run_puts_warnings_into_the_results(
    warns: Any, toy_command_line: CommandLine, toy_input: Path, tmp_path: Path
) -> None:
    arguments = ["run", "--task", "toy", "--device", "cpu", "--input", str(toy_input)]
    assert toy_command_line([*arguments, "--output", str(tmp_path / "output")]) == 0
    (result,) = json.loads((tmp_path / "output" / "results.json").read_text())
    assert result["warnings"] == [WARNING, FINDING]
    assert result["notes"] == ["a note"]


def test_the_picture_has_the_warnings(
    warns: Any,
    toy_command_line: CommandLine,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gc_panther.report import overlay

    drawn: list[Any] = []
    draw = overlay.draw_overlay
    monkeypatch.setattr(
        overlay, "draw_overlay", lambda *of, **how: drawn.append(how) or draw(*of, **how)
    )
    image, picture = write_volume(tmp_path / "scan.mha"), tmp_path / "mask.PNG"
    arguments = ["predict", "toy", str(image), "-o", str(tmp_path / "mask.mha"), "--device", "cpu"]
    assert toy_command_line([*arguments, "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert drawn[0]["warnings"] == (WARNING, FINDING)


@pytest.mark.parametrize("name", ["mask.jpg", "mask.tif", "mask", "mask.png.gz"])
def test_a_picture_that_is_not_a_png_is_refused_before_work(
    name: str,
    toy_plugin: Any,
    toy_command_line: CommandLine,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    capfd: Any,
) -> None:
    image = write_volume(tmp_path / "scan.mha")
    arguments = ["predict", "toy", str(image), "-o", str(tmp_path / "mask.mha")]
    assert toy_command_line([*arguments, "--picture", str(tmp_path / name)]) == 2
    assert "pictures are PNG files" in capfd.readouterr().err
    assert toy_plugin.runs == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.mha"]


@pytest.fixture
def predict_task1(
    tiny_model_folder: Callable[..., Path], write_volume: Callable[..., Path], tmp_path: Path
) -> Callable[[Any], int]:
    """Task 1 on voxels of 5×5×6 mm, by one tiny network; returns the exit code."""

    def predict(array_zyx: Any) -> int:
        image = write_volume(tmp_path / "scan.mha", array_zyx, spacing_xyz=(5.0, 5.0, 6.0))
        folder = tiny_model_folder(folds=(0,), spacing_zyx=(6.0, 5.0, 5.0))
        out = ["-o", str(tmp_path / "mask.mha"), "--report", str(tmp_path / "report.json")]
        options = ["--device", "cpu", "--folds", "0", "--no-mirroring", "--backend", "torch"]
        return cli.invoke(
            ["predict", "task1", str(image), *out, "--model-dir", str(folder), *options]
        )

    return predict


NOISE = np.random.default_rng(0).normal(300, 60, (16, 48, 60)).astype(np.int16)


@pytest.mark.parametrize(
    ("array_zyx", "said"),
    [
        (np.full_like(NOISE, 40), "the image is blank"),
        ((NOISE > 300).astype(np.uint8), "the image is a mask"),
        (NOISE, "the image is noise"),
    ],
    ids=["constant", "mask", "noise"],
)
def test_what_cannot_be_a_scan_is_refused(
    array_zyx: Any, said: str, predict_task1: Callable[[Any], int], tmp_path: Path, capfd: Any
) -> None:
    assert predict_task1(array_zyx) == 2
    assert said in capfd.readouterr().err
    assert not (tmp_path / "mask.mha").exists()


def test_ct_is_segmented_with_a_warning(
    predict_task1: Callable[[Any], int], tmp_path: Path
) -> None:
    """A gradient with noise, in Hounsfield units."""
    ct = np.linspace(-1300, 700, 60) + NOISE
    assert predict_task1(ct.astype(np.int16)) == 0
    warnings = json.loads((tmp_path / "report.json").read_text())["warnings"]
    assert any("as air is in CT" in warning for warning in warnings)
