"""Smooth random fields: uniform cubic B-splines over a coarse grid of random coefficients.

One representation serves the deformation, the bias field, the texture and the bumps of an
irregular surface. The evaluation is separable and uses four taps an axis, so its cost is that
of a few passes over the image, and its result doesn't depend on a BLAS library or on threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Floats = np.ndarray
#: Values that are computed at a time.
AT_A_TIME = 2**14


def bspline_weights(position: Floats) -> tuple[np.ndarray, Floats]:
    """First knot and the four uniform cubic B-spline weights of each position.

    Args:
        position: knot coordinates, any real numbers, shape (n,).

    Returns:
        ``(first, weights)``, shapes (n,) int and (n, 4) float32; the weights add up to 1.
    """
    first = np.floor(position)
    t = position - first
    weights = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ],
        axis=1,
    )
    return first.astype(np.int64) - 1, weights.astype(np.float32)


@dataclass(frozen=True)
class SmoothField:
    """A scalar field over a box around the origin, in mm.

    Attributes:
        coefficients_zyx: B-spline coefficients.
        start_zyx: position of the first coefficient, mm.
        step_zyx: distance between coefficients, mm.
    """

    coefficients_zyx: Floats
    start_zyx: tuple[float, float, float]
    step_zyx: tuple[float, float, float]

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        half_extent_zyx: Sequence[float],
        step_zyx: tuple[float, float, float],
        centre_zyx: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> SmoothField:
        """White Gaussian coefficients, scaled so that the field has unit variance on average."""
        counts = [
            int(np.ceil(2 * h / s)) + 5 for h, s in zip(half_extent_zyx, step_zyx, strict=True)
        ]
        start = tuple(
            float(c - 0.5 * (n - 1) * s)
            for c, n, s in zip(centre_zyx, counts, step_zyx, strict=True)
        )
        values = rng.standard_normal(counts, dtype=np.float32)
        # Mean over the cell of the sum of squared weights of a cubic B-spline is 151/315 per axis.
        values *= np.float32((315 / 151) ** 1.5)
        return cls(values, start, step_zyx)  # type: ignore[arg-type]

    def on_grid(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """The field on a regular grid, shape (len(z), len(y), len(x)), float32.

        Positions beyond the coefficients take the nearest ones.
        """
        first_x, weights_x = self._taps(x, 2)
        first_y, weights_y = self._taps(y, 1)
        first_z, weights_z = self._taps(z, 0)
        values = self.coefficients_zyx
        values = sum(values[:, :, self._clip(first_x + t, 2)] * weights_x[:, t] for t in range(4))
        values = sum(
            values[:, self._clip(first_y + t, 1)] * weights_y[:, t, None] for t in range(4)
        )
        out = np.empty((len(z), len(y), len(x)), np.float32)
        taps_z = np.stack([self._clip(first_z + t, 0) for t in range(4)], axis=1)
        # A few rows at a time: they are read and written several times, and stay in the cache.
        step = max(1, AT_A_TIME // max(1, len(x)))
        for rows in (slice(start, start + step) for start in range(0, len(y), step)):
            part = values[:, rows]
            scratch = np.empty(part.shape[1:], np.float32)
            for target, taps, weights in zip(out[:, rows], taps_z, weights_z, strict=True):
                np.multiply(part[taps[0]], weights[0], out=target)
                for tap, weight in zip(taps[1:], weights[1:], strict=True):
                    np.multiply(part[tap], weight, out=scratch)
                    target += scratch
        return out

    def _taps(self, position: Floats, axis: int) -> tuple[np.ndarray, Floats]:
        start, step = self.start_zyx[axis], self.step_zyx[axis]
        return bspline_weights((np.asarray(position, np.float64) - start) / step)

    def _clip(self, index: np.ndarray, axis: int) -> np.ndarray:
        return np.clip(index, 0, self.coefficients_zyx.shape[axis] - 1)
