"""The adaptive mode: which windows and copies it runs, and when it lets the exact mode step in."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.errors import UserError
from gc_panther.nnunet.inference import adaptive
from gc_panther.nnunet.inference.adaptive import in_turn, windows_that_matter
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.windows import mirror_combinations, window_slices
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import CaseRun, SilentProgress

PATCH = (8, 16, 16)
#: Three windows side by side along the last axis, the first and last of which do not touch.
SHAPE = (8, 16, 32)
ARRAY = np.random.default_rng(3).integers(1, 900, SHAPE).astype(np.int16)
IMAGE = Volume(ARRAY, Geometry(SHAPE[::-1], (2.0, 2.0, 4.0)))


def marked(*voxels):
    where = torch.zeros(SHAPE, dtype=torch.bool)
    for voxel in voxels:
        where[voxel] = True
    return where


def test_windows_matter_where_they_weigh():
    slices = window_slices(SHAPE, PATCH, 0.5)
    assert [window[3].start for window in slices] == [0, 8, 16]
    assert windows_that_matter(marked(), slices) == set()
    assert windows_that_matter(marked((4, 8, 2)), slices) == {0}
    assert windows_that_matter(marked((4, 8, 16)), slices) == {1}
    # Halfway between the centres of two windows, both weigh the same.
    assert windows_that_matter(marked((4, 8, 12)), slices) == {0, 1}
    assert windows_that_matter(marked((4, 8, 2), (4, 8, 29)), slices) == {0, 2}


@given(
    voxels=st.sets(st.tuples(*[st.integers(0, size - 1) for size in SHAPE]), max_size=5),
    more=st.tuples(*[st.integers(0, size - 1) for size in SHAPE]),
)
def test_every_marked_voxel_has_a_window_and_more_voxels_never_cost_one(voxels, more):
    slices = window_slices(SHAPE, PATCH, 0.5)
    chosen = windows_that_matter(marked(*voxels), slices)
    for voxel in voxels:
        assert any(
            all(part.start <= index < part.stop for index, part in zip(voxel, window, strict=True))
            for window in (slices[number][1:] for number in chosen)
        )
    assert chosen <= windows_that_matter(marked(*voxels, more), slices)


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_in_every_pair_of_copies_every_axis_is_flipped_once(axes, turn):
    mirroring = mirror_combinations(axes)
    copies = in_turn(mirroring, turn)
    assert sorted(copies) == sorted(mirroring)
    for first, second in zip(copies[::2], copies[1::2], strict=True):
        assert sorted(first + second) == list(axes)


def test_turns_start_with_all_pairs_and_wrap():
    firsts = [frozenset(in_turn(mirror_combinations((0, 1, 2)), turn)[:2]) for turn in range(8)]
    assert len(set(firsts)) == 4
    assert firsts[:4] == firsts[4:]


def test_without_mirroring_there_is_only_the_plain_copy():
    assert in_turn([()], 0) == in_turn([()], 3) == [()]


EVERYWHERE = (slice(None),) * 3


def changes(first, second, missing=1.0):
    """Of one window over all."""
    shares = {0: (EVERYWHERE, torch.ones(first.shape))}
    return adaptive.expected_changes(first, second, shares, {0: missing})[0]


def test_changes_are_expected_where_halves_differ_and_the_margin_is_small():
    margin = torch.tensor([[[0.1, -0.1, 0.95, -0.95]]])
    assert changes(margin, margin) == 0
    # A voxel as far from the border as the standard error is: 16 % each, by the normal curve.
    apart = changes(margin + 0.1, margin - 0.1)
    assert apart == pytest.approx(2 * 0.1587, abs=1e-3)
    assert changes(margin + 0.3, margin - 0.3) > apart
    sure = torch.tensor([[[0.9, -0.9, 1.0]]])
    assert changes(sure + 0.05, sure - 0.05) == 0


def test_fewer_changes_are_expected_where_fewer_copies_are_missing():
    margin = torch.tensor([[[0.1, -0.1]]])
    # Half the variance, so that these voxels are 1.41 standard errors from the border: 7.9 %.
    assert changes(margin + 0.1, margin - 0.1, 0.5) == pytest.approx(2 * 0.0786, abs=1e-3)
    assert changes(margin + 0.1, margin - 0.1, 0.0) == 0


def test_no_change_is_expected_in_the_padding():
    unpad = (slice(None), slice(None), slice(None), slice(1, 2))
    margin = torch.tensor([[[0.1]]])
    first, second = (
        adaptive._padded_like(half, (1, 1, 3), unpad, outside=-1.0)
        for half in (margin + 0.1, margin - 0.1)
    )
    assert first.flatten().tolist() == pytest.approx([-1, 0.2, -1])
    assert changes(first, second) == pytest.approx(0.1587, abs=1e-3)


def test_changes_belong_to_the_windows_whose_halves_differ():
    first, second = torch.tensor([[[0.2, 0.1, 0.1]]]), torch.tensor([[[0.0, 0.1, 0.1]]])
    share = torch.tensor([[[1.0, 0.5]]])
    left = (slice(None), slice(None), slice(0, 2))
    right = (slice(None), slice(None), slice(1, 3))
    shares = {3: (left, share), 5: (right, share.flip(-1))}
    found = adaptive.expected_changes(first, second, shares, {3: 1.0, 5: 1.0})
    # The voxel that both see differs because of the left one's variance, and counts half for each.
    error = np.sqrt([0.01 / 1.5, 0.005 / 1.5])
    middle = torch.special.ndtr(torch.tensor(-0.1 / error))
    assert found[3] == pytest.approx(float(middle[0] + middle[1] / 2), abs=1e-4)
    assert found[5] == pytest.approx(float(middle[1] / 2), abs=1e-4)


def test_windows_are_doubled_where_too_much_can_change():
    some = {0: 10.0, 1: 6.0, 2: 4.0}
    assert adaptive.windows_to_double(some, {0, 1, 2}, 1000) == set()
    assert adaptive.windows_to_double(some, {0, 1, 2}, 600) == {0, 1}
    assert adaptive.windows_to_double(some, {1, 2}, 600) == {1, 2}
    # As few of few voxels: 3 % are expected, and twice as many are not unlikely.
    assert adaptive.windows_to_double({0: 1.5}, {0}, 51) == {0}


def test_a_margin_is_the_distance_to_the_most_probable_other_label():
    probabilities = torch.tensor([0.5, 0.2, 0.3]).reshape(3, 1, 1, 1)
    margins = [float(adaptive._margin(probabilities, label)) for label in range(3)]
    assert margins == pytest.approx([0.2, -0.3, -0.2])


class Counter(SilentProgress):
    passes = 0

    def advance(self, steps=1):
        self.passes += steps


def predict(folder, label=1, **options):
    options = NnUNetOptions(**{"backend": "torch", **options})
    loaded, counter = Ensemble(folder, device="cpu", options=options), Counter()
    prediction = loaded.predict(IMAGE, CaseRun(counter), label=label)
    assert counter.passes >= prediction.facts["passes"]
    return prediction, counter.passes


@pytest.fixture
def model(tiny_model_folder):
    return open_model_folder(tiny_model_folder(patch_zyx=PATCH))


@pytest.fixture
def never_doubled(monkeypatch):
    """Two copies are enough whatever the halves say."""
    monkeypatch.setattr(adaptive, "CHANGED", np.inf)
    monkeypatch.setattr(adaptive, "CHANGED_AT_WORST", np.inf)


@pytest.mark.parametrize(("changed", "copies"), [(np.inf, 2), (-1.0, 8)])
def test_where_every_window_matters_only_copies_are_saved(model, monkeypatch, changed, copies):
    monkeypatch.setattr(adaptive, "CANDIDATE", 0.0)
    monkeypatch.setattr(adaptive, "CHANGED", changed)
    monkeypatch.setattr(adaptive, "CHANGED_AT_WORST", np.inf)
    prediction, passes = predict(model, mode="adaptive")
    assert prediction.facts["mode"] == "adaptive"
    assert prediction.facts["windows"] == prediction.facts["windows_with_all_folds"] == 3
    assert prediction.facts["copies_in_them"] == [copies] * 3
    # A coarse pass, and three folds over part of eight mirrored copies, of three windows.
    assert passes == prediction.facts["passes"] == 3 + 3 * 3 * copies
    exact, exact_passes = predict(model)
    assert exact_passes == 3 * 3 * 8
    # With all copies nothing is left out but the rounding, which is coarse near the corners.
    inner = (slice(None), slice(1, -1), slice(3, -3), slice(3, -3))
    gap = np.abs(prediction.probabilities - exact.probabilities)[inner].max()
    assert gap < 2e-3 if copies == 8 else gap > 1e-2
    json.dumps(prediction.facts)


def test_without_mirroring_nothing_is_left_out(model, monkeypatch):
    monkeypatch.setattr(adaptive, "CANDIDATE", 0.0)
    monkeypatch.setattr(adaptive, "CHANGED", -1.0)
    plain, passes = predict(model, mode="adaptive", mirroring=False)
    exact, _ = predict(model, mirroring=False)
    assert passes == 3 + 3 * 3
    assert plain.facts["copies_in_them"] == [1, 1, 1]
    assert np.abs(plain.probabilities - exact.probabilities).max() < 5e-3


@pytest.mark.parametrize(
    ("expected", "copies"),
    [
        ([(1e9, 1e9, 1e9), (0, 0, 0)], [4, 4, 4]),
        ([(1e9, 1, 1), (1, 1, 1e9), (0, 0, 0)], [4, 2, 4]),
        ([(1, 1e9, 1)] * 2 + [(0, 0, 0)], [2, 8, 2]),
    ],
)
def test_copies_are_doubled_where_changes_are_expected(model, monkeypatch, expected, copies):
    answers = iter(expected)
    monkeypatch.setattr(adaptive, "CANDIDATE", 0.0)
    monkeypatch.setattr(
        adaptive, "expected_changes", lambda *_: dict(enumerate(map(float, next(answers))))
    )
    prediction, passes = predict(model, mode="adaptive")
    assert prediction.facts["copies_in_them"] == copies
    assert passes == prediction.facts["passes"] == 3 + 3 * sum(copies)


def test_where_not_one_voxel_may_change_nothing_that_reaches_it_is_left_out(model, monkeypatch):
    monkeypatch.setattr(adaptive, "CHANGED_AT_WORST", 1e-9)
    prediction, passes = predict(model, mode="adaptive")
    assert prediction.facts["copies_in_them"] == [8, 8, 8]
    assert passes == prediction.facts["passes"] == 3 + 3 * 3 * 8
    exact, _ = predict(model)
    gap = np.abs(prediction.probabilities - exact.probabilities)
    # Half precision is coarse near the corners, where a window weighs next to nothing.
    assert gap[:, 1:-1, 3:-3, 3:-3].max() < 2e-3


def test_windows_where_the_label_cannot_be_keep_the_coarse_answer(
    model, monkeypatch, never_doubled
):
    monkeypatch.setattr(adaptive, "TOO_MANY", np.inf)
    monkeypatch.setattr(adaptive, "windows_that_matter", lambda where, slices, share: {0})
    prediction, passes = predict(model, mode="adaptive", combine="logits")
    assert prediction.facts["windows_with_all_folds"] == 1
    assert passes == prediction.facts["passes"] == 3 + 3 * 2
    coarse, _ = predict(open_model_folder(model.path, (0,)), mirroring=False, combine="logits")
    exact, _ = predict(model, combine="logits")
    # At the far end only the last window reaches, at the near end only the first one.
    far, near = (slice(None), 4, 8, 31), (slice(None), 4, 8, 0)
    assert np.allclose(prediction.probabilities[far], coarse.probabilities[far], atol=2e-3)
    assert not np.allclose(prediction.probabilities[near], coarse.probabilities[near], atol=2e-3)
    gap = np.abs(prediction.probabilities[near] - exact.probabilities[near]).max()
    assert gap < np.abs(coarse.probabilities[near] - exact.probabilities[near]).max()


def test_a_window_that_the_answer_touches_is_added(model, monkeypatch, never_doubled):
    answers = iter([{0}, {0, 2}, {0, 2}])
    monkeypatch.setattr(adaptive, "TOO_MANY", np.inf)
    monkeypatch.setattr(adaptive, "windows_that_matter", lambda where, slices, share: next(answers))
    prediction, passes = predict(model, mode="adaptive")
    assert prediction.facts["windows_with_all_folds"] == 2
    assert passes == prediction.facts["passes"] == 3 + 2 * 3 * 2


@pytest.mark.parametrize(("too_many", "windows"), [(0.0, 2), (np.inf, 1)])
def test_where_the_answer_hangs_on_other_windows_more_are_taken(
    model, monkeypatch, never_doubled, too_many, windows
):
    def matter(where, slices, share):
        return {0} if share == adaptive.SHARE else {0, 2}

    monkeypatch.setattr(adaptive, "UNDECIDED", (0.0, 1.0))
    monkeypatch.setattr(adaptive, "TOO_MANY", too_many)
    monkeypatch.setattr(adaptive, "windows_that_matter", matter)
    prediction, passes = predict(model, mode="adaptive")
    assert prediction.facts["windows_with_all_folds"] == windows
    assert passes == prediction.facts["passes"] == 3 + windows * 3 * 2


def test_an_answer_hangs_on_windows_that_reach_its_undecided_voxels():
    slices = window_slices(SHAPE, PATCH, 0.5)
    chance, found = torch.zeros(SHAPE), marked((4, 8, 2), (4, 8, 3), (4, 8, 4))
    chance[4, 8, 20] = 0.5
    # Within the second and the third window; one undecided voxel for three that are found.
    assert adaptive._hangs_on_others(chance, found, slices, {0})
    assert adaptive._hangs_on_others(chance, found, slices, {0, 1})
    assert not adaptive._hangs_on_others(chance, found, slices, {0, 1, 2})
    chance[4, 8, 20] = 0.9
    assert not adaptive._hangs_on_others(chance, found, slices, {0})


@pytest.mark.parametrize(
    ("name", "value", "doubt"),
    [("CANDIDATE", 2.0, "no candidate"), ("SHARE", 0.2, "no voxel")],
)
def test_a_doubt_leads_to_the_exact_answer(name, value, doubt, model, monkeypatch):
    monkeypatch.setattr(adaptive, name, value)
    if doubt == "no voxel":
        # The background wins everywhere, though the label has some probability.
        monkeypatch.setattr(adaptive, "CANDIDATE", 0.0)
        weights = type(model).read_weights

        def biased(self, fold):
            read = weights(self, fold)
            for key, tensor in read.items():
                if key.endswith("seg_layers.0.bias"):
                    read[key] = tensor + torch.tensor([50.0, 0.0, 0.0])
            return read

        monkeypatch.setattr(type(model), "read_weights", biased)
    exact, exact_passes = predict(model)
    prediction, passes = predict(model, mode="adaptive")
    assert prediction.facts["mode"] == "exact"
    assert passes == prediction.facts["passes"] > exact_passes
    assert doubt in prediction.facts["not_adaptive"]
    assert np.array_equal(prediction.probabilities, exact.probabilities)


def test_without_a_wanted_label_and_by_default_the_mode_is_exact(model):
    exact, _ = predict(model)
    assert exact.facts["mode"] == "exact"
    assert "not_adaptive" not in exact.facts
    assert predict(model, label=None, mode="adaptive")[0].facts == exact.facts


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"mode is 'fast'.*Choose exact or adaptive"):
        NnUNetOptions(mode="fast")
