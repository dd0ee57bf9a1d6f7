import floor
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

from gc_panther.imaging.images import read_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.network import build_network
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext


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
    now = 0.0
    # The first call warms up and does not count.
    durations = [0.01, 0.5, 0.25, 1.0]

    def work():
        nonlocal now
        now += durations.pop(0)

    monkeypatch.setattr(floor.time, "perf_counter", lambda: now)
    probe = floor.Probe("sum", work, operations=1000, device="cpu")
    assert probe.peak(calls=3) == pytest.approx(1000 / 0.25)
    assert durations == []


def test_the_probes_compute_what_they_say():
    for probe in floor.probes("cpu"):
        with FlopCounterMode(display=False) as counter:
            answer = probe.work()
        assert counter.get_total_flops() == probe.operations > 1e10
        assert bool(torch.isfinite(answer).all())
        # A graph for gradients would be computed as well.
        assert not answer.requires_grad


def test_passes_are_counted_and_timed(tiny_model_folder, write_volume, tmp_path):
    volume = to_lps(read_image(write_volume(tmp_path / "image.mha")))
    model = open_model_folder(tiny_model_folder(patch_zyx=(8, 16, 16)))
    options = NnUNetOptions(backend="torch")
    passes = floor.Passes("tiny", Ensemble(model, device="cpu", options=options), volume, 10)
    passes.run()
    passes.run()
    assert passes.backend == "torch"
    windows = passes.ensemble.predict(volume, RunContext()).facts["windows"]
    assert passes.count == windows * 2 ** len(model.mirroring_axes) * len(model.checkpoints)
    assert len(passes.seconds) == 2
    assert min(passes.seconds) > 0


def test_how_far_the_passes_are_from_the_floor():
    passes = floor.Passes("small", None, None, 4_000_000_000, "torch", 320, [20.0, 14.0, 15.0])
    peaks = {"matrix product": [90e9, 160e9, 128e9], "convolution": [80e9]}
    said, _, _, _, line = floor.text([passes], peaks).splitlines()
    assert "a matrix product reaches 128 GFLOP/s (90–160), a convolution reaches 80" in said
    assert "at the matrix product's rate" in said
    # 320 passes of 4 GFLOP at 128 GFLOP/s take 10 s.
    assert line == "| small | 4.0 | 320 | 10.00 | torch | 15.00 (14.00–20.00) | 1.50 |"


def test_what_a_gpu_takes_is_printed_in_smaller_steps():
    passes = floor.Passes("small", None, None, 4_000_000_000, "torch", 320, [0.32, 0.18, 0.35])
    said, _, _, _, line = floor.text([passes], {"convolution": [800e12]}).splitlines()
    assert "a convolution reaches 800 TFLOP/s (800–800)" in said
    assert line == "| small | 4.0 | 320 | 0.0016 | torch | 0.3200 (0.1800–0.3500) | 200.00 |"
