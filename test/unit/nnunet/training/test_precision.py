"""Mixed precision on a CPU and channels-last normalisation: what changes, and what must not."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gc_panther.nnunet.training.precision import (
    _rows,
    computes_bfloat16,
    keep_channels_last,
    pass_in_bfloat16,
    warn_of_cudnn,
)


class TwoOutputs(nn.Module):
    """As nnU-Net's networks with deep supervision; remembers what its layer computed in."""

    def __init__(self, outputs):
        super().__init__()
        self.layer, self.outputs, self.seen = nn.Conv3d(1, 2, 3, padding=1), outputs, []

    def forward(self, images):
        features = self.layer(images)
        self.seen.append(features.dtype)
        return [features] * self.outputs if self.outputs else features


@pytest.mark.parametrize("outputs", [0, 1, 2])
def test_layers_compute_in_bfloat16_and_all_that_is_kept_is_float32(outputs):
    network = TwoOutputs(outputs)
    twin, images = copy.deepcopy(network), torch.rand(1, 1, 4, 6, 8)
    pass_in_bfloat16(network)
    result, exact = network(images), twin(images)
    result = result if outputs else [result]
    exact = exact if outputs else [exact]
    assert network.seen == [torch.bfloat16]
    assert [tensor.dtype for tensor in result] == [torch.float32] * max(1, outputs)
    for one, other in zip(result, exact, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=0.02)
    sum(tensor.square().mean() for tensor in result).backward()
    assert network.layer.weight.grad.dtype == torch.float32
    assert network.state_dict().keys() == twin.state_dict().keys()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx512_f": True}, False),
        ({"avx512_bf16": True}, False),
        ({"amx_bf16": 1}, 1),
    ],
)
def test_only_a_cpu_with_matrix_units_is_asked_to(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bfloat16() == expected


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_normalised_per_sample_gives_the_same_outputs_and_gradients(affine, samples):
    torch.manual_seed(7)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.InstanceNorm3d(4, affine=affine), nn.LeakyReLU(), nn.Conv3d(4, 2, 3)
    )
    if affine:
        nn.init.uniform_(network[1].weight)
        nn.init.uniform_(network[1].bias)
    twin = copy.deepcopy(network)
    keep_channels_last(network)
    images = torch.rand(samples, 1, 7, 8, 9) * 100
    for one in (network, twin):
        one(images).square().sum().backward()
    torch.testing.assert_close(network(images), twin(images), rtol=1e-5, atol=1e-5)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-3)
    assert network.state_dict().keys() == twin.state_dict().keys()


@pytest.mark.parametrize("samples", [1, 3])
def test_normalising_and_its_gradient_stay_channels_last(samples):
    norm, order = nn.InstanceNorm3d(4, affine=True), torch.channels_last_3d
    keep_channels_last(norm)
    images = torch.rand(samples, 4, 5, 6, 7).contiguous(memory_format=order).requires_grad_()
    result = norm(images)
    gradients = []
    images.register_hook(gradients.append)
    result.backward(torch.rand_like(result))
    assert not images.is_contiguous()
    assert result.is_contiguous(memory_format=order)
    assert gradients[0].is_contiguous(memory_format=order)


@pytest.mark.parametrize(
    ("channels", "shape", "width"),
    [
        (8, (2, 3, 4), 16),
        (16, (3, 5, 7), 16),
        (24, (2, 3, 5), 48),
        (3, (2, 8, 2), 48),
        (8, (3, 5, 7), 8),  # an odd number of voxels cannot be halved
    ],
)
def test_rows_of_voxels_fill_cache_lines_where_their_number_allows(channels, shape, width):
    sample = torch.rand(1, channels, *shape).contiguous(memory_format=torch.channels_last_3d)
    rows = _rows(sample)
    assert rows.shape == (sample.numel() // width, width)
    assert rows.data_ptr() == sample.data_ptr()
    numbers = sample.permute(0, 2, 3, 4, 1).flatten()
    assert torch.equal(rows.flatten(), numbers)


@given(
    samples=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 4, 8, 16, 24]),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    offset=st.sampled_from([0.0, -30.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_is_normalised_as_torch_does_it(samples, channels, shape, offset, seed):
    torch.manual_seed(seed)
    norm = nn.InstanceNorm3d(channels, affine=True, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    exact = copy.deepcopy(norm)
    keep_channels_last(norm)
    images = torch.randn(samples, channels, *shape, dtype=torch.float64) + offset
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    pull = torch.randn_like(images)
    for one, given_images in ((norm, ours), (exact, theirs)):
        (one(given_images) * pull).sum().backward()
    torch.testing.assert_close(norm(ours), exact(theirs), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.weight.grad, exact.weight.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.bias.grad, exact.bias.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [4, 16])
def test_bfloat16_is_normalised_with_float32_sums(channels):
    torch.manual_seed(7)
    norm = nn.InstanceNorm3d(channels, affine=True)
    exact = copy.deepcopy(norm)
    keep_channels_last(norm)
    images = (torch.rand(2, channels, 5, 6, 7) * 10 + 50).bfloat16()
    ours, theirs = images.clone().requires_grad_(), images.float().requires_grad_()
    result, expected = norm(ours), exact(theirs)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0.01, atol=0.01)
    result.float().square().sum().backward()
    expected.square().sum().backward()
    assert norm.weight.grad.dtype == torch.float32
    torch.testing.assert_close(norm.weight.grad, exact.weight.grad, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_gradients_that_are_wanted_are_computed(wanted):
    norm = nn.InstanceNorm3d(4, affine=True)
    keep_channels_last(norm)
    images = torch.rand(2, 4, 5, 6, 7).requires_grad_(wanted[0])
    for parameter in norm.parameters():
        parameter.requires_grad_(wanted[1])
    norm(images).square().sum().backward()
    assert (images.grad is not None, norm.weight.grad is not None) == wanted


def test_a_norm_with_running_statistics_is_left_alone():
    norm = nn.InstanceNorm3d(2, track_running_stats=True)
    keep_channels_last(norm)
    norm(torch.rand(2, 2, 3, 4, 5))
    assert norm.running_mean.min() > 0


@pytest.mark.parametrize(
    ("version", "cudnn", "said"),
    [("2.8.0", 91002, "wrongly"), ("2.10.0", 91002, "slowly"), ("2.7.1", 90501, "")],
)
def test_faults_of_cudnn_are_a_warning_of_a_training(version, cudnn, said, caplog):
    warn_of_cudnn("task1 fold 0", version, cudnn)
    assert len(caplog.records) == bool(said)
    assert said in caplog.text
