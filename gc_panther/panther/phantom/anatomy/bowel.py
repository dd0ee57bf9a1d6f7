"""Stomach, duodenum, small and large bowel."""

from __future__ import annotations

import numpy as np

from gc_panther.panther.phantom.anatomy.drawing import Drawing
from gc_panther.panther.phantom.anatomy.trunk import Trunk
from gc_panther.panther.phantom.shapes import Tube, spline_tube


def bowel(drawing: Drawing, trunk: Trunk) -> None:
    """Small bowel, jejunum and colon."""
    u = drawing.rng.uniform
    for _ in range(22):
        start = np.array([u(-70, 85), u(-68, 0), u(-115, -42)])
        points = [start]
        direction = drawing.rng.normal(0, 1, 3) * [1, 0.6, 0.5]
        for _ in range(3):
            direction = direction / np.linalg.norm(direction) + drawing.rng.normal(0, 0.7, 3)
            step = 22 * direction / np.linalg.norm(direction)
            new = points[-1] + step
            new[2] = min(new[2], -40)
            new[1] = min(new[1], 8)
            points.append(new)
        drawing.add(
            "small bowel",
            spline_tube(np.array(points), drawing.rng.uniform(8, 13, 4), 7.0),
            *drawing.content(
                "bowel_wall", "bowel_content", u(1.8, 3.0), gas=0.1, level=float(start[1]) - 3
            ),
            organ="small_bowel",
            bumps=1.2,
            bump_size=10.0,
        )
    # Jejunal loops reach up beside the pancreatic body and tail.
    for _ in range(3):
        start = np.array([u(35, 80), u(-55, -25), u(-35, -12)])
        loop = start + np.cumsum(drawing.rng.normal(0, 9, (3, 3)), axis=0)
        loop[:, 2] = np.minimum(loop[:, 2], -10)
        drawing.add(
            "jejunum",
            spline_tube(loop, drawing.rng.uniform(8, 11, 3), 7.0),
            *drawing.content("bowel_wall", "bowel_content", 2.4, gas=0.0, level=0.0),
            organ="small_bowel",
            bumps=1.2,
            bump_size=10.0,
        )
    w, h = trunk.half_x, trunk.half_y
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
    course += drawing.rng.normal(0, 4, course.shape)
    tube = spline_tube(course, drawing.rng.uniform(15, 21, len(course)), 10.0)
    phase = u(0, 6.28)
    haustra = tube.radii * (1 + 0.13 * np.sin(np.arange(len(tube.radii)) * 2.1 + phase))
    drawing.add(
        "colon",
        Tube(tube.points, haustra),
        *drawing.content("bowel_wall", "stool", 1.6, gas=0.7, level=-trunk.half_y + 22),
        organ="colon",
        bumps=2.0,
        bump_size=14.0,
    )


def stomach(drawing: Drawing, trunk: Trunk) -> None:
    """Stomach, more or less full."""
    u = drawing.rng.uniform
    full = u(0.7, 1.15)
    points = np.array(
        [
            drawing.jitter((52, 12, 82), 3),
            drawing.jitter((66, -6, 58), 4),
            drawing.jitter((58, -36, 34), 5),
            drawing.jitter((28, -54, 18), 4),
            drawing.jitter((-6, -52, 14), 3),
            (-27, -46, 11),
        ]
    )
    radii = np.array([26, 30, 25, 19, 14, 8]) * full
    drawing.add(
        "stomach",
        spline_tube(points, radii, 8.0),
        *drawing.content(
            "stomach_wall",
            "stomach_content",
            u(3.0, 5.0),
            gas=0.75,
            level=-trunk.half_y + u(22, 38),
        ),
        organ="stomach",
        bumps=2.5,
        bump_size=16.0,
    )


def duodenum(drawing: Drawing) -> None:
    """The duodenal loop around the pancreatic head."""
    u = drawing.rng.uniform
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
    points[1:] += np.clip(drawing.rng.standard_normal((8, 3)), -2, 2) * 1.6
    radii = drawing.rng.uniform(9, 13, len(points))
    radii[0] = 8.0
    drawing.add(
        "duodenum",
        spline_tube(points, radii, 6.0),
        *drawing.content("bowel_wall", "duodenum_content", u(2.2, 3.6), gas=0.35, level=-30),
        organ="duodenum",
        bumps=1.2,
        bump_size=8.0,
    )
