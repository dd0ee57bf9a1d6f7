"""Mixed precision on a CPU: what becomes bfloat16, and what must not."""

import copy

import pytest
import torch
from torch import nn

from gc_panther.training.precision import computes_bfloat16, pass_in_bfloat16


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
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": 1}, 1)],
)
def test_only_a_cpu_with_the_instructions_is_asked_to(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bfloat16() == expected
