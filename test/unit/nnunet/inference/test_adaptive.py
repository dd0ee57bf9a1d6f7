"""The adaptive mode: which windows it runs in full, and when it lets the exact mode step in."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.errors import ProcessingError, UserError
from gc_panther.nnunet.inference import adaptive
from gc_panther.nnunet.inference.adaptive import (
    Adaptive,
    Fallback,
    run_adaptively,
    windows_that_share,
)
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.folds import Folds, WindowedImage
from gc_panther.nnunet.inference.windows import mirror_combinations, window_slices
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext, SilentProgress

PATCH = (8, 16, 16)
#: Three windows side by side along the last axis, the first and last of which do not touch.
SHAPE = (8, 16, 32)
EVERYWHERE = (slice(None),) * 4
ARRAY = np.random.default_rng(3).integers(1, 900, SHAPE).astype(np.int16)
IMAGE = Volume(ARRAY, Geometry(SHAPE[::-1], (2.0, 2.0, 4.0)))


def windowed(data=None, unpad=EVERYWHERE):
    data = torch.zeros((1, *SHAPE)) if data is None else data
    return WindowedImage(data, unpad, window_slices(SHAPE, PATCH, 0.5))


def marked(*voxels, shape=SHAPE):
    where = torch.zeros(shape, dtype=torch.bool)
    for voxel in voxels:
        where[voxel] = True
    return where


def test_windows_share_a_voxel_in_which_they_weigh_a_tenth():
    image = windowed()
    assert [window[3].start for window in image.slices] == [0, 8, 16]
    assert windows_that_share(marked(), image) == []
    assert windows_that_share(marked((4, 8, 2)), image) == [0]
    assert windows_that_share(marked((4, 8, 16)), image) == [1]
    # Halfway between the centres of two windows, both weigh the same.
    assert windows_that_share(marked((4, 8, 12)), image) == [0, 1]
    # The Gaussians' sigma is 2 voxels and their centres lie 8 apart: 12 % and 2 % are left here.
    assert windows_that_share(marked((4, 8, 13)), image) == [0, 1]
    assert windows_that_share(marked((4, 8, 14)), image) == [1]
    assert windows_that_share(marked((4, 8, 2), (4, 8, 29)), image) == [0, 2]


def test_a_voxel_is_found_behind_the_padding():
    image = windowed(unpad=(slice(None), slice(None), slice(None), slice(14, 32)))
    near, far = (marked((4, 8, k), shape=(8, 16, 18)) for k in (2, 15))
    assert windows_that_share(near, image) == [1]
    assert windows_that_share(far, image) == [2]


@given(
    voxels=st.sets(st.tuples(*[st.integers(0, size - 1) for size in SHAPE]), max_size=5),
    more=st.tuples(*[st.integers(0, size - 1) for size in SHAPE]),
)
def test_every_marked_voxel_has_a_window_and_more_voxels_never_cost_one(voxels, more):
    image = windowed()
    chosen = windows_that_share(marked(*voxels), image)
    for voxel in voxels:
        assert any(
            all(part.start <= index < part.stop for index, part in zip(voxel, window, strict=True))
            for window in (image.slices[number][1:] for number in chosen)
        )
    assert set(chosen) <= set(windows_that_share(marked(*voxels, more), image))


class FakeRunner:
    """Networks that give label 1 a probability that depends on the voxel's value alone.

    Args:
        chances: of each fold, the probability for a voxel of value 0, 1, ...
    """

    name, batch, choice = "fake", 1, None

    def __init__(self, chances):
        self.chances = chances
        self.passes = 0

    def load(self, fold, weights):
        logits = torch.logit(torch.tensor(self.chances[fold]), eps=1e-4)

        def network(tiles):
            self.passes += len(tiles)
            label = logits[tiles.long()]
            return torch.cat([torch.zeros_like(label), label], dim=1)

        return network


def run_fakes(*chances, values, axes=(0, 1, 2)):
    """Run folds with these chances on an image that has these values, and 0 elsewhere."""
    data = torch.zeros((1, *SHAPE))
    for voxel, value in values.items():
        data[0, *voxel] = value
    runner, cpu = FakeRunner(chances), torch.device("cpu")
    folds = Folds(Path("model"), runner, {fold: {} for fold in range(len(chances))}, 2, cpu)
    run = RunContext(SilentProgress())
    found = run_adaptively(folds, windowed(data), mirror_combinations(axes), 1, run)
    assert found.passes == runner.passes
    return found


LEFT, RIGHT = (4, 8, 2), (4, 8, 29)


@pytest.mark.parametrize(
    ("chance", "windows"),
    [(0.0, [0]), (0.09, [0]), (0.11, [0, 2])],
)
def test_the_full_ensemble_runs_where_one_fold_gives_the_label_a_chance(chance, windows):
    found = run_fakes([0.0, 0.95, 0.0], [0.0, 0.95, chance], values={LEFT: 1, RIGHT: 2})
    assert isinstance(found, Adaptive)
    assert found.windows == windows
    # Two folds look at three windows, and then at seven mirrored copies of some.
    assert found.passes == 2 * (3 + 7 * len(windows))
    for logits in found.logits:
        assert (logits.argmax(0) == 1).nonzero().tolist() == [list(LEFT)]


@pytest.mark.parametrize(
    ("chances", "reason", "passes"),
    [
        ([0.45, 0.45], "uncertain", 2 * 3),
        ([0.20, 0.55], "no voxel got the label", 2 * (3 + 7)),
    ],
)
def test_without_a_clear_answer_the_exact_ensemble_has_to_run(chances, reason, passes):
    found = run_fakes(*([0.0, chance] for chance in chances), values={LEFT: 1})
    assert isinstance(found, Fallback)
    assert reason in found.reason
    assert found.passes == passes


def test_a_label_in_a_window_with_the_coarse_answer_needs_the_exact_ensemble(monkeypatch):
    answers = iter([[0], [0, 2]])
    monkeypatch.setattr(adaptive, "windows_that_share", lambda *_: next(answers))
    found = run_fakes([0.0, 0.95], values={LEFT: 1})
    assert isinstance(found, Fallback)
    assert "window that has only the coarse answer" in found.reason


def test_without_mirroring_there_is_nothing_to_leave_out():
    found = run_fakes([0.0, 0.95], values={LEFT: 1}, axes=())
    assert found == Fallback("there are no mirrored copies to leave out", 0)


def test_sums_that_overflow_are_an_error(monkeypatch):
    # Half precision ends at 65504, and a window's weights go up to 10.
    monkeypatch.setattr(torch, "logit", lambda chances, eps: torch.full((2,), 6e4))
    with pytest.raises(ProcessingError, match="NaN or infinity"):
        run_fakes([0.0, 0.95], values={LEFT: 1})


class Counter(SilentProgress):
    passes = 0

    def advance(self, steps=1):
        self.passes += steps


def predict(folder, label=1, **options):
    options = NnUNetOptions(**{"backend": "torch", **options})
    loaded, counter = Ensemble(folder, device="cpu", options=options), Counter()
    prediction = loaded.predict(IMAGE, RunContext(counter), label=label)
    assert counter.passes == prediction.facts["passes"]
    return prediction


@pytest.fixture
def model(tiny_model_folder):
    return open_model_folder(tiny_model_folder(patch_zyx=PATCH))


def test_where_the_label_can_be_everywhere_the_answer_is_the_exact_one(model, monkeypatch):
    monkeypatch.setattr(adaptive, "CANDIDATE", 0.0)
    monkeypatch.setattr(adaptive, "CERTAIN", 0.0)
    prediction, exact = predict(model, mode="adaptive"), predict(model)
    assert prediction.facts["mode"] == "adaptive"
    assert prediction.facts["windows"] == prediction.facts["windows_with_mirroring"] == 3
    # The coarse pass is the first of the eight copies, so that nothing is computed twice.
    assert prediction.facts["passes"] == exact.facts["passes"] == 3 * 3 * 8
    # Half precision is coarse near the corners, where a window weighs next to nothing.
    gap = np.abs(prediction.probabilities - exact.probabilities)
    assert gap[:, 1:-1, 3:-3, 3:-3].max() < 2e-3
    json.dumps(prediction.facts)


def test_windows_where_the_label_cannot_be_keep_the_coarse_answer(model, monkeypatch):
    monkeypatch.setattr(adaptive, "CERTAIN", 0.0)
    monkeypatch.setattr(adaptive, "windows_that_share", lambda *_: [0])
    prediction = predict(model, mode="adaptive")
    assert prediction.facts["windows_with_mirroring"] == 1
    assert prediction.facts["passes"] == 3 * (3 + 7)
    coarse, exact = predict(model, mirroring=False), predict(model)
    # At the far end only the last window reaches, at the near end only the first one.
    far, near = (slice(None), 4, 8, 31), (slice(None), 4, 8, 0)
    assert np.allclose(prediction.probabilities[far], coarse.probabilities[far], atol=2e-3)
    assert not np.allclose(prediction.probabilities[near], coarse.probabilities[near], atol=2e-3)
    assert np.allclose(prediction.probabilities[near], exact.probabilities[near], atol=2e-3)


def test_a_doubt_leads_to_the_exact_answer(model, monkeypatch):
    monkeypatch.setattr(adaptive, "CERTAIN", 2.0)
    prediction, exact = predict(model, mode="adaptive"), predict(model)
    assert prediction.facts["mode"] == "exact"
    assert prediction.facts["passes"] == exact.facts["passes"] + 3 * 3
    assert "uncertain" in prediction.facts["not_adaptive"]
    assert np.array_equal(prediction.probabilities, exact.probabilities)


def test_without_a_wanted_label_and_by_default_the_mode_is_exact(model):
    exact = predict(model)
    assert exact.facts["mode"] == "exact"
    assert "not_adaptive" not in exact.facts
    assert predict(model, label=None, mode="adaptive").facts == exact.facts


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"mode is 'fast'.*Choose exact or adaptive"):
        NnUNetOptions(mode="fast")
