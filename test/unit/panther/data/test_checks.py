"""What `dataset check` warns of; none of it changes the exit code."""

import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from gc_panther_task1.training import LAYOUT
from typer.testing import CliRunner

from gc_panther.errors import InputError
from gc_panther.findings import Finding
from gc_panther.panther.data import checks as data_checks
from gc_panther.panther.data import cli as data_cli
from gc_panther.panther.data.checks import check_data

SHAPE_ZYX, SPACING_XYZ = (10, 20, 22), (15.0, 15.0, 12.0)
IMAGE, LABEL = "ImagesTr/10000_0001_0000.mha", "LabelsTr/10000_0001.mha"


def write(path, array_zyx):
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(SPACING_XYZ)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def body():
    z, y, x = np.indices(SHAPE_ZYX)
    inside = (y - 10) ** 2 / 80 + (x - 11) ** 2 / 100 < 1
    noise = np.random.default_rng(0).normal(20, 9, SHAPE_ZYX)
    return (400 * inside + 5 * z + noise).clip(0).astype(np.int16)


def labels():
    array = np.zeros(SHAPE_ZYX, np.uint8)
    array[4:7, 8:12, 8:13] = 2
    array[5:7, 9:11, 9:11] = 1
    return array


@pytest.fixture
def data(tmp_path):
    write(tmp_path / IMAGE, body())
    write(tmp_path / LABEL, labels())
    return tmp_path


def one_voxel(array):
    array[array == 1] = 2
    array[5, 9, 9] = 1


def corner(array):
    array[array == 1] = 2
    array[0:2, 0:2, 0:2] = 1


def swapped(array):
    array[:] = np.select([array == 1, array == 2], [2, 1], 0)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (one_voxel, "the tumour has 1 voxel (2.7 mL)"),
        (corner, "the tumour reaches the edge of the image with"),
        (corner, "the tumour is in a corner of the image"),
        (corner, "the tumour is more than 80 mm from the pancreas"),
        (swapped, "the tumour (140 mL) is larger than the pancreas (21.6 mL)"),
    ],
)
def test_an_unlikely_label_map_is_a_warning(data, change, what):
    array = labels()
    change(array)
    write(data / LABEL, array)
    _, problems = check_data(data, LAYOUT)
    assert {(p.check, p.verdict) for p in problems} == {(LABEL, "warn")}
    assert any(what in p.found for p in problems), problems


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.zeros(SHAPE_ZYX, np.int16), "all voxels have the value 0"),
        (np.full(SHAPE_ZYX, 7, np.int16), "all voxels have the value 7"),
        (body() // 100, "different values, as a label map has"),
        (body() > 200, "the image is a mask"),
        (body() - 1024, "as air is in CT"),
    ],
)
def test_an_unlikely_image_is_a_warning(data, image, what):
    write(data / IMAGE, image.astype(np.int16))
    _, problems = check_data(data, LAYOUT)
    assert {(p.check, p.verdict) for p in problems} == {(IMAGE, "warn")}
    assert any(what in p.found for p in problems), problems


def test_an_unlabelled_image_is_checked_as_well(data):
    file = "ImagesTr_unlabeled/10001_0001_0000.mha"
    write(data / file, np.zeros(SHAPE_ZYX, np.int16))
    (problem,) = check_data(data, LAYOUT)[1]
    assert (problem.check, problem.verdict) == (file, "warn")


def test_a_label_map_of_continuous_values_is_refused_with_a_few_of_them(data):
    write(data / LABEL, np.random.default_rng(0).random(SHAPE_ZYX).astype(np.float32))
    (problem,) = check_data(data, LAYOUT)[1]
    assert problem.failed
    assert problem.found.startswith("unknown label values: ")
    assert problem.found.endswith(", and more than 64 in all, as an image has")
    assert len(problem.found) < 150


def test_progress_is_reported_within_a_file(data, monkeypatch):
    monkeypatch.setattr(data_checks, "STEP", 1000)
    monkeypatch.setattr("gc_panther.imaging.values.PART", 1000)
    calls = []
    check_data(data, LAYOUT, lambda path, part: calls.append((path, part)))
    for file in (IMAGE, LABEL):
        parts = [part for path, part in calls if path == data / file]
        assert len(parts) > 6
        assert parts[0] == 0
        assert sum(parts) == pytest.approx(1)


@pytest.mark.slow
def test_the_installed_command_warns_and_ends_well(data):
    write(data / IMAGE, np.zeros(SHAPE_ZYX, np.int16))
    command = [sys.executable, "-m", "gc_panther", "dataset", "check", str(data), "--task", "task1"]
    wide = {**os.environ, "COLUMNS": "200"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=wide)
    assert result.returncode == 0, result.stderr
    assert "1 labelled and 0 unlabelled cases; 1 warning in 1 file" in result.stdout
    assert "all voxels have the value 0" in " ".join(result.stdout.split())


def check(data):
    return CliRunner().invoke(data_cli.app, ["check", str(data), "--task", "task1"])


def test_warnings_are_summed_up_and_do_not_change_the_exit_code(data):
    array = labels()
    corner(array)
    write(data / LABEL, array)
    result = check(data)
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    assert last == "1 labelled and 0 unlabelled cases; 3 warnings in 1 file"


def test_errors_do_and_are_summed_up_as_well(data):
    write(data / LABEL, labels() + 3)
    write(data / IMAGE, np.zeros(SHAPE_ZYX, np.int16))
    result = check(data)
    assert isinstance(result.exception, InputError)
    last = result.stdout.splitlines()[-1]
    assert last == "1 labelled and 0 unlabelled cases; 1 error in 1 file; 1 warning in 1 file"


def test_counts_have_their_singular_and_plural():
    problems = [Finding(file, "fail", "w", "f") for file in ("a", "a", "b")]
    assert data_checks.problem_counts(problems) == "; 3 errors in 2 files"
    assert data_checks.problem_counts([]) == ""
