import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.plausibility import (
    SAMPLE,
    ExpectedScan,
    scan_problems,
    scan_warnings,
)

EXPECTED = ExpectedScan("MRI of the abdomen", (150.0, 550.0))
SIZE_XYZ, SPACING_XYZ = (90, 80, 30), (4.0, 4.0, 5.0)


def volume(array_zyx=None, spacing_xyz=SPACING_XYZ):
    array_zyx = body() if array_zyx is None else array_zyx
    return Volume(array_zyx, Geometry(array_zyx.shape[::-1], spacing_xyz))


def body(size_xyz=SIZE_XYZ):
    """A cylinder with noise in noise, as int16."""
    x, y, z = size_xyz
    rows, columns = np.ogrid[-1 : 1 : y * 1j, -1 : 1 : x * 1j]
    inside = np.broadcast_to(rows**2 + columns**2 < 0.7, (z, y, x))
    noise = np.random.default_rng(0).normal(10, 8, (z, y, x))
    return (400 * inside + noise).clip(0).astype(np.int16)


def label_map(count, size_xyz=SIZE_XYZ):
    """As many values as asked for, in blocks."""
    x, y, z = size_xyz
    return np.broadcast_to(np.arange(x) * count // x, (z, y, x)).astype(np.uint8)


def test_a_scan_is_neither_refused_nor_warned_about():
    assert scan_problems(volume()) == []
    assert scan_warnings(volume(), EXPECTED) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_direction_of_the_slices_does_not_matter(order):
    spacing = np.array(SPACING_XYZ[::-1])[list(order)]
    turned = volume(body().transpose(order), tuple(spacing[::-1].tolist()))
    assert scan_problems(turned) == []
    assert scan_warnings(turned, EXPECTED) == []


NOISE = np.random.default_rng(0).normal(300, 100, (30, 80, 90)).astype(np.int16)
IMPOSSIBLE = {
    "noise": (volume(NOISE), "is noise"),
    "constant": (volume(np.full((30, 80, 90), 7.5)), "all voxels have the value 7.5"),
    "mask": (volume(label_map(2)), "a mask (its only values are 0 and 1)"),
    "mask of floats": (volume(label_map(2) * np.float32(0.5)), "its only values are 0 and 0.5"),
    "metres": (volume(spacing_xyz=(0.004, 0.004, 0.005)), "in millimetres, not in metres"),
    "4 cm": (volume(spacing_xyz=(0.44, 0.5, 5.0)), "39.6×40×150 mm, which is too small"),
    "3 m": (volume(spacing_xyz=(33.0, 37.5, 5.0)), "2970×3000×150 mm, which is too large"),
    "3 m along": (volume(spacing_xyz=(4.0, 4.0, 100.0)), "too large"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_scan_can_be_is_refused_in_one_sentence(name):
    image, said = IMPOSSIBLE[name]
    (problem,) = scan_problems(image)
    assert said in problem


def test_an_image_with_a_third_value_is_not_a_mask():
    """The voxel is not among those of the sample."""
    array = np.zeros((3, 512, 512), np.uint8)
    assert array.size > SAMPLE
    array[1] = 1
    assert scan_problems(volume(array, (1.0, 1.0, 3.0)))
    for place in range(array.size - 3, array.size):
        once = array.copy()
        once.flat[place] = 2
        assert scan_problems(volume(once, (1.0, 1.0, 3.0))) == []


UNUSUAL = {
    "label map": (volume(label_map(20)), "only about 20 different values"),
    "Hounsfield": (volume(body() - 1024), "as air is in CT; MRI of the abdomen is expected"),
    "noisy air": (volume((body() - 900).clip(-896)), "as air is in CT"),
    "negative": (volume((body() - 200) / 150), "% of the voxels are negative"),
    "mostly noise": (volume(NOISE + body() // 6), "hardly correlate"),
    "small": (volume(spacing_xyz=(1.5, 1.5, 5.0)), "135×120×150 mm; MRI of the abdomen usually"),
    "large": (volume(spacing_xyz=(7.0, 7.0, 5.0)), "usually covers 150 to 550 mm"),
    "one slice": (volume(body((90, 80, 1)), (4.0, 4.0, 40.0)), "only 1 slice (40 mm)"),
    "thin slab": (volume(spacing_xyz=(4.0, 4.0, 0.9)), "only 30 slices (27 mm)"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_a_scan_hardly_is_gets_a_warning(name):
    image, said = UNUSUAL[name]
    assert scan_problems(image) == []
    assert any(said in warning for warning in scan_warnings(image, EXPECTED))


def stretched(sides_mm):
    """An image of 90×80×30 voxels with these sides, mm."""
    return volume(spacing_xyz=tuple(mm / n for mm, n in zip(sides_mm, SIZE_XYZ, strict=True)))


@pytest.mark.parametrize(
    ("sides_mm", "refused", "warned"),
    [
        ((1000.0, 1000.0, 150.0), False, True),
        ((1001.0, 1001.0, 150.0), True, True),
        ((50.0, 50.0, 50.0), False, True),
        ((49.0, 49.0, 49.0), True, True),
        ((500.0, 500.0, 2500.0), False, True),
        ((500.0, 500.0, 2501.0), True, True),
        ((550.0, 550.0, 550.0), False, False),
        ((551.0, 551.0, 551.0), False, True),
        ((150.0, 150.0, 150.0), False, False),
        ((149.0, 149.0, 149.0), False, True),
        ((300.0, 300.0, 30.0), False, False),
        ((300.0, 300.0, 29.0), False, True),
    ],
)
def test_the_limits_of_an_image_s_sides(sides_mm, refused, warned):
    image = stretched(sides_mm)
    assert bool(scan_problems(image)) == refused
    assert bool(scan_warnings(image, EXPECTED)) == warned


@pytest.mark.parametrize(("slices", "warned"), [(10, False), (9, True)])
def test_ten_slices_are_enough(slices, warned):
    image = volume(body((90, 80, slices)), (4.0, 4.0, 5.0))
    assert any(f"only {slices} slices" in one for one in scan_warnings(image, EXPECTED)) == warned


@pytest.mark.parametrize(
    ("correlation", "refused", "warned"),
    [(0.04, True, True), (0.06, False, True), (0.285, False, True), (0.315, False, False)],
)
def test_how_much_neighbours_have_to_correlate(correlation, refused, warned):
    ramp = np.linspace(-np.sqrt(3), np.sqrt(3), 90)  # of unit variance, as the noise is
    noise = np.random.default_rng(0).normal(size=(30, 80, 90))
    mixed = np.sqrt(correlation) * ramp + np.sqrt(1 - correlation) * noise
    image = volume((1000 + 100 * mixed).astype(np.float32))
    assert any("is noise" in one for one in scan_problems(image)) == refused
    assert any("hardly correlate" in one for one in scan_warnings(image, EXPECTED)) == warned


def test_ringing_of_a_resampled_scan_gets_no_warning():
    """Cubic interpolation puts values below zero next to bright edges."""
    ringing = np.where(body() < 100, body() - 15, body())
    assert (ringing < 0).mean() > 0.1
    assert scan_warnings(volume(ringing), EXPECTED) == []


def test_a_few_hot_voxels_do_not_make_an_image_noise():
    hot = body().astype(np.float32)
    hot.ravel()[np.random.default_rng(0).integers(0, hot.size, 40)] = 1e6
    assert scan_problems(volume(hot)) == []
    assert scan_warnings(volume(hot), EXPECTED) == []


def test_eight_bits_are_enough():
    reduced = (body() // 4).clip(0, 255).astype(np.uint8)
    reduced[reduced > 50] += (np.arange((reduced > 50).sum()) % 60).astype(np.uint8)
    assert scan_warnings(volume(reduced), EXPECTED) == []
