import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from gc_panther.errors import InputError
from gc_panther.panther.evaluation.cli import match_cases, register


@pytest.fixture
def app():
    application = typer.Typer()

    @application.callback()
    def _main():
        """Keep ``evaluate`` a subcommand."""

    register(application)
    return application


def write_mask(path, start=2, value=1):
    path.parent.mkdir(exist_ok=True)
    array = np.zeros((8, 12, 12), np.uint8)
    array[2:5, 2:6, start : start + 4] = value
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 3.0))
    sitk.WriteImage(image, str(path))
    return path


def run(app, *arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_two_files(app, tmp_path):
    prediction = write_mask(tmp_path / "mine.nii.gz", start=3)
    reference = write_mask(tmp_path / "10000_0001.mha")
    result = run(app, prediction, reference)

    assert result.exit_code == 0, result.output
    assert "10000_0001" in result.output
    assert "0.750" in result.output


def test_two_folders_with_json_and_csv(app, tmp_path):
    for case in ("10000_0001", "10000_0002"):
        write_mask(tmp_path / "ref" / f"{case}.mha")
    write_mask(tmp_path / "pred" / "10000_0001.mha")
    write_mask(tmp_path / "pred" / "10000_0002_0000.nii.gz", start=3)
    (tmp_path / "pred" / "results.json").write_text("{}")

    result = run(
        app, tmp_path / "pred", tmp_path / "ref", "--json", tmp_path / "s.json",
        "--csv", tmp_path / "s.csv", "--challenge-compatible",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["challenge_compatible"] is True
    assert [case["dice"] for case in document["cases"]] == [1.0, 0.75]
    with (tmp_path / "s.csv").open(newline="") as stream:
        assert [row["case"] for row in csv.DictReader(stream)] == ["10000_0001", "10000_0002"]


def test_all_missing_cases_are_named_in_one_line(app, tmp_path):
    for case in range(15):
        write_mask(tmp_path / "ref" / f"case{case:02d}.mha")
    write_mask(tmp_path / "pred" / "case00.mha")
    write_mask(tmp_path / "pred" / "other.mha")
    result = run(app, tmp_path / "pred", tmp_path / "ref")

    assert isinstance(result.exception, InputError)
    message = str(result.exception)
    assert "no prediction for case01, case02" in message
    assert "case10 and 4 more" in message
    assert "no reference for other" in message
    assert "\n" not in message
    assert result.exception.exit_code == 2


def test_a_channel_ending_never_hides_another_file(tmp_path):
    write_mask(tmp_path / "ref" / "a.mha")
    write_mask(tmp_path / "pred" / "a.mha")
    write_mask(tmp_path / "pred" / "a_0000.mha")
    with pytest.raises(InputError, match="no reference for a_0000"):
        match_cases(tmp_path / "pred", tmp_path / "ref")


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii.gz", ".nii", ".nrrd", ".NII.GZ"])
def test_a_case_is_what_stands_before_the_ending_of_a_mask(tmp_path, ending):
    for part in ("ref", "pred"):
        (tmp_path / part).mkdir()
    for name in ("b.c", "a"):
        (tmp_path / "ref" / f"{name}.mha").touch()
        (tmp_path / "pred" / f"{name}{ending}").touch()
    (tmp_path / "pred" / "notes.txt").touch()
    assert match_cases(tmp_path / "pred", tmp_path / "ref") == [
        (name, tmp_path / "pred" / f"{name}{ending}", tmp_path / "ref" / f"{name}.mha")
        for name in ("a", "b.c")
    ]


def test_two_files_for_one_case(tmp_path):
    for name in ("a.mha", "a.nii.gz"):
        write_mask(tmp_path / "pred" / name)
    write_mask(tmp_path / "ref" / "a.mha")
    with pytest.raises(InputError, match=r"a\.mha and a\.nii\.gz"):
        match_cases(tmp_path / "pred", tmp_path / "ref")


def test_a_file_against_a_folder(tmp_path):
    mask = write_mask(tmp_path / "a.mha")
    with pytest.raises(InputError, match="two files or two folders"):
        match_cases(mask, tmp_path)


def test_a_missing_path_and_an_empty_folder(tmp_path):
    mask = write_mask(tmp_path / "a.mha")
    with pytest.raises(InputError, match=r"no such file or folder: .*b\.mha"):
        match_cases(mask, tmp_path / "b.mha")
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="no masks"):
        match_cases(tmp_path / "x", tmp_path / "x")


def test_wrong_labels_name_the_file_and_the_option(app, tmp_path):
    prediction = write_mask(tmp_path / "mine.mha", value=3)
    reference = write_mask(tmp_path / "ref.mha")
    result = run(app, prediction, reference)
    assert isinstance(result.exception, InputError)
    assert "mine.mha" in str(result.exception)
    assert "--tumour-label" in str(result.exception)
    assert run(app, prediction, reference, "--tumour-label", 3).exit_code == 0


def test_importing_the_command_is_light():
    heavy = ("torch", "SimpleITK", "scipy", "pandas", "nnunetv2", "surface_distance", "matplotlib")
    code = (
        "import sys, gc_panther.panther.evaluation.cli;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
