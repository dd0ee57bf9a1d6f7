"""Mixed precision on a CPU and channels-last normalisation: what changes, and what must not."""

import copy

import pytest
import torch
from torch import nn

from gc_panther.training.precision import (
    computes_bfloat16,
    keep_channels_last,
    pass_in_bfloat16,
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


def test_one_thread_adds_up_the_gradients_and_the_others_come_back(monkeypatch):
    norm = nn.InstanceNorm3d(4, affine=True)
    keep_channels_last(norm)
    asked = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    norm(torch.rand(2, 4, 5, 6, 7).requires_grad_()).sum().backward()
    assert asked == [1, 2]


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
