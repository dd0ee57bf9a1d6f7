import numpy as np
import pytest
from gc_panther_task2.localizer import SPACING_XYZ, Pancreas
from gc_panther_task2.roi import MARGIN_MM, find_region
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.geometry import physical_points
from gc_panther.imaging.resampling import resample
from gc_panther.imaging.roi import Box
from gc_panther.task import RunContext

OBLIQUE = (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0)


class FakeLocalizer:
    """Sees the pancreas where the image is bright."""

    def find(self, volume_lps, run):
        searched = resample(volume_lps, SPACING_XYZ)
        return Pancreas(Volume(searched.array_zyx > 0.5, searched.geometry), {"folds": [0]})


class FixedLocalizer:
    """Sees the pancreas in one given voxel of a given grid."""

    def __init__(self, geometry, index_zyx):
        mask = np.zeros(geometry.shape_zyx, bool)
        mask[index_zyx] = True
        self._pancreas = Pancreas(Volume(mask, geometry), {})

    def find(self, volume_lps, run):
        return self._pancreas


def test_a_block_is_cut_with_thirty_millimetres_around_it():
    array = np.zeros((60, 120, 120), np.float32)
    array[24:36, 60:72, 48:66] = 1.0
    geometry = Geometry((120, 120, 60), (1.0, 1.0, 2.0), (5.0, -8.0, 100.0), OBLIQUE)
    region = find_region(Volume(array, geometry), FakeLocalizer(), RunContext())
    # Aligned to the searched voxels: the block's own bounds are met exactly.
    assert region.box == Box((24 - 15, 30, 18), (36 + 15, 102, 96))
    assert region.found
    assert np.array_equal(region.volume.array_zyx, array[region.box.slices_zyx])
    first = physical_points(region.volume.geometry, np.zeros(3))
    assert np.allclose(first, physical_points(geometry, np.array([18, 30, 9])))


def test_the_region_ends_at_the_image():
    array = np.zeros((10, 60, 60), np.float32)
    array[0:6, 0:6, 54:60] = 1.0
    geometry = Geometry((60, 60, 10), (1.0, 1.0, 2.0))
    region = find_region(Volume(array, geometry), FakeLocalizer(), RunContext())
    assert region.box == Box((0, 0, 24), (10, 36, 60))


def test_without_a_pancreas_the_whole_image_is_kept():
    volume = Volume(np.zeros((4, 5, 6), np.float32), Geometry((6, 5, 4), (1.0,) * 3))
    region = find_region(volume, FakeLocalizer(), RunContext())
    assert not region.found
    assert region.box == Box.whole((4, 5, 6))
    assert np.array_equal(region.volume.array_zyx, volume.array_zyx)
    assert region.volume.geometry == volume.geometry


@pytest.mark.parametrize("corner", [0, -1])
def test_the_outermost_searched_voxel_still_gives_a_region(corner):
    geometry = Geometry((7, 5, 3), (0.4, 0.5, 0.6))
    volume = Volume(np.zeros((3, 5, 7), np.float32), geometry)
    searched = resample(volume, SPACING_XYZ).geometry
    region = find_region(volume, FixedLocalizer(searched, (corner,) * 3), RunContext())
    assert region.found
    assert region.box == Box.whole((3, 5, 7))


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.floats(0.3, 12.0)] * 3),
    st.data(),
)
def test_any_searched_voxel_is_inside_the_region(size_xyz, spacing_xyz, data):
    geometry = Geometry(size_xyz, spacing_xyz, (1.0, 2.0, 3.0), OBLIQUE)
    volume = Volume(np.zeros(geometry.shape_zyx, np.float32), geometry)
    searched = resample(volume, SPACING_XYZ).geometry
    seen = tuple(data.draw(st.integers(0, n - 1)) for n in searched.shape_zyx)
    box = find_region(volume, FixedLocalizer(searched, seen), RunContext()).box
    assert box.clip(geometry.shape_zyx) == box
    assert 0 not in box.shape_zyx
    # The region reaches at least 30 mm from the seen voxel's centre, or to the image's edge.
    centre = physical_points(searched, np.array(seen[::-1]))
    axes = np.reshape(geometry.direction, (3, 3))
    place = (centre - geometry.origin_xyz) @ axes / np.array(spacing_xyz)
    reach = MARGIN_MM / np.array(spacing_xyz)
    low = np.maximum(np.ceil(place - reach - 1e-6), 0)
    high = np.minimum(np.floor(place + reach + 1e-6), np.array(size_xyz) - 1)
    assert (np.array(box.start_xyz) <= low).all()
    assert (np.array(box.stop_xyz) > high).all()
