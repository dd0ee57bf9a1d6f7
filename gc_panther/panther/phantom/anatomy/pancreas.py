"""Pancreas, tumour, ducts, and what can be taken for a tumour.

The share of tumours in head, body and tail (65 %, 20 %, 15 %) follows the distribution commonly
reported for pancreatic ductal adenocarcinoma (60-70 % head, 10-20 % body, 5-15 % tail; Artinyan et
al., HPB 2008;10:371-376; Rawla et al., World J Oncol 2019;10:10-27).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gc_panther.panther.phantom.anatomy.drawing import Drawing
from gc_panther.panther.phantom.labels import PANCREAS, TUMOUR
from gc_panther.panther.phantom.render import Layer
from gc_panther.panther.phantom.shapes import (
    Array,
    Ellipsoid,
    Tube,
    point,
    spline_path,
    spline_tube,
)

#: Share of tumours by position.
POSITIONS = {"head": 0.65, "body": 0.20, "tail": 0.15}
#: Limits of the diameter of the sphere with the labelled tumour's volume, mm.
DIAMETER_MM = (8.0, 45.0)
#: Limits of the nominal diameter: an irregular surface and the vessels that cross a tumour change
#: its volume, and the labelled tumour is to stay within DIAMETER_MM.
NOMINAL_MM = (11.0, 40.5)


@dataclass(frozen=True)
class TumourPlan:
    """Where the tumour is to be and how large.

    Attributes:
        position: ``"head"``, ``"body"`` or ``"tail"``.
        centre_xyz: in anatomy space, mm.
        diameter_mm: nominal diameter, before the surface is made irregular.
    """

    position: str
    centre_xyz: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True)
class Gland:
    """The course of the pancreas from head to tail.

    Attributes:
        points: (n, 3) control points in (x, y, z), mm.
        path: (m, 3) samples of the spline through them, mm.
        knots: (m,) control-point coordinate of each sample, 0 to n - 1.
        radii: (m,) radius of the gland at each sample, mm.
    """

    points: Array
    path: Array
    knots: Array
    radii: Array


def pancreas(drawing: Drawing) -> Gland:
    """Head in the duodenal loop, neck before the portal vein, body over the aorta, tail."""
    u = drawing.rng.uniform
    lift = u(-8, 10)
    arch = u(-6, 4)
    points = np.array(
        [
            (-29, -6, -34),
            (-30, -9, -17),
            (-22, -16, -4),
            (-4, -26 + arch, 6),
            (16, -29 + arch, 11 + 0.3 * lift),
            (40, -17 + 0.5 * arch, 16 + 0.7 * lift),
            (62, 3, 21 + lift),
            (80, 19, 25 + lift),
        ]
    )
    points[1:] += np.clip(drawing.rng.standard_normal((7, 3)), -2, 2) * 1.8
    girth = drawing.scaled(1.0, 0.10)
    radii = np.array([9.5, 14.5, 12.5, 7.8, 8.4, 8.8, 8.6, 6.5]) * girth
    tube = spline_tube(points, radii, 5.0, flatten=1.25)
    drawing.add(
        "pancreas",
        tube,
        "pancreas",
        organ="pancreas",
        target=PANCREAS,
        bumps=1.7,
        bump_size=7.0,
        mix=1.0,
    )
    uncinate = spline_tube(
        np.array([(-28, -4, -26), (-15, -3, -27), (-7, -2, -26)], float),
        np.array([10.0, 8.0, 4.5]) * girth,
        5.0,
    )
    drawing.add(
        "uncinate process",
        uncinate,
        "pancreas",
        organ="pancreas",
        target=PANCREAS,
        bumps=1.4,
        bump_size=7.0,
        mix=1.0,
    )
    path, knots = spline_path(points, 2.0)
    return Gland(points, path, knots, np.interp(knots, np.arange(len(points)), radii))


def tumour(drawing: Drawing, gland: Gland) -> TumourPlan:
    """The tumour, somewhere in the gland; a large one may have a necrotic centre."""
    u = drawing.rng.uniform
    position = str(drawing.rng.choice(list(POSITIONS), p=list(POSITIONS.values())))
    knot = {"head": u(0.4, 2.3), "body": u(3.3, 5.2), "tail": u(5.6, 6.8)}[position]
    i = int(np.argmin(np.abs(gland.knots - knot)))
    diameter = 0.0
    while not NOMINAL_MM[0] <= diameter <= NOMINAL_MM[1]:
        diameter = float(drawing.rng.lognormal(np.log(27.0), 0.38))
    direction = drawing.rng.normal(0, 1, 3)
    direction /= np.linalg.norm(direction)
    # Centred in the gland up to half a radius off; the uncinate side and the front are free.
    centre = gland.path[i] + direction * float(u(0, 0.5)) * gland.radii[i]
    stretch = np.exp(np.clip(drawing.rng.standard_normal(3), -2, 2) * 0.12)
    stretch /= stretch.prod() ** (1 / 3)
    semi = point(stretch * diameter / 2)
    tilt = point(u(-45, 45, 3))
    amplitude = 0.15 * diameter / 2
    place = point(centre)
    # A large tumour may have a necrotic centre.
    layers = [Layer("tumour")]
    if diameter > 28 and drawing.rng.random() < 0.25:
        layers.append(Layer("necrosis", diameter * 0.36))
    drawing.add(
        "tumour",
        Ellipsoid(place, semi, tilt),
        *layers,
        organ="pancreas",
        target=TUMOUR,
        bumps=amplitude,
        bump_size=max(6.0, 0.45 * diameter),
        soft=1.0,
        mix=0.0,
    )
    return TumourPlan(position, place, diameter)


def duct(drawing: Drawing, gland: Gland, tumour: TumourPlan, hilum: Array) -> None:
    """Pancreatic duct, dilated upstream of the tumour in most patients, and bile duct."""
    u = drawing.rng.uniform
    path, knots = gland.path, gland.knots
    at = float(knots[np.argmin(np.linalg.norm(path - np.array(tumour.centre_xyz), axis=1))])
    upstream = knots > at + 0.25
    dilated = u(1.6, 3.2) if drawing.rng.random() < 0.6 else 1.0
    for part, radius in ((upstream, dilated), (~upstream & (knots < at - 0.3), 0.9)):
        points = path[part & (knots < 7.0) & (knots > 0.8)][::3]
        if len(points) > 1:
            drawing.add(
                "pancreatic duct",
                Tube(points, np.full(len(points), radius)),
                "duct",
                organ=None,
                target=None,
            )
    blocked = tumour.position == "head" and drawing.rng.random() < 0.6
    radius = u(4.0, 7.0) if blocked else u(2.2, 3.6)
    end = gland.points[1] + (-13, 3, -2)
    points = np.array([np.add(hilum, (-6, 3, 0)), (-34, -4, 14), np.add(end, (4, 0, 12)), end])
    drawing.add(
        "bile duct",
        spline_tube(points, np.array([1, 1, 0.8, 0.35]) * radius, 6.0),
        "bile",
        organ=None,
        target=None,
    )


def lookalikes(drawing: Drawing, gland: Gland, tumour: TumourPlan) -> None:
    """Lymph nodes and cysts whose signal one can take for the tumour's."""
    u = drawing.rng.uniform
    path, radii = gland.path, gland.radii
    centre = np.array(tumour.centre_xyz)
    for _ in range(int(drawing.rng.integers(4, 10))):
        i = int(drawing.rng.integers(len(path)))
        direction = drawing.rng.normal(0, 1, 3) * (1, 0.7, 1)
        direction /= np.linalg.norm(direction)
        size = float(u(2.5, 6.5))
        place = path[i] + direction * (radii[i] + size + float(u(1, 8)))
        if np.linalg.norm(place - centre) < tumour.diameter_mm / 2 + size + 4:
            continue  # a node grown into the tumour would count as tumour
        shape = Ellipsoid(point(place), point(size * u(0.7, 1.3, 3)))
        drawing.add("lymph node", shape, "node", organ=None, target=None)
    for _ in range(int(drawing.rng.integers(0, 3))):
        i = int(drawing.rng.integers(len(path)))
        size = float(u(2.0, 6.0))
        place = path[i] + drawing.rng.normal(0, 0.5, 3) * radii[i]
        if np.linalg.norm(place - centre) < tumour.diameter_mm / 2 + size + 3:
            continue
        drawing.add(
            "pancreatic cyst",
            Ellipsoid(point(place), (size,) * 3),
            "cyst",
            organ=None,
            target=None,
        )
