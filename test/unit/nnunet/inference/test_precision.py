"""Which precision is chosen, with stand-ins for a GPU's measurements; the CPU measures itself."""

import math
import re
import subprocess
import sys

import pytest
import torch

from gc_panther.nnunet.cudnn import ConvolutionFaults
from gc_panther.nnunet.inference import precision
from gc_panther.nnunet.inference.ensemble import _network_and_patch
from gc_panther.nnunet.inference.precision import (
    CONVOLUTIONS,
    MAX_ERROR,
    Layer,
    Trial,
    choose_precision,
    convolution_layers,
    measure,
)
from gc_panther.nnunet.model.folder import open_model_folder

GOOD, SLOW, WRONG = Trial(2e-4, 0.3), Trial(2e-4, 2.0), Trial(0.5, 0.3)
PATCH = (8, 16, 16)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("torch_version", "cudnn", "half", "tf32", "chosen", "reason"),
    [
        ("2.7.1", 90501, GOOD, None, "half", ""),
        ("2.13.0", 91900, GOOD, None, "half", ""),
        ("2.10.0", 91002, GOOD, None, "half", ""),  # slow by the table, but not here
        ("2.8.0", 91002, None, None, "float32", "may compute half-precision"),
        ("2.13.0", 91900, WRONG, None, "float32", "half-precision convolutions are off by 5.0e-01"),
        ("2.13.0", 91900, Trial(math.nan, 0.3), None, "float32", "off by nan"),
        ("2.10.0", 91002, SLOW, None, "float32", "without cuDNN, slowly"),
        ("2.13.0", 91900, SLOW, GOOD, "tf32", "takes 2.0 times as long"),
        ("2.13.0", 91900, SLOW, WRONG, "float32", "TF32 convolutions are off"),
        ("2.13.0", 91900, SLOW, Trial(0.0, 1.0), "float32", "takes 2.0 times"),  # a T4
        ("2.7.1", 90501, torch.OutOfMemoryError(), None, "half", "too little GPU memory"),
        ("2.7.1", 90501, RuntimeError("no\nengine"), None, "float32", r"fail \(no engine\)"),
    ],
)
def test_the_choice(torch_version, cudnn, half, tf32, chosen, reason):
    asked = []

    def attempt(wanted):
        asked.append(wanted)
        answer = {"half": half, "tf32": tf32}[wanted]
        if isinstance(answer, Exception):
            raise answer
        return answer

    choice = choose_precision(torch_version, cudnn, attempt)
    assert choice.precision == chosen
    assert re.search(reason, choice.reason)
    assert (choice.reason == "") is (reason == "")
    expected = [name for name, trial in (("half", half), ("tf32", tf32)) if trial is not None]
    assert asked == expected


@pytest.fixture
def network(tiny_model_folder):
    folder = tiny_model_folder(patch_zyx=PATCH, folds=(0,))
    return _network_and_patch(open_model_folder(folder, (0,)))[0]


def test_the_layers_are_the_networks_own(network):
    layers = convolution_layers(network, CPU, PATCH)
    modules = [module for module in network.modules() if isinstance(module, CONVOLUTIONS)]
    assert sum(layer.times for layer in layers) == len(modules)
    assert {repr(layer.module) for layer in layers} == {repr(module) for module in modules}
    assert layers[0].shape == (1, *PATCH)
    assert all(layer.module.weight.is_meta for layer in layers), "no memory is kept"


@pytest.mark.slow
def test_the_compiler_of_torch_is_not_imported(tiny_model_folder):
    """As most operations on the meta device would do, for two seconds."""
    code = """
import sys, torch
from pathlib import Path
from gc_panther.nnunet.inference.ensemble import _network_and_patch
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.inference.precision import convolution_layers, measure
network, patch = _network_and_patch(open_model_folder(Path(sys.argv[1]), (0,)))
device = torch.device("cpu")
measure(convolution_layers(network, device, patch), device, 1, "half")
sys.exit("sympy" in sys.modules)
"""
    folder = tiny_model_folder(patch_zyx=PATCH, folds=(0,))
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_a_right_half_precision_is_measured_as_right(network):
    trial = measure(convolution_layers(network, CPU, PATCH), CPU, 2, "half")
    assert 0 < trial.error < MAX_ERROR / 5
    assert trial.time > 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda answer: answer.roll(1, -1),
        lambda answer: answer / 0,
        lambda answer: answer * float("nan"),
    ],
)
def test_a_wrong_kernel_of_one_layer_is_found(network, monkeypatch, wrong):
    layers = convolution_layers(network, CPU, PATCH)
    right, last = torch.nn.Conv3d.forward, repr(layers[-1].module)

    def forward(self, windows):
        answer = right(self, windows)
        return wrong(answer) if windows.dtype == torch.half and repr(self) == last else answer

    monkeypatch.setattr(torch.nn.Conv3d, "forward", forward)
    assert not measure(layers, CPU, 2, "half").error <= MAX_ERROR


def test_one_wrong_window_of_a_pass_is_found(monkeypatch):
    right = torch.nn.Conv3d.forward

    def forward(self, windows):
        answer = right(self, windows)
        if len(windows) > 1:
            answer[-1] = 0
        return answer

    monkeypatch.setattr(torch.nn.Conv3d, "forward", forward)
    layer = Layer(torch.nn.Conv3d(2, 3, 3, device="meta"), (2, 5, 6, 7))
    assert measure([layer], CPU, 1, "half").error <= MAX_ERROR
    assert measure([layer], CPU, 4, "half").error > MAX_ERROR


@pytest.mark.parametrize("wanted", ["half", "tf32"])
def test_only_tf32_is_tried_with_tf32(monkeypatch, wanted):
    right, seen = torch.nn.Conv3d.forward, []

    def forward(self, windows):
        seen.append(torch.backends.cudnn.allow_tf32)
        return right(self, windows)

    monkeypatch.setattr(torch.nn.Conv3d, "forward", forward)
    measure([Layer(torch.nn.Conv3d(1, 1, 1, device="meta"), (1, 2, 2, 2))], CPU, 1, wanted)
    assert seen == [False, False, wanted == "tf32", wanted == "tf32"]


def test_with_too_little_memory_one_window_is_tried(network, monkeypatch):
    batches = []

    def limited(layers, device, batch, wanted):
        batches.append(batch)
        if batch > 1:
            raise torch.OutOfMemoryError
        return GOOD

    monkeypatch.setattr(precision, "convolution_layers", lambda *_: [])
    monkeypatch.setattr(precision, "measure", limited)
    monkeypatch.setattr(
        precision, "convolution_faults", lambda *_: ConvolutionFaults("right", False)
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    choice = precision.precision_on_this_gpu(network, torch.device("cuda:0"), PATCH, 8)
    assert (choice.precision, choice.reason, batches) == ("half", "", [8, 1])
