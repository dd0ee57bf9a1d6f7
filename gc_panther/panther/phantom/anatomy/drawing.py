"""What every part of a patient is drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np

from gc_panther.panther.phantom.labels import ORGANS
from gc_panther.panther.phantom.render import Layer, Structure
from gc_panther.panther.phantom.shapes import Array, Box, Implicit, Point, Shape, point


class Drawing:
    """A patient being drawn; every part appends to ``structures``, later over earlier.

    Args:
        rng: all parts draw from it, in one fixed order.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.structures: list[Structure] = []
        self.fatness = float(np.clip(rng.normal(0.5, 0.25), 0.05, 1.0))

    def jitter(self, centre: Point, sigma: float) -> Point:
        """A point near ``centre``, up to two ``sigma`` (mm) off along each axis."""
        return point(np.clip(self.rng.standard_normal(3), -2, 2) * sigma + centre)

    def scaled(self, value: float, spread: float = 0.1) -> float:
        """``value`` times a random factor near 1; ``spread`` is that of its logarithm."""
        return float(value * np.exp(spread * np.clip(self.rng.standard_normal(), -2, 2)))

    def add(
        self,
        name: str,
        shape: Shape,
        *layers: Layer | str,
        organ: str | None = "background",
        **more: Any,
    ) -> None:
        """Append a structure; ``organ`` is a name of :data:`ORGANS`, None for what is below."""
        self.structures.append(
            Structure(
                name,
                shape,
                tuple(Layer(a) if isinstance(a, str) else a for a in layers),
                None if organ is None else ORGANS[organ],
                **more,
            )
        )

    def content(
        self, wall: str, content: str, thickness: float, gas: float, level: float
    ) -> tuple[Layer, ...]:
        """The layers of a hollow organ: wall, content and, with probability ``gas``, gas."""
        layers = [Layer(wall), Layer(content, thickness)]
        if self.rng.random() < gas:
            layers.append(Layer("gas", thickness, above=level))
        return tuple(layers)


def elliptic_cylinder(a: float, b: float, y0: float = 0.0, *, square: bool = False) -> Implicit:
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
