import json

import numpy as np
import pytest
from soak import MASKS, Served, block, put, report, wrong_with

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import read_image, write_image

GRID = Geometry((6, 5, 4), (1.0, 1.2, 3.0), (1.0, 2.0, 3.0))


def volume(array):
    return Volume(array, Geometry(array.shape[::-1], (1.2, 1.2, 3.0)))


def test_no_two_blocks_are_alike_and_each_holds_the_middle_of_the_tumour():
    image = np.random.default_rng(0).normal(300, 50, (40, 60, 80)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    label[20:23, 30:34, 40:44] = 1
    image[21, 31, 41] = 30_000
    blocks = [
        block(volume(image), volume(label), np.random.default_rng([1, number]))
        for number in range(20)
    ]
    assert len({one.array_zyx.tobytes() for one in blocks}) == 20
    assert len({one.geometry.spacing_xyz for one in blocks}) == 20
    assert {one.array_zyx.dtype.name for one in blocks} == {"int16", "uint16", "float32"}
    assert all(one.array_zyx.max() == 30_000 for one in blocks)


def test_input_holds_one_case_at_a_time(tmp_path):
    for value in (1, 2):
        put("task1", Volume(np.full((4, 5, 6), value, np.int16), GRID), tmp_path)
        (path,) = tmp_path.rglob("*.mha")
        assert read_image(path).array_zyx.max() == value
        (given,) = json.loads((tmp_path / "inputs.json").read_text())
        assert path.parent == tmp_path / given["socket"]["relative_path"]
        assert path.stem == given["image"]["pk"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (None, ""),
        (lambda mask: mask * 2, "uint8 of [0 2]"),
        (lambda mask: mask.astype(np.int16), "int16 of [0 1]"),
        (lambda mask: mask * 0, "uint8 of [0]"),
        (lambda mask: mask[1:], "another grid"),
    ],
)
def test_masks_are_checked(tmp_path, change, complaint):
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[2, 2, 2] = 1
    made = mask if change is None else change(mask)
    (tmp_path / MASKS).mkdir(parents=True)
    grid = Geometry(made.shape[::-1], GRID.spacing_xyz, GRID.origin_xyz)
    write_image(Volume(made, grid), tmp_path / MASKS / "output.mha")
    (tmp_path / "results.json").write_text("[]")
    found = wrong_with(tmp_path, Volume(np.zeros((4, 5, 6), np.int16), GRID))
    assert found == complaint or (complaint and complaint in found)


def test_a_missing_or_second_output_is_a_failure(tmp_path):
    image = Volume(np.zeros((4, 5, 6), np.int16), GRID)
    assert wrong_with(tmp_path, image) == "/output holds []"
    (tmp_path / MASKS).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / MASKS / f"{name}.mha").touch()
    (tmp_path / "results.json").touch()
    assert "a.mha" in wrong_with(tmp_path, image)


def test_growth_is_counted_from_the_twentieth_case():
    served = [Served(2.0, (100 if number < 19 else 200) * 2**20) for number in range(30)]
    served[-1] = Served(4.0, 210 * 2**20, "status 500")
    assert report("task1", served) == "| task1 | 30 | 1 | 2.0 | 200 | 210 | 1.050 | 210 |"
