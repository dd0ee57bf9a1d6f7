"""What the scanner adds: coil sensitivity, noise, and the scale of the stored integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gc_panther.panther.phantom.fields import SmoothField

Array = np.ndarray


def bias_field(rng: np.random.Generator, z: Array, y: Array, x: Array, strength: float) -> Array:
    """A smooth, positive, multiplicative field, shape (len(z), len(y), len(x)), float32.

    Args:
        rng: random numbers.
        z: positions of the slices, mm, relative to the image's centre (y and x likewise).
        y: positions of the rows, mm.
        x: positions of the columns, mm.
        strength: standard deviation of the logarithm of its B-spline coefficients.
    """
    half = tuple(float(np.abs(a).max()) for a in (z, y, x))
    field = SmoothField.random(rng, half, (120.0, 110.0, 120.0))
    # A B-spline of positive coefficients is positive, and few numbers need an exponential.
    positive = np.exp(strength * field.coefficients_zyx.astype(np.float64)).astype(np.float32)
    return replace(field, coefficients_zyx=positive).on_grid(z, y, x)


def add_rician_noise(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Magnitude of a complex image whose two channels have Gaussian noise.

    Args:
        image: true magnitude, any shape, float32; overwritten.
        sigma: standard deviation of either channel, in the image's units.
        rng: random numbers.

    Returns:
        The noisy magnitude; where the image is 0 it has a Rayleigh distribution of mean
        sigma sqrt(pi/2) (Gudbjartsson and Patz, Magn Reson Med 1995;34:910-914).
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(sigma)
    image += noise
    image *= image
    rng.standard_normal(dtype=np.float32, out=noise)
    noise *= np.float32(sigma)
    noise *= noise
    image += noise
    return np.sqrt(image, out=image)


def to_integers(image: Array, scale: float) -> Array:
    """Stored values: ``round(image * scale)`` as int16, clipped to 0 … 32767."""
    scaled = image * np.float32(scale)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 32767).astype(np.int16)
