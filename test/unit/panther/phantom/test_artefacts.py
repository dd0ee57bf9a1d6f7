import numpy as np
import pytest

from gc_panther.panther.phantom.artefacts import add_rician_noise, bias_field, to_integers


def test_noise_without_signal_is_rayleigh():
    sigma = 3.0
    noise = add_rician_noise(np.zeros((80, 80, 80), np.float32), sigma, np.random.default_rng(0))
    assert float(noise.mean()) == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.005)
    assert float(noise.std()) == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.005)


def test_noise_on_signal_is_rician():
    signal, sigma = 20.0, 2.0
    image = np.full((60, 80, 80), signal, np.float32)
    noisy = add_rician_noise(image, sigma, np.random.default_rng(1)).astype(float)
    # The second moment of a Rice distribution is exactly A^2 + 2 sigma^2.
    assert (noisy**2).mean() == pytest.approx(signal**2 + 2 * sigma**2, rel=1e-3)
    assert noisy.std() == pytest.approx(sigma, rel=0.01)
    assert noisy.mean() == pytest.approx(signal + sigma**2 / (2 * signal), rel=1e-3)


def test_the_bias_field_is_positive_and_smooth():
    axis = np.arange(-150.0, 150.0, 5.0)
    field = bias_field(np.random.default_rng(2), axis, axis, axis, 0.15)
    assert field.min() > 0.4
    assert field.max() < 2.5
    assert float(np.abs(np.diff(np.log(field), axis=2)).max()) < 0.05


def test_stored_integers_are_clipped():
    stored = to_integers(np.array([-1.0, 0.0, 0.0149, 1.0, 1e6], np.float32), 100.0)
    assert stored.dtype == np.int16
    assert stored.tolist() == [0, 0, 1, 100, 32767]
