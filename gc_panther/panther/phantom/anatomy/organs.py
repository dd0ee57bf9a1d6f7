"""Solid organs, lungs and heart."""

from __future__ import annotations

import numpy as np

from gc_panther.panther.phantom.anatomy.drawing import Drawing
from gc_panther.panther.phantom.render import Layer
from gc_panther.panther.phantom.shapes import (
    Array,
    Box,
    Ellipsoid,
    Implicit,
    cut,
    minus,
    point,
    smooth_union,
    spline_tube,
)


def liver(drawing: Drawing) -> Array:
    """Liver with vessels, lesions and gallbladder; return the hilum, (x, y, z) in mm."""
    u = drawing.rng.uniform
    size = drawing.scaled(1.0, 0.07)
    right = Ellipsoid(
        drawing.jitter((-66, 8, 32), 4),
        (66 * size, 84 * size, 84 * size),
        (0.0, u(-8, 8), u(-8, 8)),
    )
    left = Ellipsoid(
        drawing.jitter((2, -48, 52), 5),
        (72 * size, 34 * size, 34 * size),
        (u(-10, 10), u(5, 20), u(-10, 10)),
    )
    whole = smooth_union(right, left, 25.0)
    # The visceral surface looks down, back and to the left.
    n = np.array([0.62, 0.45, -0.64]) + drawing.rng.normal(0, 0.04, 3)
    n /= np.linalg.norm(n)
    shape = cut(whole, point(n), float(u(-38, -28)), 18.0)
    drawing.add("liver", shape, "liver", organ="liver", bumps=2.0, bump_size=35.0)
    hilum = np.array([-32.0, -14.0, 34.0])
    for tissue, source in (
        ("hepatic_vein", np.array([-22.0, 12.0, 88.0])),
        ("portal_vein", hilum),
    ):
        for _ in range(5):
            target = np.array([u(-115, -20), u(-60, 55), u(-10, 80)])
            middle = (source + target) / 2 + drawing.rng.normal(0, 8, 3)
            drawing.add(
                tissue,
                spline_tube(np.array([source, middle, target]), np.array([5.5, 3.5, 1.5]), 9.0),
                tissue,
                organ=None,
            )
    for _ in range(int(drawing.rng.integers(0, 4))):
        drawing.add(
            "liver lesion",
            Ellipsoid((u(-110, -40), u(-40, 45), u(0, 70)), (u(3, 10), u(3, 10), u(3, 10))),
            "cyst" if drawing.rng.random() < 0.4 else "lesion",
            organ=None,
        )
    gallbladder = Ellipsoid(
        drawing.jitter((-52, -45, -8), 4),
        (u(10, 17), u(24, 36), u(11, 17)),
        (u(10, 40), 0.0, u(-20, 20)),
    )
    drawing.add("gallbladder", gallbladder, "bowel_wall", Layer("bile", 1.8), organ="gallbladder")
    return hilum


def spleen_and_lungs(drawing: Drawing) -> None:
    """Spleen, the lungs' bases above the diaphragm, and the heart."""
    u = drawing.rng.uniform
    size = drawing.scaled(1.0, 0.12)
    spleen = minus(
        Ellipsoid(
            drawing.jitter((103, 34, 46), 4), (29 * size, 46 * size, 52 * size), (15.0, 0.0, -20.0)
        ),
        Ellipsoid((70, 18, 40), (32, 40, 48)),
    )
    drawing.add("spleen", spleen, "spleen", organ="spleen", bumps=1.5, bump_size=30.0)
    top = u(88, 102)

    def diaphragm(side: float) -> Implicit:
        def distance(x: Array, y: Array, z: Array) -> Array:
            dx, dy = x - np.float32(side * 70), y - np.float32(5)
            dome = np.float32(top) - (dx * dx + dy * dy) * np.float32(0.008)
            # The recess behind and beside the dome reaches lower and is thin.
            dome = np.maximum(dome, np.float32(top - 55))
            return np.maximum((dome - z) * np.float32(0.6), -x * np.float32(side))

        return Implicit(distance, Box((side * 70, 0, 115), (90, 130, 90)))

    drawing.add("right lung", diaphragm(-1.0), "lung", organ="right_lung")
    drawing.add("left lung", diaphragm(1.0), "lung", organ="left_lung")
    drawing.add(
        "heart",
        Ellipsoid((22, -38, top + 36), (62, 46, 36), (0, 15, 0)),
        "myocardium",
        Layer("cava", 9.0),
        organ="heart",
    )


def kidneys(drawing: Drawing) -> None:
    """Kidneys with sinus and pelvis, some with a cyst."""
    u = drawing.rng.uniform
    for side, name, z in ((-1.0, "right_kidney", -22.0), (1.0, "left_kidney", -6.0)):
        centre = drawing.jitter((side * 62, 42, z), 4)
        r = (drawing.scaled(27, 0.07), drawing.scaled(25, 0.07), drawing.scaled(53, 0.07))
        tilt = (u(-12, -4), side * u(6, 14), side * u(15, 35))
        drawing.add(
            name,
            Ellipsoid(centre, r, tilt),
            "kidney_cortex",
            Layer("kidney_medulla", 8.0),
            organ=name,
            bumps=1.0,
            bump_size=16.0,
        )
        sinus = point(np.add(centre, (-side * 13, -7, 0)))
        drawing.add(
            "renal sinus",
            Ellipsoid(sinus, (15, 8, 22), tilt),
            "visceral_fat",
            bumps=2.5,
            bump_size=9.0,
        )
        drawing.add("renal pelvis", Ellipsoid(sinus, (9, 3.5, 9), tilt), "cyst")
        if drawing.rng.random() < 0.35:
            radius = u(4, 14)
            place = point(np.add(centre, (side * u(8, 22), u(-14, 14), u(-40, 40))))
            drawing.add(
                "renal cyst",
                Ellipsoid(place, (radius,) * 3),
                "cyst",
                organ=None,
            )


def adrenals(drawing: Drawing) -> None:
    """Adrenal glands, two limbs each."""
    for side, name, z in ((-1.0, "right_adrenal_gland", 30), (1.0, "left_adrenal_gland", 28)):
        apex = np.array(drawing.jitter((side * 36 - 2, 28, z), 2))
        for toe in ((side * 3, 16, -10), (side * 11, 11, -8)):
            limb = np.array([apex, apex + np.multiply(toe, 0.6), apex + toe])
            drawing.add(
                "adrenal",
                spline_tube(limb, np.array([2.8, 2.3, 1.6]), 6.0),
                "adrenal",
                organ=name,
            )
