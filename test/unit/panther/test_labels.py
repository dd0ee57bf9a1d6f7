from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_models import LABELS, write_model

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.panther.labels import (
    MAX_SHARE,
    most_probable_component,
    same_labels,
    tumour_label,
)


def model(*names):
    return SimpleNamespace(labels={n: v for v, n in enumerate(names)}, path=Path("a-model"))


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("background", "tumour", "pancreas"), 1),
        (("background", "pancreas", "Pancreatic_Tumor"), 2),
        (("background", "pancreas", "PDAC lesion"), 2),
        (("background", "anything"), 1),
        *(
            (("background", "pancreas", name), 2)
            for name in ("Tumour", "tumor", "lesions", "Cancer", "carcinoma", "PDAC")
        ),
    ],
)
def test_the_tumour_is_found_by_name(names, value):
    assert tumour_label(model(*names)) == value


@pytest.mark.parametrize(
    "names",
    [
        ("background", "pancreas", "duodenum"),
        ("background", "tumour core", "tumour rim"),
    ],
)
def test_a_model_without_one_tumour_is_refused(names):
    with pytest.raises(WeightsError, match="can be the tumour") as caught:
        tumour_label(model(*names))
    assert names[1] in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "same"),
    [
        (LABELS, True),
        ({"background": 0, "PDAC lesion": 1, "pancreas": 2}, True),
        ({"background": 0, "pancreas": 1, "tumour": 2}, False),
        ({"background": 0, "tumour": 1}, False),
        ({"background": 0, "liver": 1, "spleen": 2}, False),
    ],
)
def test_heads_are_the_same_where_the_tumour_has_its_number(tmp_path, labels, same):
    model = open_model_folder(write_model(tmp_path / "m", labels=labels))
    assert same_labels(model, LABELS) is same


def test_the_component_with_most_probability_is_kept():
    probability = np.full((12, 20, 20), 0.001, np.float32)
    probability[2, 2, 2] = 0.40  # one noisy voxel
    probability[6:9, 10:14, 10:14] = 0.30
    probability[6:9, 10:14, 14] = 0.21
    probability[6:9, 10:14, 15] = 0.19  # below half of the highest
    kept = most_probable_component(probability)
    assert kept.dtype == bool
    assert np.array_equal(kept, probability >= 0.2) is False
    assert kept[6:9, 10:14, 10:15].all()
    assert kept.sum() == 3 * 4 * 5


def test_the_largest_component_gives_way_to_one_with_more_probability():
    probability = np.zeros((10, 20, 20), np.float32)
    probability[1, 1, 1:6] = 0.21  # five voxels, 1.05 expected
    probability[8, 8, 8:11] = 0.40  # three, 1.2
    kept = most_probable_component(probability)
    assert kept.sum() == 3
    assert kept[8, 8, 8:11].all()


@pytest.mark.parametrize(
    ("around", "fraction"), [(0.0, 0.5), (0.6, 0.75), (0.8, 0.9), (0.95, 0.99)]
)
def test_candidates_come_down_to_the_lowest_fraction_that_leaves_a_plausible_size(around, fraction):
    probability = np.full((10, 20, 20), around, np.float32)
    probability[4, 8, 8] = 1.0
    probability[4, 8, 9] = fraction + 0.002
    probability[4, 8, 7] = fraction - 0.002
    kept = most_probable_component(probability)
    assert np.argwhere(kept).tolist() == [[4, 8, 8], [4, 8, 9]]


def test_without_a_component_of_plausible_size_the_most_probable_voxel_is_kept():
    probability = np.full((10, 20, 20), 0.995, np.float32)
    probability[4, 8, 8] = probability[7, 7, 7] = 1.0
    assert np.argwhere(most_probable_component(probability)).tolist() == [[4, 8, 8]]


def test_a_component_may_fill_a_tenth_of_the_image():
    probability = np.zeros((10, 10, 10), np.float32)
    probability[3] = 0.6
    probability[3, 5, 5] = 1.0
    assert most_probable_component(probability).sum() == 100
    probability[4, 5, 5] = 0.6
    assert most_probable_component(probability).sum() == 1


def test_voxels_that_touch_at_a_corner_belong_together():
    probability = np.zeros((10, 10, 10), np.float32)
    probability[4, 4, 4] = probability[5, 5, 5] = 0.2
    assert most_probable_component(probability).sum() == 2


def test_of_equal_components_the_first_is_kept():
    probability = np.zeros((10, 10, 10), np.float32)
    probability[2, 2, 2] = probability[7, 7, 7] = 0.2
    kept = most_probable_component(probability)
    assert kept[2, 2, 2]
    assert kept.sum() == 1


def test_a_higher_threshold_where_half_of_the_highest_would_fill_the_image():
    probability = np.full((10, 20, 20), 0.2, np.float32)
    probability[3:5, 8:11, 8:11] = 0.3
    kept = most_probable_component(probability)
    assert kept.sum() == 2 * 3 * 3
    assert kept[3:5, 8:11, 8:11].all()


@given(
    arrays(
        np.float32,
        st.tuples(*[st.integers(1, 8)] * 3),
        elements=st.sampled_from([0.0, 1e-30, 0.01, 0.1, 0.2, 0.45]),
    )
)
def test_something_plausible_is_kept_of_anything(probability):
    kept = most_probable_component(probability)
    assert kept.shape == probability.shape
    assert kept.any()
    assert kept.sum() <= max(1, MAX_SHARE * kept.size)
    assert probability[kept].min() >= 0.5 * probability.max()
    assert np.array_equal(kept, most_probable_component(probability.copy()))
