from argparse import Namespace

import numpy as np
import parity
import pytest
from parity import compare, images_of, table


def labels(differing=0):
    found = np.zeros((40, 60, 100), np.uint8)
    found[10:30, 10:40, 20:70] = 1
    found[-1].flat[:differing] = 2
    return found


@pytest.mark.parametrize(
    ("device", "differing", "equal"),
    [
        ("cpu", 0, True),
        ("cpu", 2, True),
        ("cpu", 3, False),
        ("cuda", 24, True),
        ("cuda", 25, False),
    ],
)
def test_less_may_differ_on_a_cpu_than_on_a_gpu(device, differing, equal):
    row = compare("a case", "logits", labels(differing), labels(), 1, device)
    assert row.disagreement == pytest.approx(differing / 240_000)
    assert row.equal == equal


def test_few_voxels_of_a_tumour_count_although_they_are_few_of_the_image():
    ours, stock = np.zeros((2, 100, 100, 100), np.uint8)
    stock[0, 0, :1000] = ours[0, 0, 2:1000] = 1
    stock[50, 50:60, :20] = ours[50, 50:60, 2:20] = 1
    row = compare("a case", "logits", ours, stock, 1)
    assert row.disagreement > 1e-5
    assert row.dice < 0.9995
    assert not row.equal


def test_the_localizer_s_box_has_to_be_the_same():
    ours, stock = labels() == 1, labels() == 1
    assert compare("a case", "localizer", ours, stock, True).equal
    ours[10, 10, 19] = True
    row = compare("a case", "localizer", ours, stock, True)
    assert not row.equal
    assert "| no | **no** |" in table("task2", [row])


def test_the_bundled_case_goes_first_and_the_user_s_last(tmp_path, monkeypatch):
    made = []

    def phantom_files(task, number, seed, work):
        made.append((task, number, seed, work))
        return f"{number}", tmp_path / f"{number}.mha", tmp_path / "label.mha"

    monkeypatch.setattr(parity, "phantom_files", phantom_files)
    given = Namespace(cases=2, seed=5, work=tmp_path, images=[tmp_path / "scan.mha"])
    found = list(images_of("task1", given))
    assert [name for name, _ in found] == ["bundled case", "phantom 0", "phantom 1", "scan.mha"]
    assert found[0][1].parent.name == "abdominal-t1-mri"
    assert made == [("task1", 0, 5, tmp_path), ("task1", 1, 5, tmp_path)]
