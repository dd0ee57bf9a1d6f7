import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.nnunet.inference.windows import (
    blend_windows,
    mirror_combinations,
    window_logits,
    window_slices,
)

PATCH = (4, 8, 6)
#: Without the rim, where nnU-Net's weights are so small that half precision is coarse.
INNER = (slice(None), slice(1, -1), slice(2, -2), slice(2, -2))


@given(
    shape=st.tuples(*[st.integers(size, 3 * size) for size in PATCH]),
    step_size=st.sampled_from([0.3, 0.5, 0.75, 1.0]),
)
def test_windows_cover_the_image_and_stay_in_it(shape, step_size):
    covered = np.zeros((1, *shape), bool)
    for window in window_slices(shape, PATCH, step_size):
        assert covered[window].shape == (1, *PATCH)
        covered[window] = True
    assert covered.all()


def test_mirror_combinations():
    assert mirror_combinations(()) == [()]
    assert mirror_combinations((0, 2)) == [(), (0,), (2,), (0, 2)]
    assert len(mirror_combinations((0, 1, 2))) == 8


def run(network, data, mirroring=((),), step_size=0.5, batch=1):
    slices = window_slices(data.shape[1:], PATCH, step_size)
    passes = []
    windows = [(window, mirroring) for window in slices]
    parts = window_logits(network, data, windows, lambda: passes.append(1), batch)
    logits = blend_windows(parts, slices, data.shape[1:], 1, data.device)
    assert len(passes) == len(slices) * len(mirroring)
    return logits


def test_what_a_network_does_to_each_voxel_is_what_comes_out():
    data = torch.randn((1, 9, 17, 11), generator=torch.Generator().manual_seed(1))
    logits = run(lambda tile: 2 * tile + 1, data, mirror_combinations((0, 1, 2)))
    assert logits.dtype == torch.half
    assert torch.allclose(logits.float()[INNER], 2 * data[INNER] + 1, atol=3e-2)


def test_mirrored_answers_are_mirrored_back_and_averaged():
    ramp = torch.arange(6.0).expand(1, 1, *PATCH)
    plain = run(lambda tile: ramp.clone(), torch.zeros((1, *PATCH)))
    mirrored = run(lambda tile: ramp.clone(), torch.zeros((1, *PATCH)), [(), (2,)])
    assert torch.allclose(plain[0, 2, 4].float(), torch.arange(6.0), atol=2e-2)
    assert torch.allclose(mirrored[INNER].float(), torch.tensor(2.5), atol=1e-2)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_may_answer_in_the_same_memory_each_time(batch):
    # As a compiled network does that keeps its output buffer.
    buffer = torch.empty((batch, 1, *PATCH))

    def network(tiles):
        return torch.mul(tiles.cumsum(4), 2, out=buffer[: len(tiles)])

    data = torch.randn((1, 9, 17, 11), generator=torch.Generator().manual_seed(4))
    mirroring = mirror_combinations((0, 2))
    logits = run(network, data, mirroring, batch=batch)
    assert torch.equal(logits, run(lambda tiles: 2 * tiles.cumsum(4), data, mirroring))


def test_the_answers_of_a_network_are_left_as_they_are():
    answer = torch.arange(6.0).expand(1, 1, *PATCH).clone()
    run(lambda tile: answer, torch.zeros((1, *PATCH)), [(), (2,)])
    assert torch.equal(answer, torch.arange(6.0).expand(1, 1, *PATCH))


def test_a_window_s_centre_weighs_more_than_its_edge():
    data = torch.zeros((1, 4, 8, 9))
    data[0, 0, 0, 8] = 1  # in the second window only
    line = run(lambda tile: torch.full_like(tile, tile.max()), data)[0, 2, 4].float()
    assert torch.equal(line[:3], torch.zeros(3))
    assert torch.equal(line[6:], torch.ones(3))
    assert 0 < line[3] < 0.5 < line[5] < 1


@pytest.mark.parametrize("batch", [2, 3, 5, 1000])
def test_the_batch_changes_nothing(batch):
    data = torch.randn((1, 9, 17, 11), generator=torch.Generator().manual_seed(2))
    mirroring = mirror_combinations((0, 2))
    sizes = []

    def network(tiles):
        sizes.append(len(tiles))
        return tiles.cumsum(3)

    assert torch.equal(
        run(network, data, mirroring, batch=batch), run(lambda t: t.cumsum(3), data, mirroring)
    )
    assert max(sizes) == min(batch, sum(sizes))


@pytest.mark.parametrize("value", [float("nan"), 1e9])
def test_what_is_not_finite_shows(value):
    logits = run(lambda tile: torch.full_like(tile, value), torch.zeros((1, *PATCH)))
    assert not torch.isfinite(logits).any()


def test_each_window_may_be_mirrored_in_its_own_way():
    data = torch.randn((1, 4, 8, 9), generator=torch.Generator().manual_seed(3))
    slices = window_slices(data.shape[1:], PATCH, 0.5)
    choices = [[()], [(2,), (0, 1)]]
    network = lambda tiles: tiles.cumsum(4)  # noqa: E731
    parts = list(window_logits(network, data, list(zip(slices, choices, strict=True)), int, 2))
    assert len(slices) == len(parts) == 2
    for part, window, mirroring in zip(parts, slices, choices, strict=True):
        (alone,) = window_logits(network, data, [(window, mirroring)], int)
        assert torch.equal(part, alone)
