"""Body wall, fat, muscles and spine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gc_panther.panther.phantom.anatomy.drawing import Drawing, elliptic_cylinder
from gc_panther.panther.phantom.render import Layer
from gc_panther.panther.phantom.shapes import Array, Box, Ellipsoid, Implicit, spline_tube


@dataclass(frozen=True)
class Trunk:
    """The abdominal cavity.

    Attributes:
        wall: the inside of the abdominal wall.
        half_x: half of its width, mm.
        half_y: half of its depth, mm.
    """

    wall: Implicit
    half_x: float
    half_y: float


def body(drawing: Drawing) -> Trunk:
    """Skin, fat, muscle, and the cavity that all organs lie in."""
    u = drawing.rng.uniform
    a, b = u(122, 136) + 10 * drawing.fatness, u(84, 94) + 8 * drawing.fatness
    muscle = u(8, 12)
    subcutaneous = 8 + 22 * drawing.fatness
    outer = elliptic_cylinder(
        a + muscle + 0.85 * subcutaneous, b + muscle + subcutaneous, 1.0, square=True
    )
    drawing.add("body", outer, "skin", Layer("fat", 2.2), inside=False)
    drawing.add(
        "wall",
        elliptic_cylinder(a + muscle, b + muscle, square=True),
        "muscle",
        inside=False,
        bumps=1.0,
        bump_size=40.0,
    )
    cavity = elliptic_cylinder(a, b, square=True)
    drawing.add("cavity", cavity, "visceral_fat", inside=False)
    return Trunk(cavity, a, b)


def mesentery(drawing: Drawing) -> None:
    """Vessels in the fat: thin, with a vein's or an artery's signal."""
    for _ in range(16):
        start = np.array([drawing.rng.uniform(-15, 15), drawing.rng.uniform(-25, 0), -35.0])
        reach = [drawing.rng.uniform(a, b) for a, b in ((-80, 80), (-45, 5), (-70, 10))]
        end = np.add(start, reach)
        middle = (start + end) / 2 + drawing.rng.normal(0, 10, 3)
        tissue = "artery" if drawing.rng.random() < 0.4 else "portal_vein"
        drawing.add(
            "mesenteric vessel",
            spline_tube(np.array([start, middle, end]), np.array([2.5, 1.8, 1.2]), 9.0),
            tissue,
        )


def muscles_and_spine(drawing: Drawing, trunk: Trunk) -> None:
    """Muscles of the back, diaphragm's crura, vertebrae and discs."""
    u = drawing.rng.uniform
    back = trunk.half_y
    for side, prefix in ((-1.0, "right"), (1.0, "left")):
        points = np.array([[side * 33, back - 17, -160], [side * 32, back - 16, 160]], float)
        drawing.add(
            "autochthonous muscle",
            spline_tube(points, np.array([19.0, 19.0]), 80.0),
            "muscle",
            organ=f"{prefix}_autochthonous_muscle",
            inside=False,
            bumps=1.5,
            bump_size=25.0,
        )
        points = points * [1.72, 1.0, 1.0] - [0, 3, 0]
        drawing.add(
            "iliocostal muscle",
            spline_tube(points, np.array([13.0, 13.0]), 80.0),
            "muscle",
            organ=f"{prefix}_autochthonous_muscle",
            inside=False,
            bumps=1.5,
            bump_size=25.0,
        )
        psoas = np.array([[side * 30, 50, 5], [side * 38, 48, -45], [side * 46, 44, -160]], float)
        drawing.add(
            "psoas",
            spline_tube(psoas, np.array([9.0, 16.0, 22.0]), 15.0),
            "muscle",
            organ=f"{prefix}_iliopsoas_muscle",
        )
        crus = np.array([[side * 15 - 3, 26, 75], [side * 14, 28, 20], [side * 11, 30, -15]], float)
        drawing.add("crus", spline_tube(crus, np.array([6.0, 5.0, 2.5]), 12.0), "muscle")
        lumborum = Ellipsoid((side * 62, back - 20, -70), (18, 12, 70))
        drawing.add("quadratus lumborum", lumborum, "muscle")
    y = 47.0
    phase = u(0, 36)
    column = elliptic_cylinder(23.0, 17.5, y)

    def discs(x: Array, yy: Array, z: Array) -> Array:
        offset = np.abs(np.mod(z + np.float32(phase), np.float32(36.0)) - 18)
        return np.maximum(column.distance(x, yy, z), offset - np.float32(4.5))

    drawing.add("vertebrae", column, "cortical_bone", Layer("marrow", 1.4), organ="spine")
    drawing.add("discs", Implicit(discs, column.box()), "disc", organ="spine")
    # Posterior elements: an arch around the canal and a spinous process.
    drawing.add(
        "arch",
        elliptic_cylinder(17.0, 15.0, y + 24),
        "cortical_bone",
        Layer("marrow", 2.0),
        organ="spine",
    )

    def process(x: Array, yy: Array, z: Array) -> Array:
        slab = np.maximum(np.abs(x) - 4, np.abs(yy - np.float32(y + 42)) - 12)
        gap = np.abs(np.mod(z + np.float32(phase), np.float32(36.0)) - 3) - 11
        return np.maximum(slab, gap)

    drawing.add(
        "spinous process",
        Implicit(process, Box((0, y + 42, 0), (4, 12, 180.0))),
        "cortical_bone",
        Layer("marrow", 1.5),
        organ="spine",
        inside=False,
    )
    drawing.add("canal", elliptic_cylinder(9.5, 8.5, y + 24), "csf", organ="spine")
    drawing.add("cord", elliptic_cylinder(5.0, 4.2, y + 25), "cord", organ="spine")
