import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from gc_panther import memory
from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.checks import (
    MOST_VOXELS,
    ORTHONORMAL_TOLERANCE,
    check_geometry,
    check_header,
    check_voxels,
)
from gc_panther.imaging.formats.header import Header
from gc_panther.imaging.images import from_sitk
from gc_panther.imaging.resampling import resample

NAN, INF = float("nan"), float("inf")


@given(st.lists(st.integers(1, 2**40), min_size=3, max_size=3))
def test_a_grid_is_refused_by_its_number_of_voxels(size):
    if size[0] * size[1] * size[2] <= MOST_VOXELS:
        check_voxels(size, where="image")
    else:
        with pytest.raises(InputError, match="too large"):
            check_voxels(size, where="image")


def test_a_spacing_that_makes_a_small_image_huge_is_refused_before_it_is_resampled():
    volume = Volume(np.zeros((10, 10, 10), np.int16), Geometry((10, 10, 10), (1e30,) * 3))
    with pytest.raises(InputError, match="too large when resampled to"):
        resample(volume, (3.0, 3.0, 6.0))


@pytest.mark.parametrize(
    ("size", "grid", "match"),
    [
        ((1, 1, 1000), {"spacing_xyz": (1.0, 1.0, 1e5)}, "1×1×100000 mm apart"),
        ((8, 8, 512), {"spacing_xyz": (3.0, 3.0, 3000.0)}, "3×3×3000 mm apart"),
        ((1, 1, 2_000_000), {"spacing_xyz": (1.0, 1.0, 1.0)}, r"1×1×2e.06 mm large"),
        ((64, 64, 64), {"spacing_xyz": (20.0, 20.0, 40.0)}, "1280×1280×2560 mm large"),
        ((5, 5, 5), {"spacing_xyz": (0.0, 1.0, 1.0)}, "0×1×1 mm apart"),
        ((5, 5, 5), {"spacing_xyz": (-1.0, 1.0, 1.0)}, "-1×1×1 mm apart"),
        ((5, 5, 5), {"spacing_xyz": (1e-4, 1.0, 1.0)}, "mm apart"),
        ((5, 5, 5), {"spacing_xyz": (NAN, 1.0, 1.0)}, "NaN"),
        ((5, 5, 5), {"spacing_xyz": (INF, 1.0, 1.0)}, "infinite"),
        ((5, 5, 5), {"origin_xyz": (0.0, NAN, 0.0)}, "NaN"),
        ((5, 5, 5), {"origin_xyz": (0.0, 1e6, 0.0)}, "origin 0, 1e.06, 0 mm is too far"),
        ((5, 5, 5), {"direction": (NAN,) * 9}, "NaN"),
        ((5, 5, 5), {"direction": (0.0,) * 9}, "right angles"),
        ((5, 5, 5), {"direction": (1e308,) * 9}, "right angles"),
        ((5, 5, 5), {"direction": (1.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, "right angles"),
        ((5, 5, 5), {"direction": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)}, "right angles"),
    ],
)
def test_a_grid_that_no_scanner_makes(size, grid, match):
    geometry = Geometry(size, **{"spacing_xyz": (1.0, 1.0, 1.0), **grid})
    with pytest.raises(InputError, match=match) as caught:
        check_geometry(geometry, where="image")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((5, 5, 5), {"spacing_xyz": (1e-3, 1.0, 100.0)}),
        ((25, 5, 5), {"spacing_xyz": (100.0, 1.0, 1.0)}),
        ((5, 5, 5), {"origin_xyz": (1e5, 0.0, -1e5)}),
    ],
)
def test_a_grid_at_the_limits_of_a_scanner(size, grid):
    check_geometry(Geometry(size, **{"spacing_xyz": (1.0, 1.0, 1.0), **grid}), where="image")


@pytest.mark.parametrize(
    ("size", "components", "dtype", "match"),
    [
        ((5, 5), 1, "<i2", r"not a volume \(its size is 5×5\)"),
        ((5, 5, 5, 5), 1, "<i2", "not a volume"),
        ((5, 0, 5), 1, "<i2", "not a volume"),
        ((5, 5, 5), 3, "<u1", "several values per voxel"),
        ((5, 5, 5), 1, "<c8", "several values per voxel"),
    ],
)
def test_what_is_not_a_greyscale_volume(size, components, dtype, match):
    with pytest.raises(InputError, match=match):
        check_header(Header(size, np.dtype(dtype), components=components), where="image")


def test_a_header_that_passes_gives_the_grid():
    grid = Geometry(
        (5, 6, 7), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)
    )
    header = Header((5, 6, 7), np.dtype("<i2"), grid.spacing_xyz, grid.origin_xyz, grid.direction)
    assert check_header(header, where="image") == grid


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_the_tolerance_of_right_angles(share):
    direction = (1.0, share * ORTHONORMAL_TOLERANCE, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry((5, 5, 5), (1.0, 1.0, 1.0), direction=direction)
    if share < 1:
        check_geometry(geometry, where="image")
    else:
        with pytest.raises(InputError, match="right angles"):
            check_geometry(geometry, where="image")


@given(
    st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.sampled_from([np.float32, np.float16])
)
def test_rounding_in_a_rotation_is_no_shear(values, kind):
    axes, _ = np.linalg.qr(np.reshape(values, (3, 3)) + 2 * np.eye(3))
    rounded = axes.astype(kind).astype(float)
    if kind is np.float16:
        rounded = np.round(axes, 4)  # as many decimals as DICOM's writers give at least
    check_geometry(
        Geometry((5, 5, 5), (1.0, 1.0, 1.0), direction=tuple(rounded.ravel())), where="image"
    )


@pytest.mark.parametrize(
    ("spacing", "match"), [((1e5, 1.0, 1.0), "mm apart"), ((1.0, 1.0, 1.0), None)]
)
def test_images_in_memory_are_checked_as_well(spacing, match):
    image = sitk.Image([4, 5, 6], sitk.sitkInt16)
    image.SetSpacing(spacing)
    if match is None:
        assert from_sitk(image).geometry.spacing_xyz == spacing
    else:
        with pytest.raises(InputError, match=match):
            from_sitk(image)


def test_an_image_that_needs_more_memory_than_there_is(monkeypatch):
    header = Header((512, 512, 256), np.dtype("<f8"))
    monkeypatch.setattr(memory, "available_memory", lambda: 8e9)
    check_header(header, where="image")
    monkeypatch.setattr(memory, "available_memory", lambda: 1e9)
    with pytest.raises(InputError, match=r"needs about 2\.\d+ GB of memory .* and 1 GB are"):
        check_header(header, where="image")
    small = Header((10, 10, 10), np.dtype("<f8"))
    with pytest.raises(InputError, match="memory when read"):
        check_header(small, where="image", stored=2 * 10**9)
