import floor
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from gc_panther.nnunet.model_folder import open_model_folder
from gc_panther.nnunet.network import build_network


def test_operations_are_the_convolutions(tiny_model_folder):
    patch = (8, 16, 16)
    model = open_model_folder(tiny_model_folder(patch_zyx=patch))
    configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
    network = build_network(configuration, len(model.labels)).to_empty(device="cpu").eval()
    counted = []

    def count(layer, inputs, answer):
        # Each output of a convolution, and each input of a transposed one, meets a whole kernel.
        transposed = isinstance(layer, torch.nn.ConvTranspose3d)
        voxels = (inputs[0] if transposed else answer)[0, 0].numel()
        counted.append(2 * voxels * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 1, *patch))
    assert any(isinstance(one, torch.nn.ConvTranspose3d) for one in network.modules())
    assert floor.operations(model) == sum(counted)


def test_the_peak_is_that_of_the_fastest_call(monkeypatch):
    ends = iter([0.0, 0.01, 1.0, 1.5, 2.0, 2.25, 3.0, 4.0])
    monkeypatch.setattr(floor.time, "perf_counter", lambda: next(ends))
    monkeypatch.setattr(floor, "ROWS_CPU", 10)
    # The first call warms up and does not count.
    assert floor.peak("cpu", calls=3) == pytest.approx(2 * 10**3 / 0.25)


def test_how_far_the_passes_are_from_the_floor():
    text = floor.describe(4_000_000_000, 320, peaks=[90e9, 160e9, 128e9], reached=15.0)
    assert "4.0 GFLOP in its convolutions, all 320 are 1.28 TFLOP" in text
    assert "128 GFLOP/s here (90–160), at which they take 10.0 s" in text
    assert "15.0 s for its passes, 1.50 × the floor" in text
