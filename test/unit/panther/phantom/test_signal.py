import numpy as np
import pytest

from gc_panther.panther.phantom.signal import (
    DARKEST_PANCREAS,
    TISSUES,
    TUMOUR_RATIO,
    balanced_steady_state,
    draw_acquisition,
    draw_signals,
    enhanced_t1_ms,
    spin_echo,
    spoiled_gradient_echo,
)


def test_contrast_agent_shortens_t1():
    # 1/1441 ms + 5.2 /(mmol/L s) * 2 mmol/L = 0.694e-3 + 10.4e-3 per ms
    assert enhanced_t1_ms(1441.0, 2.0, 5.2) == pytest.approx(90.140, abs=0.01)
    assert enhanced_t1_ms(800.0, 0.0, 5.2) == pytest.approx(800.0)


def test_spoiled_gradient_echo_by_hand():
    # TR 4 ms, T1 400 ms: E1 = exp(-0.01) = 0.990050; a = 10 degrees: sin 0.173648, cos 0.984808
    # S = 0.173648 * 0.009950 / (1 - 0.990050 * 0.984808) = 0.0017278 / 0.0249910
    assert spoiled_gradient_echo(1.0, 400.0, 1e9, 4.0, 0.0, 10.0) == pytest.approx(
        0.069139, rel=1e-4
    )
    # T2* of 20 ms at TE 2 ms costs exp(-0.1)
    assert spoiled_gradient_echo(0.5, 400.0, 20.0, 4.0, 2.0, 10.0) == pytest.approx(
        0.5 * 0.069139 * 0.904837, rel=1e-4
    )


def test_the_ernst_angle_gives_the_most_signal():
    t1, tr = 600.0, 4.5
    ernst = np.degrees(np.arccos(np.exp(-tr / t1)))
    angles = np.arange(1.0, 40.0, 0.25)
    signal = [spoiled_gradient_echo(1.0, t1, 1e9, tr, 0.0, a) for a in angles]
    assert angles[int(np.argmax(signal))] == pytest.approx(ernst, abs=0.25)


def test_spin_echo_by_hand():
    # 0.8 (1 - exp(-1500/600)) exp(-80/46) = 0.8 * 0.917915 * 0.175662
    assert spin_echo(0.8, 600.0, 46.0, 1500.0, 80.0) == pytest.approx(0.128995, rel=1e-4)


@pytest.mark.parametrize("contrast", ["t1", "t2"])
def test_the_tumour_is_hypointense(contrast):
    low, high = TUMOUR_RATIO[contrast]
    for seed in range(25):
        model = draw_signals(contrast, np.random.default_rng(seed))
        assert model.signal["pancreas"] == pytest.approx(1.0)
        assert low <= model.signal["tumour"] <= high
        assert model.signal["air"] == 0.0


def test_t1_looks_like_the_arterial_phase():
    models = [draw_signals("t1", np.random.default_rng(seed)) for seed in range(20)]
    mean = {name: np.mean([m.signal[name] for m in models]) for name in TISSUES}
    assert mean["artery"] > mean["kidney_cortex"] > mean["pancreas"] > mean["liver"]
    assert mean["kidney_cortex"] > 1.5 * mean["kidney_medulla"]
    assert mean["fat"] < 0.5 * mean["pancreas"]  # suppressed
    assert mean["cyst"] < mean["tumour"]


def test_t2_looks_like_a_turbo_spin_echo():
    models = [draw_signals("t2", np.random.default_rng(seed)) for seed in range(20)]
    mean = {name: np.mean([m.signal[name] for m in models]) for name in TISSUES}
    assert min(mean["cyst"], mean["fat"]) > mean["spleen"] > mean["liver"] > mean["muscle"]
    assert all(m.acquisition.field == 0 for m in models)  # an MR-Linac has 1.5 T


def test_random_contrast_varies_without_limits_on_the_tumour():
    ratios = [draw_signals("random", np.random.default_rng(s)).signal["tumour"] for s in range(40)]
    assert min(ratios) < 0.6
    assert max(ratios) > 1.5


def test_balanced_steady_state_by_hand():
    # TR -> 0: S = PD sin(a) / (1 + cos(a) + (1 - cos(a)) T1/T2)
    short = balanced_steady_state(0.8, 600.0, 46.0, 1e-4, 60.0)
    angle = np.deg2rad(60.0)
    expected = 0.8 * np.sin(angle) / (1 + np.cos(angle) + (1 - np.cos(angle)) * 600 / 46)
    assert short == pytest.approx(expected, rel=1e-4)
    assert balanced_steady_state(0.8, 600.0, 46.0, 4.0, 60.0) == pytest.approx(expected, rel=0.06)


def test_mixed_contrast_draws_every_kind_of_sequence():
    models = [draw_signals("mixed", np.random.default_rng(seed)) for seed in range(120)]
    assert {m.acquisition.sequence for m in models} == {"spoiled", "spin", "balanced"}
    fat = [m.signal["visceral_fat"] for m in models]
    assert min(fat) < 0 < max(fat)  # opposed phases, and fat that adds up
    assert sum(m.signal["liver"] > 1 for m in models) not in (0, len(models))
    for model in models:
        assert model.signal["pancreas"] == pytest.approx(1.0)
        assert max(model.signal.values()) <= 1 / DARKEST_PANCREAS


def test_an_unknown_contrast_is_refused():
    with pytest.raises(ValueError, match="unknown contrast 'pet'"):
        draw_acquisition("pet", np.random.default_rng(0))
