import copy
import gc
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gc_panther.case import Geometry, Volume
from gc_panther.errors import ProcessingError, UserError, WeightsError
from gc_panther.nnunet.cudnn import ConvolutionFaults
from gc_panther.nnunet.inference import backends, openvino_graph, precision
from gc_panther.nnunet.inference.backends import OpenVINORunner, batch_size, choose_runner
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.ensemble import openvino_graph as graph_of
from gc_panther.nnunet.inference.openvino_graph import (
    GRAPH_FILE,
    Graph,
    compile_graph,
    convert,
    find_graph,
)
from gc_panther.nnunet.inference.precision import Choice, Trial
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.pack import write_pack
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext

ARRAY = np.random.default_rng(3).integers(1, 900, (12, 20, 18)).astype(np.int16)
IMAGE = Volume(ARRAY, Geometry((18, 20, 12), (2.0, 2.0, 4.0)))
# An extra: the lock files install it, a bare `pip install gc-panther` does not.
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gc_panther" / "openvino"


@pytest.fixture
def folder(tiny_model_folder):
    return tiny_model_folder(patch_zyx=(8, 16, 16))


def predict(folder, backend, **options):
    options = NnUNetOptions(backend=backend, **options)
    ensemble = Ensemble(open_model_folder(folder), device="cpu", options=options)
    return ensemble, ensemble.predict(IMAGE, RunContext())


@needs_openvino
@pytest.mark.parametrize("mirroring", [True, False])
def test_openvino_answers_as_torch_does(folder, mirroring):
    _, torchs = predict(folder, "torch", mirroring=mirroring)
    _, openvinos = predict(folder, "openvino", mirroring=mirroring)
    assert torchs.facts["backend"] == "torch"
    assert openvinos.facts["backend"].startswith("openvino 20")
    assert np.abs(torchs.probabilities - openvinos.probabilities).max() < 2e-3
    assert np.mean(torchs.labels_zyx != openvinos.labels_zyx) < 1e-2
    # The folds differ, so their weights were exchanged.
    assert len({p.tobytes() for p in (torchs.probabilities, openvinos.probabilities)}) == 2


@needs_openvino
@pytest.mark.parametrize("shape", [(32, 60, 64), (7, 50, 121)])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_window_with_much_padding_is_as_exact_as_torchs(shape, batch):
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1),
        torch.nn.InstanceNorm3d(4, affine=True),
        torch.nn.LeakyReLU(),
        torch.nn.Conv3d(4, 2, 1),
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    window = torch.zeros((batch, 1, *shape))
    window[:, :, : shape[0] // 3] = torch.randn((shape[0] // 3, *shape[1:]), generator=generator)
    weights = dict(network.named_parameters())
    compiled = compile_graph(convert(network, shape), weights, shape, batch)
    answer = torch.from_numpy(compiled(window.numpy())[0])
    with torch.inference_mode():
        torchs, truth = network(window), copy.deepcopy(network).double()(window.double())
    # OpenVINO's own instance norm is off by 60 times as much as torch's and more.
    assert (answer - truth).abs().max() <= 10 * (torchs - truth).abs().max()


@needs_openvino
def test_a_signal_is_handled_after_the_networks_are_gone():
    """In a child, which has this thread's alternate stack for signal handlers."""
    network, patch = torch.nn.Conv3d(1, 2, 1), (4, 4, 4)
    graph, weights = convert(network, patch), dict(network.named_parameters())
    first, second = (compile_graph(graph, weights, patch, 1) for _ in range(2))
    del first
    gc.collect()
    del second
    gc.collect()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


@pytest.mark.slow
@needs_openvino
def test_a_second_case_finds_the_folds_compiled(folder, monkeypatch):
    ensemble, first = predict(folder, "openvino")
    monkeypatch.setattr(backends, "compile_graph", None)
    assert np.array_equal(ensemble.predict(IMAGE, RunContext()).probabilities, first.probabilities)


def test_one_fold_at_a_time_holds_the_memory_of_its_passes(monkeypatch):
    events = []

    class Compiled:
        def __init__(self, fold):
            self.fold = fold

        def __call__(self, array):
            events.append(f"pass {self.fold}")
            return [array]

        def release_memory(self):
            events.append(f"release {self.fold}")

    monkeypatch.setattr(
        backends, "compile_graph", lambda graph, weights, *_: Compiled(int(weights["fold"]))
    )
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2026.0")
    runner = OpenVINORunner(Graph(xml="", constants=""), (8, 8, 8), Path("model"))
    for fold in (0, 1, 0):
        runner.load(fold, {"fold": torch.tensor(fold)})(torch.zeros(2, 1, 8, 8, 8))
    assert events == ["pass 0", "release 0", "pass 1", "release 1", "pass 0"]


@pytest.mark.slow
@needs_openvino
def test_large_networks_are_compiled_again(folder, monkeypatch):
    monkeypatch.setattr(backends, "_KEPT_BYTES", 10)
    ensemble, first = predict(folder, "openvino")
    assert np.array_equal(ensemble.predict(IMAGE, RunContext()).probabilities, first.probabilities)


@pytest.mark.slow
@needs_openvino
def test_the_graph_is_converted_once_and_kept(folder, empty_cache, monkeypatch):
    predict(folder, "openvino")
    (kept,) = empty_cache.iterdir()
    assert kept.suffix == ".json"
    monkeypatch.setattr(openvino_graph, "convert", None)
    predict(folder, "openvino")
    kept.write_text("{}")
    with pytest.raises(UserError, match="cannot run this network"):
        predict(folder, "openvino")
    # Chosen automatically, torch steps in.
    assert predict(folder, "auto")[1].facts["backend"] == "torch"


@pytest.mark.slow
@needs_openvino
def test_a_pack_brings_its_graph(folder, tmp_path, empty_cache, monkeypatch):
    model = open_model_folder(folder)
    graph = graph_of(model)
    write_pack(model, tmp_path / "pack", extra={GRAPH_FILE: graph.model_dump_json()})
    monkeypatch.setattr(openvino_graph, "convert", None)
    assert predict(tmp_path / "pack", "auto")[1].facts["backend"].startswith("openvino")
    assert not empty_cache.exists()
    assert Graph.model_validate_json(graph.model_dump_json()) == graph


@needs_openvino
def test_a_graph_has_the_names_of_the_weights_and_no_weight(folder):
    model = open_model_folder(folder)
    graph = graph_of(model)
    _, *inputs = re.findall('name="([^"]+)" type="Parameter"', graph.xml)
    places = {name: value.data_ptr() for name, value in model.read_weights(0).items()}
    used = {places[name] for name in inputs}
    assert len(used) == len(inputs)
    # All others are of deep supervision, which inference does not use.
    unused = [name for name, place in places.items() if place not in used]
    assert all(name.startswith("decoder.seg_layers.") for name in unused)
    # Axes and a norm's epsilon.
    assert len(bytes.fromhex(graph.constants)) < 100


@pytest.mark.slow
@needs_openvino
def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert predict(folder, "openvino")[1].facts["backend"].startswith("openvino")


@needs_openvino
def test_a_missing_weight_is_named(folder):
    graph = graph_of(open_model_folder(folder))
    weights = open_model_folder(folder).read_weights(0)
    name = re.findall('name="([^"]+)" type="Parameter"', graph.xml)[-1]
    with pytest.raises(WeightsError, match=name):
        compile_graph(graph, {n: v for n, v in weights.items() if n != name}, (8, 8, 8), 1)


@needs_openvino
def test_a_conversion_that_answers_otherwise_is_refused(monkeypatch):
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    assert isinstance(convert(network, (4, 4, 4)), Graph)
    monkeypatch.setattr(openvino_graph, "TOLERANCE", -1.0)
    with pytest.raises(ProcessingError, match="differs"):
        convert(network, (4, 4, 4))


@needs_openvino
def test_a_number_that_cannot_be_exchanged_is_noticed():
    """Running statistics are small constants of the graph, but each fold has its own."""
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    with pytest.raises(ProcessingError, match="differs"):
        convert(network, (4, 4, 4))


@needs_openvino
def test_other_architectures_have_other_graphs(tmp_path, empty_cache):
    for channels in (2, 3):
        find_graph(
            tmp_path,
            {"channels": channels},
            torch.nn.Conv3d(1, channels, 1),
            (4, 4, 4),
        )
    assert len(list(empty_cache.iterdir())) == 2


@needs_openvino
def test_openvino_reports_its_use_to_nobody(tmp_path):
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    module = "gc_panther.nnunet.inference.openvino_graph"
    code = f"from {module} import import_openvino; import_openvino().Core()"
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=True
    )
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [({"xml": None}, "xml"), ({"constants": "0g"}, "constants"), ({"constants": "0"}, "constants")],
)
def test_what_is_no_graph_is_refused_by_field(change, field):
    good = {"xml": "", "constants": "00ff"}
    Graph.model_validate_json(json.dumps(good))
    with pytest.raises(ValueError, match=field):
        Graph.model_validate_json(json.dumps({**good, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000])
def test_what_is_no_document_of_a_graph_is_refused(text):
    with pytest.raises(ValueError, match="validation error"):
        Graph.model_validate_json(text)


@pytest.mark.slow
@needs_openvino
def test_a_broken_graph_in_a_pack_is_made_again(folder, tmp_path, empty_cache, caplog):
    write_pack(open_model_folder(folder), tmp_path / "pack", extra={GRAPH_FILE: "{}"})
    _, prediction = predict(tmp_path / "pack", "openvino")
    assert prediction.facts["backend"].startswith("openvino")
    assert "is unusable and is made again" in caplog.text


@needs_openvino
def test_a_graph_that_openvino_cannot_read_is_one_line(folder, tmp_path, empty_cache):
    extra = {GRAPH_FILE: Graph(xml="<net/>", constants="").model_dump_json()}
    write_pack(open_model_folder(folder), tmp_path / "pack", extra=extra)
    with pytest.raises(WeightsError, match="OpenVINO graph cannot be used") as caught:
        predict(tmp_path / "pack", "openvino")
    assert str(tmp_path / "pack") in str(caught.value)
    assert "--backend torch" in str(caught.value)


def test_without_openvino_torch_runs_and_a_wish_is_refused(folder, monkeypatch):
    monkeypatch.setattr(backends, "is_installed", lambda: False)
    assert predict(folder, "auto")[1].facts["backend"] == "torch"
    with pytest.raises(UserError, match="not installed"):
        predict(folder, "openvino")


def test_on_a_gpu_torch_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "precision_on_this_gpu", lambda *_: Choice("half"))

    def choose(backend):
        network = torch.nn.Conv3d(1, 2, 1)
        return choose_runner(backend, torch.device("cuda"), tmp_path, {}, network, (4, 4, 4))

    assert choose("auto").name == "torch"
    with pytest.raises(UserError, match="--device cpu"):
        choose("openvino")


def test_small_windows_go_in_pairs_on_a_cpu():
    assert batch_size(torch.device("cpu"), (32, 80, 96)) == 2
    assert batch_size(torch.device("cpu"), (48, 160, 224)) == 1
    assert batch_size(torch.device("cuda"), (48, 160, 224)) == 8


def test_a_pass_waits_for_all_but_one_of_those_before_it(monkeypatch):
    happened = []

    class Event:
        def record(self):
            self.number = sum(kind == "queued" for kind, _ in happened)

        def synchronize(self):
            happened.append(("waited for", self.number))

    monkeypatch.setattr(torch.cuda, "Event", Event)

    def network(tiles):
        happened.append(("queued", int(tiles)))
        return -tiles

    passes = backends.keeping_pace(network)
    assert [int(passes(torch.tensor(n))) for n in (1, 2, 3)] == [-1, -2, -3]
    assert happened == [
        ("queued", 1),
        ("queued", 2),
        ("waited for", 1),
        ("queued", 3),
        ("waited for", 2),
    ]


def test_half_precision_is_autocasts(folder, monkeypatch):
    """A GPU's arithmetic on a CPU, which can do all of it but one pooling."""
    pool = torch.nn.functional.avg_pool3d
    monkeypatch.setattr(
        torch.nn.functional,
        "avg_pool3d",
        lambda tiles, *options: pool(tiles.float(), *options).to(tiles.dtype),
    )
    model = open_model_folder(folder, (0,))
    exact = Ensemble(model, device="cpu", options=NnUNetOptions(backend="torch"))
    network = exact._runner._network
    half = Choice("half")
    runner = backends.TorchRunner(network, torch.device("cpu"), (8, 16, 16), choice=half)
    tiles = torch.randn((2, 1, 8, 16, 16), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        own = runner.load(0, model.read_weights(0))(tiles)
        cast = {p.dtype for n, p in network.named_parameters() if "norm" not in n}
        kept = {p.dtype for n, p in network.named_parameters() if "norm" in n}
        single = exact._runner.load(0, model.read_weights(0))
        with torch.autocast("cpu", torch.float16):
            autocast = single(tiles)
    assert (cast, kept) == ({torch.half}, {torch.float32})
    assert own.dtype == autocast.dtype == torch.half
    assert torch.equal(own, autocast)


class Asking(torch.nn.Module):
    """A network that notes what it is given and whether TF32 is allowed meanwhile."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, tiles):
        self.seen.append((tiles.dtype, torch.backends.cudnn.allow_tf32))
        return tiles


@pytest.mark.parametrize(
    ("choice", "dtype", "tf32"),
    [
        (Choice("half"), torch.half, True),
        (Choice("tf32", "slow"), torch.float32, True),
        (Choice("float32", "wrong"), torch.float32, False),
    ],
)
def test_a_gpu_computes_in_the_precision_that_was_chosen(monkeypatch, choice, dtype, tf32):
    """The device is a stand-in: nothing here is moved to a GPU."""
    monkeypatch.setattr(backends, "keeping_pace", lambda network: network)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    network = Asking()
    runner = backends.TorchRunner(network, torch.device("cuda:0"), (4, 4, 4), choice=choice)
    runner.load(0, {})(torch.zeros(1, 1, 4, 4, 4))
    assert network.seen == [(dtype, tf32)]
    assert torch.backends.cudnn.allow_tf32, "torch's setting is as it was"


def test_a_gpu_that_computes_wrongly_gets_float32_and_a_warning(folder, monkeypatch, caplog):
    """The plans' network, its patch and batch are tested; the measurement is a stand-in."""
    measured = []
    shapes = precision.convolution_layers

    def measure(layers, device, batch, precision):
        measured.append((len(layers), device.type, batch, precision))
        return Trial(0.5, 0.3)

    monkeypatch.setattr(
        precision,
        "convolution_layers",
        lambda network, _, patch: shapes(network, torch.device("cpu"), patch),
    )
    monkeypatch.setattr(precision, "measure", measure)
    monkeypatch.setattr(
        precision, "convolution_faults", lambda *_: ConvolutionFaults("right", False)
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    exact = Ensemble(
        open_model_folder(folder, (0,)), device="cpu", options=NnUNetOptions(backend="torch")
    )
    network = exact._runner._network
    gpu = torch.device("cuda:0")
    runner = choose_runner("auto", gpu, folder, None, network, (8, 16, 16))
    assert runner.choice.precision == "float32"
    assert "half-precision convolutions are off by 5.0e-01" in runner.choice.reason
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "compute in float32" in warning.getMessage()
    layers = len(shapes(network, torch.device("cpu"), (8, 16, 16)))
    assert measured == [(layers, "cuda", 8, "half")]


def test_the_precision_and_why_are_in_the_facts(folder):
    ensemble, prediction = predict(folder, "torch")
    assert prediction.facts["precision"] == "float32"
    assert "precision_reason" not in prediction.facts
    ensemble._runner.choice = Choice("float32", "half precision is wrong here")
    facts = ensemble.predict(IMAGE, RunContext()).facts
    assert facts["precision_reason"] == "half precision is wrong here"
