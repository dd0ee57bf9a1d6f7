"""The accuracy benchmark's own arithmetic, and that it goes on where it was interrupted."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gc_panther.case import Geometry, Result, Volume
from gc_panther.imaging.images import write_image
from gc_panther.task import Socket

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accuracy

    yield accuracy
    for name in ("accuracy", "phantoms", "warm"):
        sys.modules.pop(name, None)


def labels(start=4):
    array = np.zeros((6, 12, 16), np.uint8)
    array[2:4, 3:7, start : start + 5] = 1
    array[0] = 2
    return Volume(array, Geometry((16, 12, 6), (1.0, 1.0, 2.0)))


class FakeTask:
    name = "task2"
    models: dict = {}  # noqa: RUF012

    def __init__(self):
        self.segmented = []

    def segment(self, name, image):
        self.segmented.append(name)
        mask = labels(5)
        details = {
            "empty_mask": "no",
            "roi": {"start_xyz": [5, 0, 0], "stop_xyz": [16, 12, 6]},
        }
        binary = (mask.array_zyx == 1).astype(np.uint8)
        output = Socket("mask", "images/mask")
        return Result({output: Volume(binary, mask.geometry)}, details), 1.5


@pytest.fixture
def phantoms(accuracy, monkeypatch, tmp_path):
    def files(task, case, seed, work):
        name = f"case{case}"
        image, label = tmp_path / f"{name}_0000.mha", tmp_path / f"{name}.mha"
        write_image(labels(), label)
        write_image(labels(), image)
        return name, image, label

    monkeypatch.setattr(accuracy, "phantom_files", files)


def test_share_in_crop_is_counted_in_the_images_own_indices(accuracy):
    reference = labels()  # tumour: x 4…8, y 3…6, z 2…3
    whole = {"start_xyz": [4, 3, 2], "stop_xyz": [9, 7, 4]}
    without_last_column = {"start_xyz": [0, 0, 0], "stop_xyz": [8, 12, 6]}
    assert accuracy.share_in_crop(reference, whole) == 1.0
    assert accuracy.share_in_crop(reference, without_last_column) == pytest.approx(0.8)
    assert accuracy.share_in_crop(reference, None) is None


def test_finished_cases_are_not_repeated(accuracy, phantoms, tmp_path):
    task, folder = FakeTask(), tmp_path / "results"
    first = list(accuracy.measure(task, 2, 1, tmp_path, folder))
    again = list(accuracy.measure(task, 3, 1, tmp_path, folder))

    assert task.segmented == ["case0", "case1", "case2"]
    assert again[:2] == first
    assert first[0].score.dice == pytest.approx(0.8)
    assert first[0].share_in_crop == pytest.approx(0.8)
    assert (folder / "case0.mha").is_file()


def test_targets_and_report(accuracy, phantoms, tmp_path):
    results = list(accuracy.measure(FakeTask(), 2, 1, tmp_path, tmp_path / "results"))
    reached = [ok for _, ok in accuracy.targets("task2", results).values()]
    section = accuracy.report("task2", results, 1, "abc")

    assert reached == [True, True, False]
    assert "| mean Dice ≥ 0.65 | 0.800 | yes |" in section
    assert "80.00% | **no** |" in section
    assert section.count("| case") == 3


def test_other_weights_have_another_fingerprint(accuracy, tmp_path):
    (tmp_path / "fold_0").mkdir()
    weights = tmp_path / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes(b"one")
    first = accuracy.fingerprint({"task1": tmp_path})
    assert first == accuracy.fingerprint({"task1": tmp_path})
    weights.write_bytes(b"two")
    assert accuracy.fingerprint({"task1": tmp_path}) != first


def test_only_what_stands_between_the_markers_is_replaced(accuracy, monkeypatch, tmp_path):
    document = tmp_path / "accuracy.md"
    document.write_text(f"before\n{accuracy.BEGIN}\nold\n{accuracy.END}\nafter\n")
    monkeypatch.setattr(accuracy, "DOCS", document)
    accuracy.update_document(["new"])
    accuracy.update_document(["newer"])
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "newer" in text
    assert "old" not in text
