import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.panther.data.label_checks import tumour_warnings

ORGAN = ("pancreas", 2)
#: 3 mm × 1 mm × 1 mm
SPACING_XYZ = (1.0, 1.0, 3.0)


def label_map(tumour=((10, 14), (40, 50), (40, 50)), pancreas=((8, 15), (35, 55), (30, 60))):
    """Blocks in an image of 30×100×100 voxels."""
    array = np.zeros((30, 100, 100), np.uint8)
    for value, block in ((2, pancreas), (1, tumour)):
        array[tuple(slice(*ends) for ends in block)] = value
    return array


def warnings_of(array, organ=ORGAN):
    z, y, x = array.shape
    return tumour_warnings(Volume(array, Geometry((x, y, z), SPACING_XYZ)), 1, organ)


def test_a_tumour_in_its_organ_is_no_warning():
    assert warnings_of(label_map()) == []


def test_a_tumour_beside_its_organ_is_no_warning():
    assert warnings_of(label_map(tumour=((10, 14), (35, 45), (62, 72)))) == []


def test_without_an_organ_in_the_layout_its_label_does_not_matter():
    array = label_map()
    array[array == 2] = 0
    assert warnings_of(array, None) == []
    assert warnings_of(array) == ["no pancreas is labelled"]


@pytest.mark.parametrize(
    ("voxels", "what"),
    [
        (1, "the tumour has 1 voxel (0.003 mL)"),
        (3, "the tumour has 3 voxels (0.009 mL)"),
        (10, "the tumour has 10 voxels (0.03 mL)"),
    ],
)
def test_a_tumour_of_a_few_voxels(voxels, what):
    array = label_map(tumour=((10, 11), (45, 46), (45, 45 + voxels)))
    assert warnings_of(array) == [what]


def test_specks_beside_a_tumour():
    array = label_map()
    array[9, 36, 31] = array[9, 54, 58] = 1
    assert warnings_of(array) == ["2 of the tumour's 3 separate parts have at most 3 voxels"]


def test_a_tumour_of_very_many_parts():
    array = label_map()
    array[8:15:2, 35:55:2, 30:60:2] = 1
    (what,) = warnings_of(array, None)
    assert what.startswith("the tumour has ")
    assert what.endswith("separate parts")


def test_a_tumour_at_the_edge():
    array = label_map(((0, 4), (40, 50), (40, 50)), ((0, 8), (35, 55), (30, 60)))
    assert warnings_of(array) == ["the tumour reaches the edge of the image with 100 voxels"]


def test_a_tumour_in_a_corner_far_from_its_organ():
    found = warnings_of(label_map(tumour=((1, 3), (2, 9), (2, 12))))
    assert found == [
        "the tumour is in a corner of the image (its centre is at 7 %, 6 %, 7 % of z, y, x)",
        "the tumour is more than 20 mm from the pancreas",
    ]


def test_one_part_far_from_the_organ():
    array = label_map()
    array[10:14, 70:75, 40:50] = 1
    assert warnings_of(array) == [
        "1 of the tumour's 2 separate parts are more than 10 mm from the pancreas"
    ]


def test_swapped_values():
    array = label_map()
    swapped = np.select([array == 1, array == 2], [2, 1], 0).astype(np.uint8)
    (what,) = warnings_of(swapped)
    assert what == (
        "the tumour (11.4 mL) is larger than the pancreas (1.2 mL): their values may be swapped"
    )
