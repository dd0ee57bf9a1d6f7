import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack

from gc_panther.nnunet.inference.resampling import resample

SIZES = st.tuples(*[st.integers(1, 14)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.8, 1.0, 1.19, 2.0, 3.3, 6.0])] * 3)


class Partial:
    """What nnU-Net's ConfigurationManager hands out."""

    def __init__(self, func, **keywords):
        self.func, self.keywords = func, keywords

    def __call__(self, *arguments):
        return self.func(*arguments, **self.keywords)


def stock(order, order_z=0, separate=None):
    return Partial(
        resample_data_or_seg_to_shape,
        is_seg=False,
        order=order,
        order_z=order_z,
        force_separate_z=separate,
    )


def channels(shape, dtype, count=2):
    rng = np.random.default_rng(sum(shape))
    return rng.normal(3, 40, (count, *shape)).astype(dtype)


@settings(max_examples=40)
@given(
    old=SIZES,
    new=SIZES,
    current=SPACINGS,
    target=SPACINGS,
    kind=st.sampled_from([(3, np.float32), (1, np.float16), (1, np.float32)]),
    order_z=st.sampled_from([0, 1]),
    separate=st.sampled_from([None, False, True]),
)
def test_equals_nnunet(old, new, current, target, kind, order_z, separate):
    order, dtype = kind
    data, function = channels(old, dtype), stock(order, order_z, separate)
    expected = function(data, new, current, target)
    found = resample(data, new, current, target, function)
    assert found.dtype == expected.dtype
    # Where a value lies exactly between two numbers, either may be the rounded one.
    steps = np.abs(np.subtract(found, expected, dtype=np.float64)) / np.spacing(np.abs(expected))
    assert steps.max() <= 1


@pytest.mark.parametrize("old", [(9, 21, 26), (22, 30, 17)])
@pytest.mark.parametrize("current", [(3.0, 1.19, 1.19), (7.0, 1.3, 1.4)])
def test_images_equal_nnunet_s_to_the_last_bit(old, current):
    data, new = channels(old, np.float32), (14, 20, 24)
    expected = stock(3)(data, new, current, (5.0, 2.7, 2.7))
    assert np.array_equal(resample(data, new, current, (5.0, 2.7, 2.7), stock(3)), expected)


@pytest.mark.parametrize("spacing", [(3.0, 1.19, 1.19), (7.0, 1.3, 1.4)])
def test_labels_of_resampled_logits_equal_nnunet_s(spacing):
    logits, new = channels((14, 20, 24), np.float16, count=3), (22, 46, 51)
    expected = stock(1)(logits, new, (5.0, 2.7, 2.7), spacing)
    found = resample(logits, new, (5.0, 2.7, 2.7), spacing, stock(1))
    assert np.array_equal(found.argmax(0), expected.argmax(0))


def test_the_coarse_axis_is_interpolated_by_itself():
    data = channels((4, 10, 10), np.float32)
    apart = resample(data, (8, 10, 10), (6.0, 1.0, 1.0), (3.0, 1.0, 1.0), stock(3))
    together = resample(data, (8, 10, 10), (3.0, 1.0, 1.0), (1.5, 1.0, 1.0), stock(3))
    assert np.array_equal(apart[:, ::2], data)
    assert not np.array_equal(together[:, ::2], data)


def test_the_range_of_the_input_is_kept():
    data = np.zeros((1, 9, 9, 9), np.float32)
    data[0, 4:, 4:, 4:] = 1
    found = resample(data, (20, 20, 20), (1, 1, 1), (0.45, 0.45, 0.45), stock(3))
    assert found.min() == 0
    assert found.max() == 1


def test_another_resampling_function_is_called():
    data = channels((4, 4, 4), np.float32)
    found = resample(data, (4, 4, 4), (1, 1, 1), (1, 1, 1), Partial(no_resampling_hack))
    assert np.array_equal(found, data)
    seen = []
    function = Partial(lambda *arguments, **kw: seen.append((arguments[1], kw)) or data, is_seg=0)
    resample(data, (9, 4, 4), (1, 1, 1), (0.5, 1, 1), function)
    assert seen == [((9, 4, 4), {"is_seg": 0})]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_input_stays_as_it_is(dtype):
    data = channels((5, 6, 7), dtype)
    before = data.copy()
    resample(data, (8, 9, 3), (1, 1, 1), (1, 1, 1), stock(1))
    assert np.array_equal(data, before)
