import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image as mpl_image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from gc_panther.case import Geometry, Volume
from gc_panther.report import captions, overlay
from gc_panther.report.overlay import draw_overlay, save_overlay

SHAPE = (20, 60, 80)
SPACING_XYZ = (1.5, 1.0, 4.0)
GEOMETRY = Geometry(SHAPE[::-1], SPACING_XYZ)


def volume(array, geometry=GEOMETRY):
    return Volume(array, geometry)


def box(start, stop):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = 1
    return mask


IMAGE = np.random.default_rng(0).normal(100.0, 10.0, SHAPE).astype(np.float32)
MASK = box((8, 20, 30), (12, 30, 44))
REFERENCE = box((8, 26, 30), (12, 40, 44))


def close_to(pixels, colour, tolerance=0.2):
    return np.abs(pixels[..., :3] - np.array(to_rgb(colour))).max(axis=-1) < tolerance


def pixels_around(figure, pixels, axes, point_mm, radius=3):
    """The pixels about a point given in mm on the axes, from the picture as written."""
    x, y = axes.transData.transform(point_mm)
    column, row = round(x), round(pixels.shape[0] - y)
    return pixels[row - radius : row + radius + 1, column - radius : column + radius + 1]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    arguments = {
        "reference": volume(REFERENCE),
        "roi": {"start_xyz": [20, 10, 4], "stop_xyz": [60, 50, 16]},
        "title": "10000_0001",
    }
    path = tmp_path_factory.mktemp("picture") / "overlay.png"
    save_overlay(volume(IMAGE), volume(MASK), path, **arguments)
    figure = draw_overlay(volume(IMAGE), volume(MASK), **arguments)
    FigureCanvasAgg(figure).draw()  # settles the axes' places
    return figure, mpl_image.imread(path)


def test_size_and_dark_background(picture):
    figure, pixels = picture
    assert pixels.shape[:2] == tuple(round(inch * overlay.DPI) for inch in
                                     (figure.get_figheight(), figure.get_figwidth()))  # fmt: skip
    assert pixels[0, 0, :3].max() == 0.0
    assert pixels[..., :3].std() > 0.05


# Middles of the box's sides, mm from the outer corner of voxel 0: x 45…66, y 20…30, z 32…48.
@pytest.mark.parametrize(
    ("panel", "points"),
    [
        (0, [(45.0, 23.0), (66.0, 23.0), (55.5, 20.0), (55.5, 30.0)]),
        (1, [(45.0, 40.0), (66.0, 40.0), (55.5, 32.0), (55.5, 48.0)]),
        (2, [(20.0, 40.0), (30.0, 40.0)]),
    ],
    ids=["axial", "coronal", "sagittal"],
)
@pytest.mark.parametrize("row", [0, 1], ids=["whole", "zoom"])
def test_the_mask_is_outlined_where_it_lies(picture, panel, points, row):
    figure, pixels = picture
    axes = figure.axes[3 * row + panel]
    for point in points:
        assert close_to(pixels_around(figure, pixels, axes, point), overlay.MASK_COLOUR).any()


def test_the_reference_and_the_region_have_their_own_colours(picture):
    figure, pixels = picture
    axial = figure.axes[0]
    below = pixels_around(figure, pixels, axial, (55.5, 40.0))
    assert close_to(below, overlay.REFERENCE_COLOUR).any()
    assert not close_to(below, overlay.MASK_COLOUR).any()
    edge = pixels_around(figure, pixels, axial, (30.0, 30.0), radius=8)
    assert close_to(edge, overlay.ROI_COLOUR).any()


def test_axial_slices_follow_radiological_convention(picture):
    axial, coronal, sagittal = picture[0].axes[:3]
    assert axial.get_xlim() == (0.0, 120.0)
    assert axial.get_ylim() == (60.0, 0.0)  # the front is on top
    assert coronal.get_ylim() == (0.0, 80.0)  # the head is on top
    assert sagittal.get_xlim() == (0.0, 60.0)
    texts = [[text.get_text() for text in axes.texts] for axes in (axial, coronal, sagittal)]
    assert [shown[:4] for shown in texts] == [list("RLAP"), list("RLSI"), list("APSI")]


def test_millimetres_are_equally_long_in_both_directions(picture):
    for axes in picture[0].axes:
        (x0, y0), (x1, y1) = axes.transData.transform([(10.0, 10.0), (20.0, 20.0)])
        assert abs(x1 - x0) == pytest.approx(abs(y1 - y0), rel=1e-3)


def test_the_largest_cross_section_is_shown():
    mask = MASK.copy()
    mask[10, 10:50, 10:70] = 1
    figure = draw_overlay(volume(IMAGE), volume(mask))
    assert "axial 11/20" in [text.get_text() for text in figure.axes[0].texts]


def magnification(axes):
    """Pixels per mm, once the figure has been drawn."""
    (left, _), (right, _) = axes.transData.transform([(0.0, 0.0), (1.0, 0.0)])
    return right - left


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_of_several_components_the_largest_is_shown_enlarged():
    mask = MASK.copy()
    mask[1:3, 2:5, 2:5] = 1
    mask[17:19, 52:58, 70:78] = 1
    figure = draw_overlay(volume(IMAGE), volume(mask))
    one = draw_overlay(volume(IMAGE), volume(MASK))
    for axes, alone in zip(figure.axes, one.axes, strict=True):
        assert axes.get_xlim() == alone.get_xlim()
        assert axes.get_ylim() == alone.get_ylim()
    assert "the largest of 3 components" in texts_of(figure.axes[3])
    assert not any("component" in text for axes in one.axes for text in texts_of(axes))
    # and all of it is what the legend measures
    assert figure.legends[0].get_texts()[0].get_text() == "mask, 4.04 mL"


@pytest.mark.parametrize(
    "mask",
    [MASK, np.ones(SHAPE, np.uint8), box((0, 0, 0), (20, 60, 2)), box((9, 29, 39), (10, 30, 40))],
    ids=["tumour", "everything", "a plate at the edge", "a voxel"],
)
@pytest.mark.parametrize("spacing_xyz", [SPACING_XYZ, (0.5, 0.5, 0.5), (4.0, 4.0, 3.0)])
def test_the_enlarged_view_is_larger(mask, spacing_xyz):
    geometry = Geometry(SHAPE[::-1], spacing_xyz)
    figure = draw_overlay(volume(IMAGE, geometry), volume(mask, geometry))
    figure.draw_without_rendering()  # settles the axes' places
    for whole, zoom in zip(figure.axes[:3], figure.axes[3:], strict=True):
        times = magnification(zoom) / magnification(whole)
        assert times >= overlay.LEAST_ENLARGEMENT * 0.999


WARNING = "The networks found no tumour: the mask (5 voxels, 0.03 mL) is not a finding"


def test_warnings_are_red_lines_that_cover_nothing(tmp_path):
    long = " ".join(["a word"] * 60)
    figure = draw_overlay(volume(IMAGE), volume(MASK), title="x", warnings=[WARNING, long])
    FigureCanvasAgg(figure).draw()
    shown = [text for text in figure.texts if text.get_color() == captions.WARNING_COLOUR]
    assert shown[0].get_text() == f"Warning: {WARNING}"
    assert " ".join(text.get_text() for text in shown[1:]) == f"Warning: {long}"
    boxes = [text.get_window_extent() for text in figure.texts]
    axes = [one.get_window_extent() for one in figure.axes]
    frame = figure.bbox
    for box_ in boxes:
        assert frame.x0 <= box_.x0
        assert box_.x1 <= frame.x1
        assert not any(box_.overlaps(other) for other in axes)
        assert sum(box_.overlaps(other) for other in boxes) == 1

    red = []
    for warnings in ([], [WARNING]):
        save_overlay(volume(IMAGE), volume(MASK), tmp_path / "o.png", warnings=warnings)
        pixels = mpl_image.imread(tmp_path / "o.png")
        red.append(close_to(pixels, captions.WARNING_COLOUR).sum())
    assert red[1] > red[0] + 500


def test_dollars_in_names_are_not_a_formula(tmp_path):
    text = r"scan$\frac$1"
    path = tmp_path / "o.png"
    save_overlay(volume(IMAGE), volume(MASK), path, title=text, warnings=[text])
    assert path.is_file()


def test_a_single_voxel_has_a_volume():
    figure = draw_overlay(volume(IMAGE), volume(box((9, 29, 39), (10, 30, 40))))
    assert figure.legends[0].get_texts()[0].get_text() == "mask, 0.006 mL"


def test_storage_order_does_not_change_the_picture():
    flipped = Geometry(
        SHAPE[::-1],
        SPACING_XYZ,
        origin_xyz=((SHAPE[2] - 1) * 1.5, 0.0, (SHAPE[0] - 1) * 4.0),
        direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    )
    roi = {"start_xyz": [20, 10, 4], "stop_xyz": [60, 50, 16]}
    roi_flipped = {"start_xyz": [80 - 60, 10, 20 - 16], "stop_xyz": [80 - 20, 50, 20 - 4]}
    pictures = []
    for geometry, step, region in ((GEOMETRY, 1, roi), (flipped, -1, roi_flipped)):
        image, mask = IMAGE[::step, :, ::step], MASK[::step, :, ::step]
        figure = draw_overlay(
            volume(image.copy(), geometry), volume(mask.copy(), geometry), roi=region
        )
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba()).copy())
    assert np.array_equal(*pictures)


def test_an_empty_mask_is_labelled_empty(tmp_path):
    nothing = volume(np.zeros(SHAPE, np.uint8))
    figure = draw_overlay(volume(IMAGE), nothing)
    assert len(figure.axes) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mask, empty"]

    figure = draw_overlay(volume(IMAGE), nothing, reference=volume(REFERENCE))
    assert len(figure.axes) == 6
    assert figure.legends[0].get_texts()[1].get_text() == "reference, 4.70 mL"


def test_a_constant_image_and_a_mask_at_the_edge(tmp_path):
    mask = np.ones(SHAPE, np.uint8)
    save_overlay(volume(np.zeros(SHAPE, np.int16)), volume(mask), tmp_path / "o.png")
    assert close_to(mpl_image.imread(tmp_path / "o.png"), overlay.MASK_COLOUR).sum() > 1000


def test_no_global_plotting_state_is_touched(tmp_path):
    # In a process of its own: other tests import stock nnU-Net, which imports pyplot.
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from gc_panther.case import Geometry, Volume\n"
        "from gc_panther.report.overlay import save_overlay\n"
        "image = Volume(np.arange(512.0).reshape(8, 8, 8), Geometry((8, 8, 8), (1.0, 1.0, 1.0)))\n"
        "mask = Volume((image.array_zyx > 300).astype(np.uint8), image.geometry)\n"
        "save_overlay(image, mask, Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "picture.png")], check=True)
    assert (tmp_path / "picture.png").is_file()
