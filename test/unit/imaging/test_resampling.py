import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.geometry import continuous_indices, physical_points
from gc_panther.imaging.resampling import resample, resampled_geometry

sizes = st.tuples(*[st.integers(1, 30)] * 3)
spacings = st.tuples(*[st.floats(0.2, 20)] * 3)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def smooth(geometry, slope=(0.5, -0.25, 0.125)):
    """A volume whose value is a linear function of the physical position."""
    indices = np.stack(
        np.meshgrid(*(np.arange(n) for n in geometry.size_xyz), indexing="ij"), axis=-1
    )
    values_xyz = physical_points(geometry, indices) @ np.array(slope)
    return Volume(np.ascontiguousarray(values_xyz.T, dtype=np.float32), geometry)


@given(sizes, spacings, spacings)
def test_the_new_grid_covers_the_old_extent_from_the_same_centre(size, old, new):
    before = Geometry(size, old, (5.0, -7.0, 11.0), OBLIQUE)
    after = resampled_geometry(before, new)
    middle = [physical_points(g, (np.array(g.size_xyz) - 1) / 2) for g in (before, after)]
    assert np.allclose(*middle)
    n, m = np.array(before.size_xyz), np.array(after.size_xyz)
    assert (m * new >= n * np.array(old) * (1 - 1e-5)).all()
    # Every new centre lies inside the old extent, so none is filled with nothing.
    for corner in (np.zeros(3), m - 1):
        index = continuous_indices(before, physical_points(after, corner))
        assert (index > -0.5).all()
        assert (index < n - 0.5).all()


def test_values_stay_at_their_place_in_the_patient():
    before = Geometry((20, 18, 16), (1.0, 1.5, 2.0), (5.0, -7.0, 11.0), OBLIQUE)
    after = resample(smooth(before), (3.0, 3.0, 6.0))
    assert after.array_zyx.dtype == np.float32
    expected = smooth(after.geometry).array_zyx
    inner = (slice(1, -1),) * 3  # beyond the outermost old centres values are held, not continued
    assert np.allclose(after.array_zyx[inner], expected[inner], atol=1e-4)


def test_whole_numbers_are_interpolated_to_fractions():
    array = np.array([[[0, 10, 20, 30]]], np.int16)
    after = resample(Volume(array, Geometry((4, 1, 1), (2.0, 1.0, 1.0))), (1.0, 1.0, 1.0))
    assert after.array_zyx.dtype == np.float32
    # The new centres lie a quarter of an old voxel from the old ones.
    inner = [2.5, 7.5, 12.5, 17.5, 22.5, 27.5]
    assert np.allclose(after.array_zyx[0, 0, 1:-1], inner)


def test_nearest_keeps_labels_and_their_type():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 7
    after = resample(
        Volume(labels, Geometry((6, 6, 6), (1.0,) * 3)), (0.5,) * 3, interpolator="nearest"
    )
    assert after.array_zyx.dtype == np.uint8
    assert set(np.unique(after.array_zyx)) == {0, 7}
    assert np.count_nonzero(after.array_zyx) == 8 * np.count_nonzero(labels)


def test_the_same_spacing_changes_nothing():
    volume = smooth(Geometry((7, 6, 5), (0.7, 1.1, 3.0), (1.0, 2.0, 3.0), OBLIQUE))
    after = resample(volume, volume.geometry.spacing_xyz)
    assert after.geometry.matches(volume.geometry)
    assert np.allclose(after.array_zyx, volume.array_zyx, atol=1e-4)


def test_an_image_smaller_than_the_new_voxel_becomes_one_voxel():
    volume = Volume(np.full((1, 2, 2), 9, np.int16), Geometry((2, 2, 1), (0.5, 0.5, 0.5)))
    after = resample(volume, (3.0, 3.0, 6.0))
    assert after.array_zyx.tolist() == [[[9.0]]]


def test_the_place_in_the_patient_does_not_change_a_single_bit():
    here = smooth(Geometry((17, 13, 11), (1.19, 1.07, 2.3), (33.3, -71.7, 11.1), OBLIQUE))
    there = Volume(here.array_zyx, Geometry((17, 13, 11), (1.19, 1.07, 2.3)))
    once, again = (resample(volume, (3.0, 3.0, 6.0)).array_zyx for volume in (here, there))
    assert np.array_equal(once, again)
