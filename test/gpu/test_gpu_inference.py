"""What the engine computes on a GPU, and what it does when the memory there is short."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from stock import stock_labels, with_stock_trainer

from gc_panther.case import Geometry, Volume
from gc_panther.errors import GCPantherError
from gc_panther.imaging.images import read_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.nnunet.device import torch_device
from gc_panther.nnunet.inference.backends import TorchRunner
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.precision import (
    MAX_ERROR,
    Choice,
    convolution_layers,
    measure,
    precision_on_this_gpu,
)
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.network import build_network, fitting_plans
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.settings import bundled_resources
from gc_panther.task import RunContext

pytestmark = pytest.mark.gpu

PATCH = (64, 64, 64)
#: What half precision may change in a probability, away from the edges of the image: there a voxel
#: is seen by the corner of one window alone, and nnU-Net's sums in half precision, weighted with
#: next to nothing, round coarsely.
ROUNDING = 0.03
EDGE = 4


def image(size=(90, 84, 70)):
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=size[::-1]), 2)
    array = (900 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.int16)
    return Volume(array, Geometry(size, (2.0, 2.0, 4.0)))


def ensemble(folder, device, **options):
    options = NnUNetOptions(**{"backend": "torch", **options})
    return Ensemble(open_model_folder(folder), device=device, options=options)


@pytest.fixture
def folder(tiny_model_folder):
    return tiny_model_folder(patch_zyx=PATCH, folds=(0, 1))


def network_of(folder):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    model = open_model_folder(folder)
    with fitting_plans(model):
        configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
        return build_network(configuration, len(model.labels))


def test_the_gpu_is_found():
    chosen = torch_device("auto", require_gpu=True)
    assert chosen.name == "cuda:0"
    assert "GiB free" in chosen.description


def test_the_precision_that_is_chosen_computes_rightly(gpu, folder):
    network, device = network_of(folder), torch.device(gpu)
    choice = precision_on_this_gpu(network, device, PATCH, 8)
    trial = measure(convolution_layers(network, device, PATCH), device, 8, choice.precision)
    assert trial.error <= MAX_ERROR / 5
    assert choice.precision == "half" or choice.reason


def test_float32_is_without_tf32(gpu, folder):
    """What a GPU falls back on gives the CPU's numbers, which TF32's are far from."""
    network, single = network_of(folder), network_of(folder)
    weights = open_model_folder(folder).read_weights(0)
    tiles = torch.randn(2, 1, *PATCH, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        runner = TorchRunner(network, torch.device(gpu), PATCH, choice=Choice("float32", "test"))
        there = runner.load(0, weights)(tiles.to(gpu)).cpu()
        here = TorchRunner(single, torch.device("cpu"), PATCH).load(0, weights)(tiles)
    assert there.dtype == torch.float32
    assert (there - here).abs().max() / here.abs().max() < 1e-4


def test_cast_once_is_autocast_bit_by_bit(gpu, folder):
    model = open_model_folder(folder)
    network, whole = network_of(folder), network_of(folder)
    weights = model.read_weights(0)
    whole.load_state_dict(weights, assign=True)
    whole.to(gpu).eval()
    tiles = torch.randn(2, 1, *PATCH, device=gpu)
    with torch.inference_mode(), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        runner = TorchRunner(network, torch.device(gpu), PATCH, choice=Choice("half"))
        cast = runner.load(0, weights)(tiles)
        with torch.autocast("cuda"):
            stock = whole(tiles)
    assert cast.dtype == stock.dtype == torch.half
    assert torch.equal(cast, stock)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_probabilities_are_the_cpus(gpu, folder, combine):
    here = ensemble(folder, gpu, combine=combine).predict(image(), RunContext())
    there = ensemble(folder, "cpu", combine=combine).predict(image(), RunContext())
    difference = np.abs(here.probabilities - there.probabilities)
    inside = slice(EDGE, -EDGE)
    assert difference[:, inside, inside, inside].max() < ROUNDING
    assert difference.mean() < ROUNDING / 30
    assert len(np.unique(there.labels_zyx)) == 3, "a parity test needs all labels"


def test_progress_waits_for_the_gpu(gpu, folder):
    """No more than one pass is queued behind the one that runs."""
    runner = TorchRunner(torch.nn.Identity(), torch.device(gpu), PATCH, choice=Choice("half"))
    slow = torch.randn(4096, 4096, device=gpu)
    runner._network = SlowNetwork(slow)
    passes = runner.load(0, {})
    ends = []
    for _ in range(6):
        passes(slow)
        end = torch.cuda.Event()
        end.record()
        ends.append(end)
        assert all(earlier.query() for earlier in ends[:-2])
    torch.cuda.synchronize()


class SlowNetwork(torch.nn.Module):
    """Tens of milliseconds of work on the GPU per call."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def load_state_dict(self, *args, **kwargs):
        """It has no weights."""

    def forward(self, tiles):
        for _ in range(20):
            tiles = torch.nn.functional.normalize(self.matrix.half() @ tiles)
        return tiles


def peak(folder, gpu, **options):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found = ensemble(folder, gpu, **options).predict(image(), RunContext())
    return found, torch.cuda.max_memory_allocated()


def test_a_full_gpu_gets_fewer_windows_at_once(gpu, folder):
    whole, needed = peak(folder, gpu)
    assert "out_of_memory" not in whole.facts
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * needed / total)
    saved, less = peak(folder, gpu)
    assert "at once" in saved.facts["out_of_memory"]
    assert less <= 0.6 * needed
    assert np.abs(saved.probabilities - whole.probabilities).max() < ROUNDING


def test_a_gpu_too_small_for_one_window_is_one_clear_error(gpu, folder):
    loaded = ensemble(folder, gpu)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(3 * 2**20 / total)
    with pytest.raises(GCPantherError, match="memory"):
        loaded.predict(image(), RunContext())


def test_half_precision_that_overflows_is_one_clear_error(gpu, folder):
    for file in Path(folder).rglob("checkpoint_final.pth"):
        checkpoint = torch.load(file, weights_only=False)
        for name, value in checkpoint["network_weights"].items():
            if "seg_layers" in name:
                value.mul_(1e6)
        torch.save(checkpoint, file)
    with pytest.raises(GCPantherError, match="NaN or infinity"):
        ensemble(folder, gpu).predict(image(), RunContext())


def test_a_deadline_is_kept(gpu, folder):
    """One that leaves no time for all passes: something is dropped, and the labels are there."""
    loaded = ensemble(folder, gpu)
    whole = loaded.predict(image(), RunContext())
    run = RunContext(deadline=time.perf_counter() + 0.4)
    found = loaded.predict(image(), run)
    assert found.facts["passes"] < whole.facts["passes"]
    assert "dropped" in found.facts
    assert found.labels_zyx.shape == whole.labels_zyx.shape


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["logits", "probabilities"])
@pytest.mark.parametrize("name", ["task1", "task2"])
def test_bundled_models_give_stock_labels(gpu, name, combine, tmp_path):
    folder = bundled_resources() / name
    case = to_lps(read_image(next(Path(f"test/cases/{name}/input/images").rglob("*.mha"))))
    stock = stock_labels(with_stock_trainer(folder, tmp_path / name), (0, 1), case, combine, gpu)
    loaded = Ensemble(
        open_model_folder(folder, (0, 1)), device=gpu, options=NnUNetOptions(combine=combine)
    )
    labels = loaded.predict(case, RunContext()).labels_zyx
    assert (stock > 0).any()
    # Windows go through the network in other numbers, for which cuDNN has other algorithms.
    assert np.mean(labels != stock) <= 2e-5
    a, b = labels > 0, stock > 0
    assert 2 * np.sum(a & b) / (a.sum() + b.sum()) >= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("task", ["task1", "task2"])
def test_the_command_line_uses_the_gpu(task, tmp_path):
    case = next(Path(f"test/cases/{task}/input/images").rglob("*.mha"))
    masks = {}
    for device in ("cuda", "cpu"):
        mask, report = tmp_path / f"{device}.mha", tmp_path / f"{device}.json"
        command = [sys.executable, "-m", "gc_panther", "predict", task, str(case)]
        command += ["-o", str(mask), "--report", str(report), "--device", device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(report.read_text())["device"]["name"].startswith(device)
        masks[device] = read_image(mask).array_zyx > 0
    both = masks["cuda"].sum() + masks["cpu"].sum()
    assert 2 * np.sum(masks["cuda"] & masks["cpu"]) / both >= 0.99
