import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from gc_panther.case import Geometry, Volume
from gc_panther.nnunet.inference.preprocessing import preprocess


@pytest.fixture
def plans(tiny_plans):
    return tiny_plans()


def volume(size_xyz, spacing_xyz, border=0, dtype=np.int16):
    rng = np.random.default_rng(sum(size_xyz))
    array = rng.integers(1, 900, size_xyz[::-1]).astype(dtype)
    array[:, :border], array[:, :, array.shape[2] - border :] = 0, 0
    return Volume(array, Geometry(size_xyz, spacing_xyz))


def stock(image, plans):
    """nnU-Net's array and its record of the crop."""
    manager = PlansManager(plans)
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        image.array_zyx[None],
        None,
        {"spacing": list(image.geometry.spacing_zyx)},
        manager,
        manager.get_configuration("3d_fullres"),
        {"labels": {"background": 0, "tumour": 1}},
    )
    return data, properties


def ours(image, plans):
    manager = PlansManager(plans)
    return preprocess(image, manager, manager.get_configuration("3d_fullres"))


CASES = {
    "nothing to resample": volume((20, 18, 9), (2.0, 2.0, 4.0)),
    "isotropic branch": volume((26, 22, 12), (1.2, 1.2, 3.0)),
    "thick slices apart": volume((26, 22, 6), (1.2, 1.2, 6.0)),
    "thick sagittal slices": volume((6, 22, 20), (7.0, 1.2, 1.3)),
    "smaller than a patch": volume((9, 8, 3), (2.1, 2.2, 4.4)),
    "air around the patient": volume((26, 22, 12), (1.2, 1.2, 3.0), border=4),
    "nothing but air": volume((12, 12, 6), (1.5, 1.5, 3.0), border=12),
    "floating point": volume((20, 18, 9), (1.7, 2.0, 4.0), dtype=np.float64),
}


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization"])
@pytest.mark.parametrize("name", CASES)
def test_the_network_s_input_is_nnunet_s(name, scheme, plans):
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = [scheme]
    expected, properties = stock(CASES[name], plans)
    found = ours(CASES[name], plans)
    assert found.data.dtype == expected.dtype
    assert np.array_equal(found.data, expected)
    assert np.array_equal(found.box, properties["bbox_used_for_cropping"])
    assert found.full_shape == tuple(properties["shape_before_cropping"])
    assert found.box_shape == tuple(properties["shape_after_cropping_and_before_resampling"])


@pytest.mark.parametrize("name", ["isotropic branch", "air around the patient"])
def test_normalisation_within_the_patient(name, plans):
    plans["configurations"]["3d_fullres"]["use_mask_for_norm"] = [True]
    array = CASES[name].array_zyx.copy()
    array[3:5, 8:10, 8:10] = 0
    image = Volume(array, CASES[name].geometry)
    assert np.array_equal(ours(image, plans).data, stock(image, plans)[0])


@pytest.mark.parametrize("forward", [[1, 0, 2], [2, 0, 1]])
def test_plans_that_turn_the_axes(forward, plans):
    plans["transpose_forward"] = forward
    image = CASES["air around the patient"]
    assert np.array_equal(ours(image, plans).data, stock(image, plans)[0])


@settings(max_examples=15)
@given(
    size=st.tuples(*[st.integers(4, 16)] * 3),
    spacing=st.tuples(*[st.floats(1.1, 7.5)] * 3),
    border=st.integers(0, 3),
)
def test_any_geometry(tiny_plans, size, spacing, border):
    plans = tiny_plans()
    image = volume(size, spacing, border)
    # One unit in the last place: an axis of two voxels that shrinks to one gives means of two
    # float32 numbers, half of which lie exactly between two float32 numbers.
    np.testing.assert_array_max_ulp(ours(image, plans).data, stock(image, plans)[0], maxulp=1)


def test_memory_order_does_not_matter_and_the_image_is_not_changed(plans):
    image = CASES["isotropic branch"]
    turned = np.asfortranarray(image.array_zyx.astype(np.float32))
    before = turned.copy()
    found = ours(Volume(turned, image.geometry), plans)
    assert np.array_equal(found.data, ours(image, plans).data)
    assert np.array_equal(turned, before)


def test_images_thinner_than_the_network_s_voxels_keep_one(plans):
    found = ours(volume((3, 2, 1), (0.5, 0.5, 0.5)), plans)
    assert found.data.shape == (1, 1, 1, 1)
    assert found.box_shape == (1, 2, 3)
