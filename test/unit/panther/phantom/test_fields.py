import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gc_panther.panther.phantom.fields import SmoothField, bspline_weights


@settings(max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_the_weights_are_a_partition_of_unity(positions):
    first, weights = bspline_weights(np.array(positions))
    assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert (weights >= -1e-7).all()
    assert (first == np.floor(positions) - 1).all()


def test_the_weights_at_a_knot():
    first, weights = bspline_weights(np.array([4.0]))
    assert first[0] == 3
    assert weights[0] == pytest.approx([1 / 6, 4 / 6, 1 / 6, 0.0])


def test_a_linear_field_is_reproduced():
    """Cubic B-splines reproduce straight lines exactly."""
    steps = (5.0, 7.0, 11.0)
    start = (-40.0, -40.0, -60.0)
    z, y, x = (s + d * np.arange(15) for s, d in zip(start, steps, strict=True))
    coefficients = (0.3 * z[:, None, None] - 0.2 * y[:, None] + 0.1 * x + 2).astype(np.float32)
    field = SmoothField(coefficients, start, steps)

    grid = (np.linspace(-20, 15, 6), np.linspace(-20, 30, 5), np.linspace(-30, 50, 7))
    expected = 0.3 * grid[0][:, None, None] - 0.2 * grid[1][:, None] + 0.1 * grid[2] + 2
    assert field.on_grid(*grid) == pytest.approx(expected, abs=1e-4)


def test_random_fields_have_unit_variance_and_are_smooth():
    axis = np.arange(-100.0, 100.0, 2.0)
    field = SmoothField.random(np.random.default_rng(0), (100, 100, 100), (10.0, 10.0, 10.0))
    values = field.on_grid(axis, axis, axis)
    assert values.dtype == np.float32
    assert float(values.std()) == pytest.approx(1.0, abs=0.1)
    assert float(np.abs(np.diff(values, axis=2)).max()) < 1.5  # unrelated values: about 7


def test_a_part_of_the_grid_has_the_values_of_the_whole():
    axis = np.arange(-30.0, 30.0, 1.5)
    field = SmoothField.random(np.random.default_rng(1), (30, 30, 30), (8.0, 9.0, 10.0))
    whole = field.on_grid(axis, axis, axis)
    part = field.on_grid(axis[3:9], axis[5:20], axis[7:8])
    np.testing.assert_array_equal(part, whole[3:9, 5:20, 7:8])
