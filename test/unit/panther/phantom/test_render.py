import numpy as np
import pytest

from gc_panther.panther.phantom.fields import SmoothField
from gc_panther.panther.phantom.render import Canvas, Layer, Space, Structure
from gc_panther.panther.phantom.shapes import (
    Box,
    Ellipsoid,
    Implicit,
    Tube,
    minus,
    rotation_xyz,
    smooth_union,
    spline_path,
    spline_tube,
)

SPACING_ZYX = (3.0, 1.2, 1.2)


def plain_space(shape_zyx=(24, 50, 50), amplitude=0.0, matrix=None):
    axes = tuple(
        (np.arange(n) - 0.5 * (n - 1)) * s for n, s in zip(shape_zyx, SPACING_ZYX, strict=True)
    )
    rng = np.random.default_rng(0)
    fields = tuple(SmoothField.random(rng, (80, 80, 80), (40.0, 40.0, 40.0)) for _ in "xyz")
    matrix = np.eye(3) if matrix is None else matrix
    return Space(axes, SPACING_ZYX, matrix, np.zeros(3), fields, (amplitude,) * 3)


def canvas(space=None):
    signal = {"fat": 1.0, "liver": 2.0, "bile": 5.0, "visceral_fat": 1.0}
    return Canvas(
        space or plain_space(), signal, dict.fromkeys(signal, 0.0), 0.0, np.random.default_rng(0)
    )


def test_partial_volume_keeps_the_volume():
    """The shares add up to a ball's volume, thick slices or not."""
    picture = canvas()
    radius = 14.0
    picture.paint(Structure("ball", Ellipsoid((0.4, -0.3, 0.9), (radius,) * 3), (Layer("fat"),)))
    volume = float(picture.image_zyx.sum()) * np.prod(SPACING_ZYX)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)
    assert picture.image_zyx.max() == 1.0


def test_a_surface_across_the_slices_is_blurred_by_the_slice():
    # A horizontal surface in the middle of a slice fills half of it; a vertical one is sharp.
    middle = plain_space().axes_zyx[0][12]
    box = Box((0, 0, 0), (100, 100, 100))
    picture = canvas()
    picture.paint(Structure("below", Implicit(lambda x, y, z: z - middle, box), (Layer("fat"),)))
    assert picture.image_zyx[12, 25, 25] == pytest.approx(0.5, abs=1e-3)
    assert picture.image_zyx[11, 25, 25] == 1.0
    assert picture.image_zyx[13, 25, 25] == 0.0


def test_later_structures_cover_earlier_ones_and_set_labels():
    picture = canvas()
    picture.paint(Structure("a", Ellipsoid((0, 0, 0), (20,) * 3), (Layer("fat"),), 5, 2))
    picture.paint(
        Structure("b", Ellipsoid((0, 0, 0), (8,) * 3), (Layer("liver"), Layer("bile", 4.0)), 7, 1)
    )
    picture.paint(Structure("c", Ellipsoid((14, 0, 0), (3,) * 3), (Layer("bile"),), None, None))
    centre = tuple(n // 2 for n in picture.image_zyx.shape)
    assert picture.image_zyx[centre] == pytest.approx(5.0)
    assert picture.organs_zyx[centre] == 7
    assert picture.target_zyx[centre] == 1
    vessel = (centre[0], centre[1], centre[2] + 12)
    assert picture.image_zyx[vessel] > 4.0
    assert picture.organs_zyx[vessel] == 5  # a vessel without a label leaves the organ's


def test_boxes_find_their_shapes_under_rotation_and_displacement():
    space = plain_space((40, 90, 90), 5.0, rotation_xyz((4, -4, 4)) * 1.05)
    q = space.coordinates()
    for centre in ((0, 0, 0), (25, -20, 15), (-30, 25, -30)):
        ball = Ellipsoid(centre, (9.0, 6.0, 12.0), (20, 0, 40))
        inside = ball.distance(*q) < 0
        where = space.slices(ball.box(), q, 3.0)
        cropped = np.zeros_like(inside)
        cropped[where] = inside[where]
        assert inside.any()
        np.testing.assert_array_equal(cropped, inside)


def test_a_shape_outside_the_image_is_skipped():
    picture = canvas()
    picture.paint(Structure("far", Ellipsoid((500, 0, 0), (10,) * 3), (Layer("fat"),)))
    line = np.array([[400.0, 0, 0], [420, 0, 0]])
    picture.paint(Structure("far", Tube(line, np.array([3.0, 3.0])), (Layer("fat"),)))
    assert not picture.image_zyx.any()


def grid(points):
    return tuple(np.asarray(p, np.float32) for p in np.transpose(points))


def test_distances_by_hand():
    ball = Ellipsoid((1, 2, 3), (5.0, 5.0, 5.0))
    assert ball.distance(*grid([(1, 2, 3 + 7), (1 + 5, 2, 3)])) == pytest.approx([2, 0], abs=1e-5)
    cone = Tube(np.array([[0.0, 0, 0], [10, 0, 0]]), np.array([2.0, 4.0]))
    assert cone.distance(*grid([(5, 6, 0), (-3, 0, 0), (10, 0, 0)])) == pytest.approx([3, 1, -4])
    hollow = minus(ball, Ellipsoid((1, 2, 3), (2.0, 2.0, 2.0)))
    assert hollow.distance(*grid([(1, 2, 3 + 1)]))[0] > 0
    both = smooth_union(ball, Ellipsoid((11, 2, 3), (5.0, 5.0, 5.0)), 4.0)
    assert both.distance(*grid([(6, 2, 3)]))[0] == pytest.approx(-1.0, abs=1e-4)


def test_splines_pass_through_their_points():
    points = np.array([[0, 0, 0], [10, 5, 0], [20, -5, 5], [40, 0, 10]], float)
    path, knots = spline_path(points, 0.5)
    for control in points:
        assert np.linalg.norm(path - control, axis=1).min() < 0.5
    assert knots[0] == 0
    assert knots[-1] == pytest.approx(3)
    tube = spline_tube(points, np.array([1.0, 2, 3, 4]), 3.0)
    assert tube.radii[0] == 1.0
    assert tube.radii[-1] == 4.0
