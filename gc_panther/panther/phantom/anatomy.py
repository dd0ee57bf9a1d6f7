"""One patient's abdomen as a list of structures in painting order.

Sizes follow textbook anatomy; every patient differs in size, fat, positions and contents. The
share of tumours in head, body and tail (65 %, 20 %, 15 %) follows the distribution commonly
reported for pancreatic ductal adenocarcinoma (60-70 % head, 10-20 % body, 5-15 % tail; Artinyan et
al., HPB 2008;10:371-376; Rawla et al., World J Oncol 2019;10:10-27).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gc_panther.panther.phantom.labels import ORGANS, PANCREAS, TUMOUR
from gc_panther.panther.phantom.render import Layer, Structure
from gc_panther.panther.phantom.shapes import (
    Box,
    Ellipsoid,
    Implicit,
    Point,
    Shape,
    Tube,
    cut,
    minus,
    point,
    smooth_union,
    spline_path,
    spline_tube,
)

Array = np.ndarray

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
class Anatomy:
    """A patient.

    Attributes:
        structures: in painting order, later over earlier.
        wall: the inside of the abdominal wall (structures with ``inside`` end there).
        tumour: the planned tumour.
    """

    structures: tuple[Structure, ...]
    wall: Implicit
    tumour: TumourPlan


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient."""
    return _Builder(rng).build()


def _elliptic_cylinder(a: float, b: float, y0: float = 0.0, *, square: bool = False) -> Implicit:
    """A tall cylinder around z with half axes a (x) and b (y).

    ``square`` raises the ellipse's exponent from 2 to 2.5, as bodies are less round than ellipses.
    """
    tall = 180.0

    def distance(x: Array, y: Array, z: Array) -> Array:
        u, v = np.abs(x * np.float32(1 / a)), np.abs((y - np.float32(y0)) * np.float32(1 / b))
        if square:
            # First-order distance: s = r^2.5, so r - 1 is about 0.4 (s - 1).
            s = u * u * np.sqrt(u) + v * v * np.sqrt(v)
            return (s - 1) * np.float32(0.4 * min(a, b))
        return (np.sqrt(u * u + v * v) - 1) * np.float32(min(a, b))

    return Implicit(distance, Box((0.0, y0, 0.0), (a, b, tall)))


class _Builder:
    """Draws a patient step by step; every step appends to ``structures``."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.structures: list[Structure] = []
        self.fatness = float(np.clip(rng.normal(0.5, 0.25), 0.05, 1.0))

    # -- small helpers -------------------------------------------------------------------------

    def jitter(self, centre: Point, sigma: float) -> Point:
        return point(np.clip(self.rng.standard_normal(3), -2, 2) * sigma + centre)

    def scaled(self, value: float, spread: float = 0.1) -> float:
        return float(value * np.exp(spread * np.clip(self.rng.standard_normal(), -2, 2)))

    def add(
        self,
        name: str,
        shape: Shape,
        *layers: Layer | str,
        organ: str | None = "background",
        **more: Any,
    ) -> None:
        self.structures.append(
            Structure(
                name,
                shape,
                tuple(Layer(a) if isinstance(a, str) else a for a in layers),
                None if organ is None else ORGANS[organ],
                **more,
            )
        )

    # -- the whole patient ---------------------------------------------------------------------

    def build(self) -> Anatomy:
        wall = self.body()
        self.mesentery()
        self.liver()
        self.spleen_and_lungs()
        self.kidneys()
        self.muscles_and_spine()
        self.bowel()
        self.stomach()
        self.adrenals()
        path, knots, radii = self.pancreas()
        tumour = self.tumour(path, knots, radii)
        self.duodenum()
        self.duct(path, knots, tumour)
        self.vessels(path, knots)
        self.lookalikes(path, radii, tumour)
        return Anatomy(tuple(self.structures), wall, tumour)

    def body(self) -> Implicit:
        u = self.rng.uniform
        a, b = u(122, 136) + 10 * self.fatness, u(84, 94) + 8 * self.fatness
        muscle = u(8, 12)
        subcutaneous = 8 + 22 * self.fatness
        self.half_x, self.half_y = a, b
        outer = _elliptic_cylinder(
            a + muscle + 0.85 * subcutaneous, b + muscle + subcutaneous, 1.0, square=True
        )
        self.add("body", outer, "skin", Layer("fat", 2.2), inside=False)
        self.add(
            "wall",
            _elliptic_cylinder(a + muscle, b + muscle, square=True),
            "muscle",
            inside=False,
            bumps=1.0,
            bump_size=40.0,
        )
        cavity = _elliptic_cylinder(a, b, square=True)
        self.add("cavity", cavity, "visceral_fat", inside=False)
        return cavity

    def mesentery(self) -> None:
        """Vessels in the fat: thin, with a vein's or an artery's signal."""
        for _ in range(16):
            start = np.array([self.rng.uniform(-15, 15), self.rng.uniform(-25, 0), -35.0])
            reach = [self.rng.uniform(a, b) for a, b in ((-80, 80), (-45, 5), (-70, 10))]
            end = np.add(start, reach)
            middle = (start + end) / 2 + self.rng.normal(0, 10, 3)
            tissue = "artery" if self.rng.random() < 0.4 else "portal_vein"
            self.add(
                "mesenteric vessel",
                spline_tube(np.array([start, middle, end]), np.array([2.5, 1.8, 1.2]), 9.0),
                tissue,
            )

    def liver(self) -> None:
        u = self.rng.uniform
        size = self.scaled(1.0, 0.07)
        right = Ellipsoid(
            self.jitter((-66, 8, 32), 4),
            (66 * size, 84 * size, 84 * size),
            (0.0, u(-8, 8), u(-8, 8)),
        )
        left = Ellipsoid(
            self.jitter((2, -48, 52), 5),
            (72 * size, 34 * size, 34 * size),
            (u(-10, 10), u(5, 20), u(-10, 10)),
        )
        whole = smooth_union(right, left, 25.0)
        # The visceral surface looks down, back and to the left.
        n = np.array([0.62, 0.45, -0.64]) + self.rng.normal(0, 0.04, 3)
        n /= np.linalg.norm(n)
        shape = cut(whole, point(n), float(u(-38, -28)), 18.0)
        self.add("liver", shape, "liver", organ="liver", bumps=2.0, bump_size=35.0)
        hilum = np.array([-32.0, -14.0, 34.0])
        self.hilum = hilum
        for tissue, source in (
            ("hepatic_vein", np.array([-22.0, 12.0, 88.0])),
            ("portal_vein", hilum),
        ):
            for _ in range(5):
                target = np.array([u(-115, -20), u(-60, 55), u(-10, 80)])
                middle = (source + target) / 2 + self.rng.normal(0, 8, 3)
                self.add(
                    tissue,
                    spline_tube(np.array([source, middle, target]), np.array([5.5, 3.5, 1.5]), 9.0),
                    tissue,
                    organ=None,
                )
        for _ in range(int(self.rng.integers(0, 4))):
            self.add(
                "liver lesion",
                Ellipsoid((u(-110, -40), u(-40, 45), u(0, 70)), (u(3, 10), u(3, 10), u(3, 10))),
                "cyst" if self.rng.random() < 0.4 else "lesion",
                organ=None,
            )
        gallbladder = Ellipsoid(
            self.jitter((-52, -45, -8), 4),
            (u(10, 17), u(24, 36), u(11, 17)),
            (u(10, 40), 0.0, u(-20, 20)),
        )
        self.add("gallbladder", gallbladder, "bowel_wall", Layer("bile", 1.8), organ="gallbladder")

    def spleen_and_lungs(self) -> None:
        u = self.rng.uniform
        size = self.scaled(1.0, 0.12)
        spleen = minus(
            Ellipsoid(
                self.jitter((103, 34, 46), 4), (29 * size, 46 * size, 52 * size), (15.0, 0.0, -20.0)
            ),
            Ellipsoid((70, 18, 40), (32, 40, 48)),
        )
        self.add("spleen", spleen, "spleen", organ="spleen", bumps=1.5, bump_size=30.0)
        top = u(88, 102)

        def diaphragm(side: float) -> Implicit:
            def distance(x: Array, y: Array, z: Array) -> Array:
                dx, dy = x - np.float32(side * 70), y - np.float32(5)
                dome = np.float32(top) - (dx * dx + dy * dy) * np.float32(0.008)
                # The recess behind and beside the dome reaches lower and is thin.
                dome = np.maximum(dome, np.float32(top - 55))
                return np.maximum((dome - z) * np.float32(0.6), -x * np.float32(side))

            return Implicit(distance, Box((side * 70, 0, 115), (90, 130, 90)))

        self.add("right lung", diaphragm(-1.0), "lung", organ="right_lung")
        self.add("left lung", diaphragm(1.0), "lung", organ="left_lung")
        self.add(
            "heart",
            Ellipsoid((22, -38, top + 36), (62, 46, 36), (0, 15, 0)),
            "myocardium",
            Layer("cava", 9.0),
            organ="heart",
        )

    def kidneys(self) -> None:
        u = self.rng.uniform
        for side, name, z in ((-1.0, "right_kidney", -22.0), (1.0, "left_kidney", -6.0)):
            centre = self.jitter((side * 62, 42, z), 4)
            r = (self.scaled(27, 0.07), self.scaled(25, 0.07), self.scaled(53, 0.07))
            tilt = (u(-12, -4), side * u(6, 14), side * u(15, 35))
            self.add(
                name,
                Ellipsoid(centre, r, tilt),
                "kidney_cortex",
                Layer("kidney_medulla", 8.0),
                organ=name,
                bumps=1.0,
                bump_size=16.0,
            )
            sinus = point(np.add(centre, (-side * 13, -7, 0)))
            self.add(
                "renal sinus",
                Ellipsoid(sinus, (15, 8, 22), tilt),
                "visceral_fat",
                bumps=2.5,
                bump_size=9.0,
            )
            self.add("renal pelvis", Ellipsoid(sinus, (9, 3.5, 9), tilt), "cyst")
            if self.rng.random() < 0.35:
                radius = u(4, 14)
                place = point(np.add(centre, (side * u(8, 22), u(-14, 14), u(-40, 40))))
                self.add(
                    "renal cyst",
                    Ellipsoid(place, (radius,) * 3),
                    "cyst",
                    organ=None,
                )

    def muscles_and_spine(self) -> None:
        u = self.rng.uniform
        back = self.half_y
        for side, prefix in ((-1.0, "right"), (1.0, "left")):
            points = np.array([[side * 33, back - 17, -160], [side * 32, back - 16, 160]], float)
            self.add(
                "autochthonous muscle",
                spline_tube(points, np.array([19.0, 19.0]), 80.0),
                "muscle",
                organ=f"{prefix}_autochthonous_muscle",
                inside=False,
                bumps=1.5,
                bump_size=25.0,
            )
            points = points * [1.72, 1.0, 1.0] - [0, 3, 0]
            self.add(
                "iliocostal muscle",
                spline_tube(points, np.array([13.0, 13.0]), 80.0),
                "muscle",
                organ=f"{prefix}_autochthonous_muscle",
                inside=False,
                bumps=1.5,
                bump_size=25.0,
            )
            psoas = np.array(
                [[side * 30, 50, 5], [side * 38, 48, -45], [side * 46, 44, -160]], float
            )
            self.add(
                "psoas",
                spline_tube(psoas, np.array([9.0, 16.0, 22.0]), 15.0),
                "muscle",
                organ=f"{prefix}_iliopsoas_muscle",
            )
            crus = np.array(
                [[side * 15 - 3, 26, 75], [side * 14, 28, 20], [side * 11, 30, -15]], float
            )
            self.add("crus", spline_tube(crus, np.array([6.0, 5.0, 2.5]), 12.0), "muscle")
            lumborum = Ellipsoid((side * 62, back - 20, -70), (18, 12, 70))
            self.add("quadratus lumborum", lumborum, "muscle")
        y = 47.0
        phase = u(0, 36)
        column = _elliptic_cylinder(23.0, 17.5, y)

        def discs(x: Array, yy: Array, z: Array) -> Array:
            offset = np.abs(np.mod(z + np.float32(phase), np.float32(36.0)) - 18)
            return np.maximum(column.distance(x, yy, z), offset - np.float32(4.5))

        self.add("vertebrae", column, "cortical_bone", Layer("marrow", 1.4), organ="spine")
        self.add("discs", Implicit(discs, column.box()), "disc", organ="spine")
        # Posterior elements: an arch around the canal and a spinous process.
        self.add(
            "arch",
            _elliptic_cylinder(17.0, 15.0, y + 24),
            "cortical_bone",
            Layer("marrow", 2.0),
            organ="spine",
        )

        def process(x: Array, yy: Array, z: Array) -> Array:
            slab = np.maximum(np.abs(x) - 4, np.abs(yy - np.float32(y + 42)) - 12)
            gap = np.abs(np.mod(z + np.float32(phase), np.float32(36.0)) - 3) - 11
            return np.maximum(slab, gap)

        self.add(
            "spinous process",
            Implicit(process, Box((0, y + 42, 0), (4, 12, 180.0))),
            "cortical_bone",
            Layer("marrow", 1.5),
            organ="spine",
            inside=False,
        )
        self.add("canal", _elliptic_cylinder(9.5, 8.5, y + 24), "csf", organ="spine")
        self.add("cord", _elliptic_cylinder(5.0, 4.2, y + 25), "cord", organ="spine")

    def bowel(self) -> None:
        u = self.rng.uniform
        for _ in range(22):
            start = np.array([u(-70, 85), u(-68, 0), u(-115, -42)])
            points = [start]
            direction = self.rng.normal(0, 1, 3) * [1, 0.6, 0.5]
            for _ in range(3):
                direction = direction / np.linalg.norm(direction) + self.rng.normal(0, 0.7, 3)
                step = 22 * direction / np.linalg.norm(direction)
                new = points[-1] + step
                new[2] = min(new[2], -40)
                new[1] = min(new[1], 8)
                points.append(new)
            self.add(
                "small bowel",
                spline_tube(np.array(points), self.rng.uniform(8, 13, 4), 7.0),
                *self.content(
                    "bowel_wall", "bowel_content", u(1.8, 3.0), gas=0.1, level=float(start[1]) - 3
                ),
                organ="small_bowel",
                bumps=1.2,
                bump_size=10.0,
            )
        # Jejunal loops reach up beside the pancreatic body and tail.
        for _ in range(3):
            start = np.array([u(35, 80), u(-55, -25), u(-35, -12)])
            loop = start + np.cumsum(self.rng.normal(0, 9, (3, 3)), axis=0)
            loop[:, 2] = np.minimum(loop[:, 2], -10)
            self.add(
                "jejunum",
                spline_tube(loop, self.rng.uniform(8, 11, 3), 7.0),
                *self.content("bowel_wall", "bowel_content", 2.4, gas=0.0, level=0.0),
                organ="small_bowel",
                bumps=1.2,
                bump_size=10.0,
            )
        w, h = self.half_x, self.half_y
        ascending = [[-w + 30, 20, -140], [-w + 28, 18, -80], [-w + 32, 2, -38]]
        transverse = [
            [-w + 48, -h + 42, -34],
            [-40, -h + 24, u(-55, -40)],
            [15, -h + 22, u(-60, -40)],
            [60, -h + 28, u(-45, -25)],
            [w - 34, -h + 58, 10],
        ]
        descending = [[w - 26, 22, 12], [w - 24, 34, -40], [w - 26, 30, -140]]
        course = np.array(ascending + transverse + descending, float)
        course += self.rng.normal(0, 4, course.shape)
        tube = spline_tube(course, self.rng.uniform(15, 21, len(course)), 10.0)
        phase = u(0, 6.28)
        haustra = tube.radii * (1 + 0.13 * np.sin(np.arange(len(tube.radii)) * 2.1 + phase))
        self.add(
            "colon",
            Tube(tube.points, haustra),
            *self.content("bowel_wall", "stool", 1.6, gas=0.7, level=-self.half_y + 22),
            organ="colon",
            bumps=2.0,
            bump_size=14.0,
        )

    def content(
        self, wall: str, content: str, thickness: float, gas: float, level: float
    ) -> tuple[Layer, ...]:
        layers = [Layer(wall), Layer(content, thickness)]
        if self.rng.random() < gas:
            layers.append(Layer("gas", thickness, above=level))
        return tuple(layers)

    def stomach(self) -> None:
        u = self.rng.uniform
        full = u(0.7, 1.15)
        points = np.array(
            [
                self.jitter((52, 12, 82), 3),
                self.jitter((66, -6, 58), 4),
                self.jitter((58, -36, 34), 5),
                self.jitter((28, -54, 18), 4),
                self.jitter((-6, -52, 14), 3),
                (-27, -46, 11),
            ]
        )
        radii = np.array([26, 30, 25, 19, 14, 8]) * full
        self.add(
            "stomach",
            spline_tube(points, radii, 8.0),
            *self.content(
                "stomach_wall",
                "stomach_content",
                u(3.0, 5.0),
                gas=0.75,
                level=-self.half_y + u(22, 38),
            ),
            organ="stomach",
            bumps=2.5,
            bump_size=16.0,
        )

    def adrenals(self) -> None:
        for side, name, z in ((-1.0, "right_adrenal_gland", 30), (1.0, "left_adrenal_gland", 28)):
            apex = np.array(self.jitter((side * 36 - 2, 28, z), 2))
            for toe in ((side * 3, 16, -10), (side * 11, 11, -8)):
                limb = np.array([apex, apex + np.multiply(toe, 0.6), apex + toe])
                self.add(
                    "adrenal",
                    spline_tube(limb, np.array([2.8, 2.3, 1.6]), 6.0),
                    "adrenal",
                    organ=name,
                )

    def pancreas(self) -> tuple[Array, Array, Array]:
        """Head in the duodenal loop, neck before the portal vein, body over the aorta, tail."""
        u = self.rng.uniform
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
        points[1:] += np.clip(self.rng.standard_normal((7, 3)), -2, 2) * 1.8
        girth = self.scaled(1.0, 0.10)
        radii = np.array([9.5, 14.5, 12.5, 7.8, 8.4, 8.8, 8.6, 6.5]) * girth
        tube = spline_tube(points, radii, 5.0, flatten=1.25)
        self.pancreas_points = points
        self.add(
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
        self.add(
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
        return path, knots, np.interp(knots, np.arange(len(points)), radii)

    def tumour(self, path: Array, knots: Array, radii: Array) -> TumourPlan:
        u = self.rng.uniform
        position = str(self.rng.choice(list(POSITIONS), p=list(POSITIONS.values())))
        knot = {"head": u(0.4, 2.3), "body": u(3.3, 5.2), "tail": u(5.6, 6.8)}[position]
        i = int(np.argmin(np.abs(knots - knot)))
        diameter = 0.0
        while not NOMINAL_MM[0] <= diameter <= NOMINAL_MM[1]:
            diameter = float(self.rng.lognormal(np.log(27.0), 0.38))
        direction = self.rng.normal(0, 1, 3)
        direction /= np.linalg.norm(direction)
        # Centred in the gland up to half a radius off; the uncinate side and the front are free.
        centre = path[i] + direction * float(u(0, 0.5)) * radii[i]
        stretch = np.exp(np.clip(self.rng.standard_normal(3), -2, 2) * 0.12)
        stretch /= stretch.prod() ** (1 / 3)
        semi = point(stretch * diameter / 2)
        tilt = point(u(-45, 45, 3))
        amplitude = 0.15 * diameter / 2
        place = point(centre)
        # A large tumour may have a necrotic centre.
        layers = [Layer("tumour")]
        if diameter > 28 and self.rng.random() < 0.25:
            layers.append(Layer("necrosis", diameter * 0.36))
        self.add(
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

    def duodenum(self) -> None:
        u = self.rng.uniform
        points = np.array(
            [
                (-27, -46, 11),
                (-43, -38, 10),
                (-53, -18, -4),
                (-55, -6, -26),
                (-50, -1, -50),
                (-26, -3, -61),
                (4, -7, -60),
                (26, -8, -50),
                (36, -16, -36),
            ],
            float,
        )
        points[1:] += np.clip(self.rng.standard_normal((8, 3)), -2, 2) * 1.6
        radii = self.rng.uniform(9, 13, len(points))
        radii[0] = 8.0
        self.add(
            "duodenum",
            spline_tube(points, radii, 6.0),
            *self.content("bowel_wall", "duodenum_content", u(2.2, 3.6), gas=0.35, level=-30),
            organ="duodenum",
            bumps=1.2,
            bump_size=8.0,
        )

    def duct(self, path: Array, knots: Array, tumour: TumourPlan) -> None:
        """Pancreatic duct, dilated upstream of the tumour in most patients, and bile duct."""
        u = self.rng.uniform
        at = float(knots[np.argmin(np.linalg.norm(path - np.array(tumour.centre_xyz), axis=1))])
        upstream = knots > at + 0.25
        dilated = u(1.6, 3.2) if self.rng.random() < 0.6 else 1.0
        for part, radius in ((upstream, dilated), (~upstream & (knots < at - 0.3), 0.9)):
            points = path[part & (knots < 7.0) & (knots > 0.8)][::3]
            if len(points) > 1:
                self.add(
                    "pancreatic duct",
                    Tube(points, np.full(len(points), radius)),
                    "duct",
                    organ=None,
                    target=None,
                )
        blocked = tumour.position == "head" and self.rng.random() < 0.6
        radius = u(4.0, 7.0) if blocked else u(2.2, 3.6)
        end = self.pancreas_points[1] + (-13, 3, -2)
        points = np.array(
            [np.add(self.hilum, (-6, 3, 0)), (-34, -4, 14), np.add(end, (4, 0, 12)), end]
        )
        self.add(
            "bile duct",
            spline_tube(points, np.array([1, 1, 0.8, 0.35]) * radius, 6.0),
            "bile",
            organ=None,
            target=None,
        )

    def vessels(self, path: Array, knots: Array) -> None:
        u = self.rng.uniform
        aorta = np.array(
            [(8, 15, 170), (7, 13, 60), (5, 12, -20), (3, 13, -90), (3, 14, -170)], float
        )
        aorta[:, 0] += self.rng.normal(0, 2)
        cava = np.array(
            [(-18, 10, 170), (-21, 12, 60), (-20, 15, 0), (-19, 16, -80), (-18, 16, -170)], float
        )
        self.add(
            "vena cava",
            spline_tube(cava, self.rng.uniform(9.5, 12.5, 5), 20.0),
            "cava",
            organ="inferior_vena_cava",
        )
        self.add(
            "aorta",
            spline_tube(aorta, np.full(5, self.scaled(10.0, 0.1)), 20.0),
            "muscle",
            Layer("artery", 1.0),
            organ="aorta",
        )
        # Splenic vein along the back of body and tail, joining the superior mesenteric vein.
        behind = path[(knots >= 3.0)] + np.array([0, 8.5, -1.0])
        confluence = np.array([-7.0, -13.0, -1.0])
        hilum = np.array([[90, 26, path[-1][2] + 5]])
        splenic = np.concatenate([[confluence], behind[4::6], hilum])
        self.add(
            "splenic vein",
            spline_tube(splenic, np.full(len(splenic), u(3.6, 4.8)), 6.0),
            "portal_vein",
            organ="portal_vein_and_splenic_vein",
        )
        mesenteric = np.array([confluence, (-8, -12, -25), (-6, -15, -55), (-4, -22, -110)])
        self.add(
            "superior mesenteric vein",
            spline_tube(mesenteric, np.array([6.5, 5.5, 5.0, 4.0]), 10.0),
            "portal_vein",
            organ="portal_vein_and_splenic_vein",
        )
        portal = np.array([confluence, (-18, -12, 15), self.hilum])
        self.add(
            "portal vein",
            spline_tube(portal, np.array([6.5, 6.8, 6.0]), 7.0),
            "portal_vein",
            organ="portal_vein_and_splenic_vein",
        )
        root = aorta[1] + (0, -9, -42)
        superior = np.array(
            [root, np.add(root, (1, -9, -10)), (5, -10, -30), (4, -16, -60), (2, -22, -110)]
        )
        self.add(
            "superior mesenteric artery",
            spline_tube(superior, np.array([3.8, 3.6, 3.4, 3.0, 2.2]), 10.0),
            "artery",
        )
        celiac = aorta[1] + (0, -9, -30)
        trunk = np.add(celiac, (0, -13, 3))
        tail = path[knots >= 4.0][::8] + np.array([0, 2.0, 11.0])
        splenic_artery = np.concatenate([[celiac, trunk], tail + self.rng.normal(0, 2, tail.shape)])
        self.add(
            "splenic artery",
            spline_tube(splenic_artery, np.full(len(splenic_artery), u(1.8, 2.6)), 5.0),
            "artery",
        )
        hepatic = np.array([trunk, (-14, -20, 24), np.add(self.hilum, (4, -5, 0))])
        self.add("hepatic artery", spline_tube(hepatic, np.array([2.4, 2.2, 1.6]), 6.0), "artery")
        gastroduodenal = np.array([(-14, -20, 24), (-26, -26, 6), (-32, -23, -16)], float)
        self.add(
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
            self.add("renal vein", spline_tube(vein, np.array([5.0, 4.6, 4.0]), 8.0), "cava")
            artery = np.array([(6, 13, -6), (side * 25, 28, -8), end], float)
            self.add("renal artery", spline_tube(artery, np.array([2.8, 2.5, 2.2]), 8.0), "artery")

    def lookalikes(self, path: Array, radii: Array, tumour: TumourPlan) -> None:
        """Lymph nodes and cysts whose signal one can take for the tumour's."""
        u = self.rng.uniform
        centre = np.array(tumour.centre_xyz)
        for _ in range(int(self.rng.integers(4, 10))):
            i = int(self.rng.integers(len(path)))
            direction = self.rng.normal(0, 1, 3) * (1, 0.7, 1)
            direction /= np.linalg.norm(direction)
            size = float(u(2.5, 6.5))
            place = path[i] + direction * (radii[i] + size + float(u(1, 8)))
            if np.linalg.norm(place - centre) < tumour.diameter_mm / 2 + size + 4:
                continue  # a node grown into the tumour would count as tumour
            shape = Ellipsoid(point(place), point(size * u(0.7, 1.3, 3)))
            self.add("lymph node", shape, "node", organ=None, target=None)
        for _ in range(int(self.rng.integers(0, 3))):
            i = int(self.rng.integers(len(path)))
            size = float(u(2.0, 6.0))
            place = path[i] + self.rng.normal(0, 0.5, 3) * radii[i]
            if np.linalg.norm(place - centre) < tumour.diameter_mm / 2 + size + 3:
                continue
            self.add(
                "pancreatic cyst",
                Ellipsoid(point(place), (size,) * 3),
                "cyst",
                organ=None,
                target=None,
            )
