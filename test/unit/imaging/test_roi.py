import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.geometry import continuous_indices, physical_points
from gc_panther.imaging.roi import Box, bounding_box, box_on_grid, crop, paste

SHAPE = (5, 6, 7)
GRID = Geometry((7, 6, 5), (1.0, 2.0, 6.0), (10.0, -20.0, 30.0))


@st.composite
def boxes(draw, shape_zyx=SHAPE):
    ends = []
    for n in shape_zyx:
        start = draw(st.integers(0, n - 1))
        ends.append((start, draw(st.integers(start + 1, n))))
    return Box(tuple(e[0] for e in ends), tuple(e[1] for e in ends))


@st.composite
def grids(draw):
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    return Geometry(
        draw(st.tuples(*[st.integers(1, 12)] * 3)),
        draw(st.tuples(*[st.floats(0.4, 9)] * 3)),
        draw(st.tuples(*[st.floats(-50, 50)] * 3)),
        tuple(Rotation.from_euler("xyz", angles, degrees=True).as_matrix().ravel()),
    )


@given(boxes())
def test_the_bounding_box_holds_first_and_last_voxel(box):
    mask = np.zeros(SHAPE, bool)
    last = tuple(stop - 1 for stop in box.stop_zyx)
    mask[box.start_zyx] = mask[last] = True
    assert bounding_box(mask) == box
    assert box.stop_xyz == box.stop_zyx[::-1]
    assert box.start_xyz == box.start_zyx[::-1]


def test_an_empty_mask_has_no_bounding_box():
    assert bounding_box(np.zeros(SHAPE, np.uint8)) is None


@given(boxes(), st.integers(0, 2**32 - 1))
def test_cropped_values_are_pasted_back_in_place(box, seed):
    array = np.random.default_rng(seed).integers(1, 9, SHAPE)
    part = crop(Volume(array, GRID), box)
    full = paste(part.array_zyx, box, SHAPE)
    assert np.array_equal(full[box.slices_zyx], array[box.slices_zyx])
    assert np.count_nonzero(full) == np.prod(box.shape_zyx)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32])
def test_pasting_keeps_the_type_of_the_values(dtype):
    full = paste(np.ones((1, 2, 2), dtype), Box((0, 0, 0), (1, 2, 2)), SHAPE)
    assert full.dtype == dtype


@given(grids(), st.data())
def test_cropping_leaves_voxels_where_they_were(geometry, data):
    box = data.draw(boxes(geometry.shape_zyx))
    part = crop(Volume(np.zeros(geometry.shape_zyx), geometry), box)
    first = physical_points(part.geometry, np.zeros(3))
    assert np.allclose(first, physical_points(geometry, np.array(box.start_xyz)))


@pytest.mark.parametrize("box", [Box((0, 0, 0), (6, 6, 7)), Box((1, 1, 1), (1, 2, 2))])
def test_boxes_that_cannot_be_cropped_are_refused(box):
    with pytest.raises(ValueError, match="does not lie inside"):
        crop(Volume(np.zeros(SHAPE), GRID), box)


def test_pasting_into_another_shape_is_refused():
    with pytest.raises(ValueError, match="into"):
        paste(np.zeros((2, 2, 2)), Box((0, 0, 0), (1, 2, 2)), SHAPE)


def test_dilation_is_in_millimetres_and_rounds_up():
    box = Box((2, 2, 2), (3, 3, 3))
    assert box.dilate_mm(6.0, GRID) == Box((1, -1, -4), (4, 6, 9))
    assert box.dilate_mm(6.5, GRID) == Box((0, -2, -5), (5, 7, 10))
    assert box.dilate_mm(0.0, GRID) == box


@pytest.mark.parametrize("spacing", [0.7, 0.9, 1.4])
def test_dilation_takes_no_voxel_more_for_a_spacing_in_single_precision(spacing):
    stored = float(np.float32(spacing))
    assert stored < spacing
    grid = Geometry((7, 6, 5), (stored,) * 3)
    box = Box((2, 2, 2), (3, 3, 3))
    assert box.dilate_mm(30 * spacing, grid) == Box((-28,) * 3, (33,) * 3)
    assert box.dilate_mm(30.001 * spacing, grid) == Box((-29,) * 3, (34,) * 3)


def test_clipping_keeps_what_lies_on_the_grid():
    assert Box((1, -1, -4), (9, 4, 9)).clip(SHAPE) == Box((1, 0, 0), (5, 4, 7))
    assert Box((7, 7, 7), (9, 9, 9)).clip(SHAPE) == Box(SHAPE, SHAPE)
    assert Box((-3, -2, -9), (-1, 0, -4)).clip(SHAPE) == Box((0, 0, 0), (0, 0, 0))


@given(grids(), st.data())
def test_a_box_on_its_own_grid_is_itself(geometry, data):
    box = data.draw(boxes(geometry.shape_zyx))
    assert box_on_grid(box, geometry, geometry) == box


@given(grids(), grids(), st.data())
def test_a_mapped_box_holds_every_voxel_whose_centre_lies_in_the_box(coarse, fine, data):
    box = data.draw(boxes(coarse.shape_zyx))
    mapped = box_on_grid(box, coarse, fine)
    centres = np.stack(
        np.meshgrid(*(np.arange(n) for n in fine.size_xyz), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    place = continuous_indices(coarse, physical_points(fine, centres))
    low, high = np.array(box.start_xyz) - 0.5, np.array(box.stop_xyz) - 0.5
    inside = centres[((place > low + 1e-3) & (place < high - 1e-3)).all(axis=1)]
    assert (inside >= mapped.start_xyz).all()
    assert (inside < mapped.stop_xyz).all()


def test_mapping_to_a_finer_grid_covers_the_last_coarse_voxel():
    coarse = Geometry((4, 4, 4), (3.0, 3.0, 6.0), (1.0, 1.0, 2.5))
    fine = Geometry((12, 12, 24), (1.0, 1.0, 1.0))
    mapped = box_on_grid(Box((1, 1, 1), (2, 2, 2)), coarse, fine)
    assert (mapped.start_xyz, mapped.stop_xyz) == ((3, 3, 6), (6, 6, 12))


def test_mapping_to_a_coarser_grid_takes_every_touched_voxel():
    fine = Geometry((12, 12, 24), (1.0, 1.0, 1.0))
    coarse = Geometry((4, 4, 4), (3.0, 3.0, 6.0), (1.0, 1.0, 2.5))
    mapped = box_on_grid(Box((5, 3, 2), (7, 4, 4)), fine, coarse)
    assert (mapped.start_xyz, mapped.stop_xyz) == ((0, 1, 0), (2, 2, 2))
