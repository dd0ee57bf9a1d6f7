"""The large vessels around the pancreas."""

from __future__ import annotations

import numpy as np

from gc_panther.panther.phantom.anatomy.drawing import Drawing
from gc_panther.panther.phantom.anatomy.pancreas import Gland
from gc_panther.panther.phantom.render import Layer
from gc_panther.panther.phantom.shapes import Array, spline_tube


def vessels(drawing: Drawing, gland: Gland, hilum: Array) -> None:
    """Aorta, vena cava, portal system, and the arteries and veins of the organs."""
    u = drawing.rng.uniform
    path, knots = gland.path, gland.knots
    aorta = np.array([(8, 15, 170), (7, 13, 60), (5, 12, -20), (3, 13, -90), (3, 14, -170)], float)
    aorta[:, 0] += drawing.rng.normal(0, 2)
    cava = np.array(
        [(-18, 10, 170), (-21, 12, 60), (-20, 15, 0), (-19, 16, -80), (-18, 16, -170)], float
    )
    drawing.add(
        "vena cava",
        spline_tube(cava, drawing.rng.uniform(9.5, 12.5, 5), 20.0),
        "cava",
        organ="inferior_vena_cava",
    )
    drawing.add(
        "aorta",
        spline_tube(aorta, np.full(5, drawing.scaled(10.0, 0.1)), 20.0),
        "muscle",
        Layer("artery", 1.0),
        organ="aorta",
    )
    # Splenic vein along the back of body and tail, joining the superior mesenteric vein.
    behind = path[(knots >= 3.0)] + np.array([0, 8.5, -1.0])
    confluence = np.array([-7.0, -13.0, -1.0])
    spleen = np.array([[90, 26, path[-1][2] + 5]])
    splenic = np.concatenate([[confluence], behind[4::6], spleen])
    drawing.add(
        "splenic vein",
        spline_tube(splenic, np.full(len(splenic), u(3.6, 4.8)), 6.0),
        "portal_vein",
        organ="portal_vein_and_splenic_vein",
    )
    mesenteric = np.array([confluence, (-8, -12, -25), (-6, -15, -55), (-4, -22, -110)])
    drawing.add(
        "superior mesenteric vein",
        spline_tube(mesenteric, np.array([6.5, 5.5, 5.0, 4.0]), 10.0),
        "portal_vein",
        organ="portal_vein_and_splenic_vein",
    )
    portal = np.array([confluence, (-18, -12, 15), hilum])
    drawing.add(
        "portal vein",
        spline_tube(portal, np.array([6.5, 6.8, 6.0]), 7.0),
        "portal_vein",
        organ="portal_vein_and_splenic_vein",
    )
    root = aorta[1] + (0, -9, -42)
    superior = np.array(
        [root, np.add(root, (1, -9, -10)), (5, -10, -30), (4, -16, -60), (2, -22, -110)]
    )
    drawing.add(
        "superior mesenteric artery",
        spline_tube(superior, np.array([3.8, 3.6, 3.4, 3.0, 2.2]), 10.0),
        "artery",
    )
    celiac = aorta[1] + (0, -9, -30)
    trunk = np.add(celiac, (0, -13, 3))
    tail = path[knots >= 4.0][::8] + np.array([0, 2.0, 11.0])
    splenic_artery = np.concatenate([[celiac, trunk], tail + drawing.rng.normal(0, 2, tail.shape)])
    drawing.add(
        "splenic artery",
        spline_tube(splenic_artery, np.full(len(splenic_artery), u(1.8, 2.6)), 5.0),
        "artery",
    )
    hepatic = np.array([trunk, (-14, -20, 24), np.add(hilum, (4, -5, 0))])
    drawing.add("hepatic artery", spline_tube(hepatic, np.array([2.4, 2.2, 1.6]), 6.0), "artery")
    gastroduodenal = np.array([(-14, -20, 24), (-26, -26, 6), (-32, -23, -16)], float)
    drawing.add(
        "gastroduodenal artery",
        spline_tube(gastroduodenal, np.array([1.8, 1.6, 1.2]), 6.0),
        "artery",
        organ=None,
        target=None,
    )
    for side, end in ((-1.0, (-50, 38, -20)), (1.0, (48, 38, -6))):
        vein = np.array(
            [
                (-16, 14, -12) if side < 0 else (-14, 6, -8),
                (side * 28, 24 if side < 0 else 8, -10),
                end,
            ],
            float,
        )
        drawing.add("renal vein", spline_tube(vein, np.array([5.0, 4.6, 4.0]), 8.0), "cava")
        artery = np.array([(6, 13, -6), (side * 25, 28, -8), end], float)
        drawing.add("renal artery", spline_tube(artery, np.array([2.8, 2.5, 2.2]), 8.0), "artery")
