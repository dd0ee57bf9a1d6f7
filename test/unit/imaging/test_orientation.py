import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.geometry import continuous_indices, physical_points
from gc_panther.imaging.images import from_sitk, to_sitk
from gc_panther.imaging.orientation import box_from_lps, from_lps, lps_geometry, to_lps
from gc_panther.imaging.roi import Box

AXIS_ORDERS = [
    np.eye(3)[:, order] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def volume_with(direction, size_xyz=(4, 3, 5), spacing_xyz=(0.9, 1.3, 3.0)):
    x, y, z = size_xyz
    geometry = Geometry(size_xyz, spacing_xyz, (-11.0, 7.5, 120.25), tuple(np.ravel(direction)))
    return Volume(np.arange(x * y * z, dtype=np.int16).reshape(z, y, x), geometry)


def assert_as_simpleitk(volume):
    expected = from_sitk(sitk.DICOMOrient(to_sitk(volume), "LPS"))
    ours = to_lps(volume)
    assert np.array_equal(ours.array_zyx, expected.array_zyx)
    assert ours.geometry.matches(expected.geometry, tolerance=1e-9)
    assert np.array_equal(from_lps(ours.array_zyx, volume.geometry), volume.array_zyx)


@pytest.mark.parametrize("direction", AXIS_ORDERS)
def test_every_axis_order_goes_to_lps_and_back(direction):
    volume = volume_with(direction)
    assert_as_simpleitk(volume)
    assert np.allclose(np.reshape(lps_geometry(volume.geometry).direction, (3, 3)), np.eye(3))


@pytest.mark.parametrize("direction", AXIS_ORDERS[1::5])
def test_reordered_voxels_lie_in_memory_in_their_order(direction):
    # torch refuses the negative strides of a flipped view.
    volume = volume_with(direction)
    lps = to_lps(volume)
    assert lps.array_zyx.flags.c_contiguous
    assert from_lps(lps.array_zyx, volume.geometry).flags.c_contiguous


angles = st.floats(-180, 180, allow_nan=False)


@given(
    st.tuples(angles, angles, angles),
    st.sampled_from(AXIS_ORDERS),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.floats(0.3, 9), st.floats(0.3, 9), st.floats(0.3, 9)),
)
def test_oblique_directions_agree_with_simpleitk(euler, order, size_xyz, spacing_xyz):
    direction = Rotation.from_euler("xyz", euler, degrees=True).as_matrix() @ order
    assert_as_simpleitk(volume_with(direction, size_xyz, spacing_xyz))


@pytest.mark.parametrize("axes", ["x", "y", "z", "xy", "xyz"])
@pytest.mark.parametrize("nudge", [-1e-9, 0.0, 1e-9])
@pytest.mark.parametrize("order", AXIS_ORDERS[::7])
def test_axes_halfway_between_two_directions(axes, nudge, order):
    turn = Rotation.from_euler(axes, [45 + nudge] * len(axes), degrees=True).as_matrix()
    assert_as_simpleitk(volume_with(turn @ order))


def test_an_exact_tie_is_broken_as_simpleitk_does():
    half = np.sqrt(0.5)
    assert_as_simpleitk(volume_with([[half, -half, 0], [half, half, 0], [0, 0, 1]]))


@given(st.sampled_from(AXIS_ORDERS), st.tuples(angles, angles, angles), st.data())
def test_voxels_keep_their_place_in_the_patient(order, euler, data):
    volume = volume_with(Rotation.from_euler("xyz", euler, degrees=True).as_matrix() @ order)
    lps = to_lps(volume)
    x, y, z = (data.draw(st.integers(0, n - 1)) for n in lps.geometry.size_xyz)
    place = physical_points(lps.geometry, np.array([x, y, z]))
    i, j, k = np.rint(continuous_indices(volume.geometry, place)).astype(int)
    assert lps.array_zyx[z, y, x] == volume.array_zyx[k, j, i]


@given(st.sampled_from(AXIS_ORDERS), st.data())
def test_a_box_names_the_same_voxels_in_both_orders(order, data):
    volume = volume_with(order)
    lps = to_lps(volume)
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in lps.array_zyx.shape]
    box = Box(tuple(e[0] for e in ends), tuple(e[1] for e in ends))
    stored = box_from_lps(box, volume.geometry)
    assert set(lps.array_zyx[box.slices_zyx].flat) == set(volume.array_zyx[stored.slices_zyx].flat)


def test_an_array_of_another_grid_is_refused():
    volume = volume_with(AXIS_ORDERS[9])
    with pytest.raises(ValueError, match="LPS grid"):
        from_lps(np.zeros((9, 9, 9)), volume.geometry)
