"""Parametric shapes as signed distances (negative inside), in millimetres of anatomy space.

Anatomy space is LPS with its origin between the aorta and the stomach at the level of L1/L2:
x to the patient's left, y to posterior, z to superior. Distances are exact for tubes with a
constant radius and first-order elsewhere; the renderer divides by their gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray
Point = tuple[float, float, float]


def point(values: ArrayLike) -> Point:
    """Three numbers as a tuple of floats."""
    x, y, z = np.asarray(values, float).tolist()
    return x, y, z


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in anatomy space: centre and half size along (x, y, z), mm."""

    centre: Point
    half: Point

    @classmethod
    def around(cls, boxes: Sequence[Box]) -> Box:
        """The smallest box that holds all of ``boxes``."""
        low = np.min([np.subtract(b.centre, b.half) for b in boxes], axis=0)
        high = np.max([np.add(b.centre, b.half) for b in boxes], axis=0)
        return cls(point((low + high) / 2), point((high - low) / 2))


class Shape(Protocol):
    """What the renderer asks of a shape."""

    def box(self) -> Box:
        """A box that holds the shape."""

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance at positions of one common shape, mm, float32."""


def rotation_xyz(degrees: Point) -> Array:
    """Rotation matrix, about x, then y, then z (degrees)."""
    a, b, c = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with semi-axes along (x, y, z) before it is turned by ``tilt`` degrees."""

    centre: Point
    radii: Point
    tilt: Point = (0.0, 0.0, 0.0)

    def box(self) -> Box:
        """See :class:`Shape`."""
        turned = rotation_xyz(self.tilt) * np.asarray(self.radii)
        return Box(self.centre, point(np.sqrt((turned**2).sum(axis=1))))

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """See :class:`Shape`; first-order: k0 (k0 - 1) / k1, k0 = |p/r|, k1 = |p/r²|."""
        x, y, z = (a - np.float32(c) for a, c in zip((x, y, z), self.centre, strict=True))
        if any(self.tilt):
            matrix = rotation_xyz(self.tilt).T.astype(np.float32)
            x, y, z = (row[0] * x + row[1] * y + row[2] * z for row in matrix)
        k0 = np.zeros_like(x)
        k1 = np.zeros_like(x)
        for a, r in zip((x, y, z), self.radii, strict=True):
            a = a * np.float32(1 / r)
            k0 += a * a
            a *= np.float32(1 / r)
            k1 += a * a
        np.sqrt(k0, out=k0)
        np.sqrt(k1, out=k1)
        np.maximum(k1, np.float32(1e-6), out=k1)
        return k0 * (k0 - 1) / k1


@dataclass(frozen=True)
class Tube:
    """A chain of round cones through ``points`` (n, 3) with ``radii`` (n,), mm.

    ``flatten`` stretches the cross-section along z: 1.4 makes the tube 40 % taller than deep.
    """

    points: Array
    radii: Array
    flatten: float = 1.0

    def segment_boxes(self, margin: float) -> list[Box]:
        """One box for each segment."""
        boxes = []
        for a, b, ra, rb in zip(
            self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:], strict=True
        ):
            r = max(ra, rb) + margin
            half = np.abs(b - a) / 2 + np.array([r, r, r * max(self.flatten, 1.0)])
            boxes.append(Box(tuple((a + b) / 2), tuple(half)))
        return boxes

    def box(self) -> Box:
        """See :class:`Shape`."""
        return Box.around(self.segment_boxes(0.0))

    def segment_distance(self, i: int, x: Array, y: Array, z: Array) -> Array:
        """Distance to the i-th segment alone."""
        scale = np.array([1.0, 1.0, 1.0 / self.flatten])
        a, b = self.points[i] * scale, self.points[i + 1] * scale
        ab = (b - a).astype(np.float32)
        x, y, z = (
            x - np.float32(a[0]),
            y - np.float32(a[1]),
            z * np.float32(scale[2]) - np.float32(a[2]),
        )
        along = (x * ab[0] + y * ab[1] + z * ab[2]) * np.float32(1 / max(float(ab @ ab), 1e-6))
        np.clip(along, 0, 1, out=along)
        x -= along * ab[0]
        y -= along * ab[1]
        z -= along * ab[2]
        x *= x
        x += y * y
        x += z * z
        np.sqrt(x, out=x)
        along *= np.float32(self.radii[i + 1] - self.radii[i])
        along += np.float32(self.radii[i])
        x -= along
        return x

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """See :class:`Shape`."""
        out = self.segment_distance(0, x, y, z)
        for i in range(1, len(self.points) - 1):
            np.minimum(out, self.segment_distance(i, x, y, z), out=out)
        return out


@dataclass(frozen=True)
class Implicit:
    """A shape given by a function of (x, y, z) and a box."""

    function: Callable[[Array, Array, Array], Array]
    bounds: Box

    def box(self) -> Box:
        """See :class:`Shape`."""
        return self.bounds

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """See :class:`Shape`."""
        return self.function(x, y, z)


def smooth_union(first: Shape, second: Shape, width: float) -> Implicit:
    """Both shapes with a fillet of about ``width`` mm (polynomial smooth minimum)."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        a, b = first.distance(x, y, z), second.distance(x, y, z)
        blend = np.maximum(np.float32(width) - np.abs(a - b), 0)
        return np.minimum(a, b) - blend * blend * np.float32(0.25 / width)

    return Implicit(distance, Box.around([first.box(), second.box()]))


def cut(shape: Shape, normal: Point, offset: float, width: float) -> Implicit:
    """The part of ``shape`` where ``normal · p <= offset``, its edge rounded over ``width`` mm.

    ``normal`` has unit length.
    """
    n = np.asarray(normal, np.float32)

    def distance(x: Array, y: Array, z: Array) -> Array:
        plane = n[0] * x + n[1] * y + n[2] * z - np.float32(offset)
        whole = shape.distance(x, y, z)
        blend = np.maximum(np.float32(width) - np.abs(whole - plane), 0)
        return np.maximum(whole, plane) + blend * blend * np.float32(0.25 / width)

    return Implicit(distance, shape.box())


def minus(shape: Shape, hole: Shape) -> Implicit:
    """``shape`` without ``hole``."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        return np.maximum(shape.distance(x, y, z), -hole.distance(x, y, z))

    return Implicit(distance, shape.box())


def spline_tube(points: Array, radii: Array, step: float = 5.0, flatten: float = 1.0) -> Tube:
    """A tube along the natural cubic spline through ``points``, about ``step`` mm a segment.

    Args:
        points: (n, 3) control points in (x, y, z), mm, n >= 2.
        radii: (n,) radii at the control points, mm; in between they are interpolated linearly.
        step: length of a segment, mm.
        flatten: see :class:`Tube`.
    """
    path, knots = spline_path(points, step)
    return Tube(path, np.interp(knots, np.arange(len(points)), radii), flatten)


def spline_path(points: Array, step: float = 5.0) -> tuple[Array, Array]:
    """Samples of the spline through ``points`` and their control-point coordinate (0 … n-1)."""
    from scipy.interpolate import CubicSpline

    points = np.asarray(points, float)
    if len(points) == 2:
        curve = lambda t: points[0] + np.outer(t, points[1] - points[0])  # noqa: E731
    else:
        curve = CubicSpline(np.arange(len(points)), points, bc_type="natural")
    fine = np.linspace(0, len(points) - 1, 40 * (len(points) - 1) + 1)
    length = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(curve(fine), axis=0), axis=1))]
    )
    count = max(2, int(np.ceil(length[-1] / step)) + 1)
    knots = np.interp(np.linspace(0, length[-1], count), length, fine)
    return np.asarray(curve(knots)), knots
