import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from gc_panther.errors import UserError
from gc_panther.panther.phantom import make_dataset
from gc_panther.panther.phantom.cli import app


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def task1(tmp_path_factory, small):
    out = tmp_path_factory.mktemp("task1") / "data"
    make_dataset("task1", out, 2, 3, unlabelled=1, **small)
    return out


def test_task1_layout(task1):
    assert set(digests(task1)) == {
        "ImagesTr/10000_0001_0000.mha",
        "ImagesTr/10001_0001_0000.mha",
        "ImagesTr_unlabeled/10002_0001_0000.mha",
        "LabelsTr/10000_0001.mha",
        "LabelsTr/10001_0001.mha",
        "OrgansTr/10000_0001.mha",
        "OrgansTr/10001_0001.mha",
        "phantoms.json",
    }


def test_task2_layout_without_organs(tmp_path, small):
    make_dataset("task2", tmp_path, 1, 3, organs=False, **small)
    assert set(digests(tmp_path)) == {
        "ImagesTr/10303_0000.mha",
        "LabelsTr/10303.mha",
        "phantoms.json",
    }


def test_images_and_labels_share_one_grid(task1, small):
    image = sitk.ReadImage(str(task1 / "ImagesTr" / "10000_0001_0000.mha"))
    assert image.GetSize() == small["size_xyz"]
    assert image.GetSpacing() == pytest.approx(small["spacing_xyz"])
    for folder in ("LabelsTr", "OrgansTr"):
        label = sitk.ReadImage(str(task1 / folder / "10000_0001.mha"))
        assert label.GetPixelID() == sitk.sitkUInt8
        for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(label, geometry)() == pytest.approx(getattr(image, geometry)())
    assert b"CompressedData = True" in (task1 / "LabelsTr" / "10000_0001.mha").read_bytes()[:600]


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(task1, tmp_path, small):
    make_dataset("task1", tmp_path / "again", 2, 3, unlabelled=1, workers=2, **small)
    assert digests(tmp_path / "again") == digests(task1)


def test_a_later_first_case_continues_the_data_set(task1, tmp_path, small):
    make_dataset("task1", tmp_path, 1, 3, first_case=1, **small)
    name = "ImagesTr/10001_0001_0000.mha"
    assert digests(tmp_path)[name] == digests(task1)[name]


def test_the_summary_says_synthetic_and_lists_the_cases(task1):
    summary = json.loads((task1 / "phantoms.json").read_text())
    assert "synthetic" in summary["note"].lower()
    assert (summary["task"], summary["seed"]) == ("task1", 3)
    assert [c["name"] for c in summary["cases"]] == ["10000_0001", "10001_0001", "10002_0001"]
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(task1 / "LabelsTr" / "10000_0001.mha")))
    voxel = np.prod(sitk.ReadImage(str(task1 / "LabelsTr" / "10000_0001.mha")).GetSpacing())
    assert summary["cases"][0]["tumour_volume_mm3"] == pytest.approx(
        (label == 1).sum() * voxel, rel=1e-3
    )


def test_progress_is_called_in_order(tmp_path, small):
    seen = []
    make_dataset("task2", tmp_path, 2, 0, progress=seen.append, **small)
    assert [entry["name"] for entry in seen] == ["10303", "10304"]


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty") as caught:
        make_dataset("task1", tmp_path, 1, 0)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("task9", 1, 0, {}), "unknown task"),
        (("task1", -1, 0, {}), "cases"),
        (("task1", 0, 0, {}), "at least 1"),
        (("task1", 1, -5, {}), "seed"),
        (("task1", 1, 0, {"workers": 0}), "workers"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(tmp_path, arguments, message):
    task, cases, seed, more = arguments
    with pytest.raises(UserError, match=message):
        make_dataset(task, tmp_path / "out", cases, seed, **more)
    assert not (tmp_path / "out").exists()


def test_the_command_makes_a_data_set(tmp_path, monkeypatch, small):
    from gc_panther.panther.phantom import dataset

    real = dataset.generate_phantom
    monkeypatch.setattr(dataset, "generate_phantom", lambda *a, **k: real(*a, **{**small, **k}))
    out = tmp_path / "data"
    result = CliRunner().invoke(app, ["make", "--task", "task2", "--cases", "1", str(out)])
    assert result.exit_code == 0, result.output
    assert "[1/1] 10303: tumour" in result.output
    assert "\r" not in result.output
    assert (out / "LabelsTr" / "10303.mha").exists()


def test_the_command_refuses_an_unknown_contrast(tmp_path):
    result = CliRunner().invoke(
        app, ["make", "--task", "task1", "--contrast", "ct", str(tmp_path / "x")]
    )
    assert isinstance(result.exception, UserError)
    assert "unknown contrast" in str(result.exception)


def test_a_preview_is_a_picture(tmp_path, monkeypatch, small):
    from gc_panther.panther.phantom import generate

    real = generate.generate_phantom
    monkeypatch.setattr(generate, "generate_phantom", lambda *a, **k: real(*a, **{**small, **k}))
    out = tmp_path / "new" / "look.png"
    result = CliRunner().invoke(app, ["preview", "--task", "task1", str(out)])
    assert result.exit_code == 0, result.output
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    red = (picture[..., 0] == 255) & (picture[..., 1] == 70)
    assert red.any()  # the tumour's outline


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, gc_panther.panther.phantom.cli; "
        "print([m for m in ('numpy', 'scipy', 'SimpleITK', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
