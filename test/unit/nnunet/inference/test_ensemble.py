import json
import re
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from gc_panther.case import Geometry, Volume
from gc_panther.errors import ProcessingError, UserError, WeightsError
from gc_panther.nnunet.inference import anytime, backends
from gc_panther.nnunet.inference import ensemble as module
from gc_panther.nnunet.inference import folds as folds_module
from gc_panther.nnunet.inference.backends import TorchRunner
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext, SilentProgress

ARRAY = np.random.default_rng(3).integers(1, 900, (6, 14, 12)).astype(np.int16)
IMAGE = Volume(ARRAY, Geometry((12, 14, 6), (2.0, 2.0, 4.0)))


@pytest.fixture
def folder(tiny_model_folder):
    return tiny_model_folder(patch_zyx=(8, 16, 16))


def ensemble(folder, folds=None, **options):
    options = NnUNetOptions(**{"mirroring": False, "backend": "torch", **options})
    return Ensemble(open_model_folder(folder, folds), device="cpu", options=options)


def change_plans(folder, change):
    plans = json.loads((folder / "plans.json").read_text())
    change(plans["configurations"]["3d_fullres"])
    (folder / "plans.json").write_text(json.dumps(plans))


def test_a_prediction(folder):
    prediction = ensemble(folder, mirroring=True).predict(IMAGE, RunContext())
    assert prediction.labels_zyx.dtype == np.uint8
    assert prediction.labels_zyx.shape == ARRAY.shape
    assert prediction.probability_zyx(1).dtype == np.float32
    assert prediction.probability_zyx(1).shape == ARRAY.shape
    assert np.array_equal(prediction.labels_zyx, prediction.probabilities.argmax(0))
    assert prediction.facts == {
        "folds": [0, 1, 2],
        "combine": "probabilities",
        "mode": "exact",
        "backend": "torch",
        "precision": "float32",
        "mirroring_axes": [0, 1, 2],
        "step_size": 0.5,
        "windows": 1,
        "passes": 24,
    }
    json.dumps(prediction.facts)


def test_the_mean_is_that_of_the_folds(folder):
    single = [ensemble(folder, (fold,)).predict(IMAGE, RunContext()) for fold in (0, 1, 2)]
    together = ensemble(folder).predict(IMAGE, RunContext())
    mean = np.mean([prediction.probabilities for prediction in single], 0)
    assert np.allclose(together.probabilities, mean, atol=1e-6)


def test_votes_and_their_ties(folder):
    single = [ensemble(folder, (fold,)).predict(IMAGE, RunContext()) for fold in (0, 1, 2)]
    together = ensemble(folder, combine="vote").predict(IMAGE, RunContext())
    votes = np.stack([sum(p.labels_zyx == label for p in single) for label in (0, 1, 2)])
    most = votes == votes.max(0)
    tied = most.sum(0) > 1
    assert tied.any()
    assert np.array_equal(together.labels_zyx[~tied], votes.argmax(0)[~tied])
    among = np.where(most, together.probabilities, -1).argmax(0)
    assert np.array_equal(together.labels_zyx[tied], among[tied])


@pytest.mark.parametrize("combine", ["probabilities", "logits", "vote"])
def test_outside_the_patient_is_background(combine, folder):
    array = np.zeros_like(ARRAY)
    array[1:5, 3:12, 2:9] = ARRAY[1:5, 3:12, 2:9]
    prediction = ensemble(folder, combine=combine).predict(
        Volume(array, IMAGE.geometry), RunContext()
    )
    assert not prediction.labels_zyx[array == 0].any()
    assert (prediction.probability_zyx(0)[array == 0] == 1).all()


def test_the_same_ensemble_serves_many_cases_alike(folder):
    engine = ensemble(folder)
    first = engine.predict(IMAGE, RunContext())
    engine.predict(Volume(ARRAY[:3], Geometry((12, 14, 3), (1.0, 1.0, 9.0))), RunContext())
    again = engine.predict(IMAGE, RunContext())
    assert np.array_equal(first.probabilities, again.probabilities)
    assert np.array_equal(ARRAY, IMAGE.array_zyx)


class Recorder:
    """A progress and a clock that remember."""

    def __init__(self):
        self.log, self.stages = [], []

    def start(self, label, total):
        self.log.append(["start", label, total, 0])

    def advance(self, steps=1):
        self.log[-1][3] += steps

    def finish(self):
        self.log[-1][0] = "finished"

    @contextmanager
    def stage(self, name):
        self.stages.append(name)
        yield


def test_progress_and_stages(folder):
    recorder = Recorder()
    ensemble(folder, (0, 2), mirroring=True).predict(IMAGE, RunContext(recorder, recorder))
    name = folder.name
    assert recorder.log == [
        ["finished", f"{name}: fold 1 of 2", 8, 8],
        ["finished", f"{name}: fold 2 of 2", 8, 8],
    ]
    assert set(recorder.stages) == {"preprocess", "compile", "network", "resample"}


def test_wrong_number_of_outputs(folder):
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "tumour": 1}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(WeightsError, match=r"does not fit its plans and its 2 labels.*seg_layers"):
        ensemble(folder)


@pytest.mark.parametrize("change", ["lacks one", "has another"])
def test_a_checkpoint_holds_exactly_the_tensors_of_its_network(folder, change):
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    weights = content["network_weights"]
    if change == "lacks one":
        name = sorted(weights)[0]
        del weights[name]
    else:
        name = "another.weight"
        weights[name] = torch.zeros(1)
    torch.save(content, path)
    with pytest.raises(WeightsError, match=rf"does not fit its plans .*\(in {re.escape(name)}\)"):
        ensemble(folder)


def test_plans_of_another_network(folder):
    def wider(configuration):
        configuration["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 16]

    change_plans(folder, wider)
    with pytest.raises(WeightsError, match="does not fit its plans"):
        ensemble(folder)


@pytest.mark.parametrize("key", ["architecture", "patch_size", "spacing"])
def test_incomplete_plans(key, folder):
    change_plans(folder, lambda configuration: configuration.pop(key))
    field = f"plans.json cannot be used: configurations.3d_fullres.{key}: Field required"
    with pytest.raises(WeightsError, match=re.escape(field)) as caught:
        ensemble(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("nonlin", "subprocess.Popen"),
        ("nonlin", "torch.nn.modules.module.torch.os.system"),
        ("nonlin", "torch.nn.functional.relu"),
        ("network_class_name", "builtins.exec"),
        ("network_class_name", "no_such_package.Network"),
    ],
)
def test_plans_cannot_make_python_call_anything(key, name, folder):
    def change(configuration):
        architecture = configuration["architecture"]
        (architecture["arch_kwargs"] if key == "nonlin" else architecture)[key] = name

    change_plans(folder, change)
    with pytest.raises(WeightsError, match="is not a supported network layer"):
        ensemble(folder)


@pytest.mark.parametrize("options", [{"combine": "mean"}, {"step_size": 0.0}, {"step_size": 1.5}])
def test_options_without_a_meaning(options, folder):
    with pytest.raises(UserError):
        ensemble(folder, **options)


def test_networks_that_overflow(folder):
    for path in folder.glob("fold_1/*.pth"):
        checkpoint = torch.load(path, weights_only=True)
        for name, value in checkpoint["network_weights"].items():
            if "seg_layers" in name:
                value.mul_(1e30)
        torch.save(checkpoint, path)
    with pytest.raises(ProcessingError, match="NaN or infinity") as caught:
        ensemble(folder).predict(IMAGE, RunContext())
    assert "fold 1" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("Check 'ptr' failed at cpu_memory.cpp:257: Failed to allocate 62914560 bytes"),
    ],
)
@pytest.mark.parametrize(
    "stage", ["preprocess", "window_logits", "blend_windows", "resample", "_highest"]
)
def test_out_of_memory_is_reported_once(stage, error, folder, monkeypatch):
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        raise error

    place = folds_module if hasattr(folds_module, stage) else module
    monkeypatch.setattr(place, stage, fail)
    with pytest.raises(ProcessingError, match="the machine ran out of memory"):
        ensemble(folder).predict(IMAGE, RunContext())
    assert len(calls) == 1


def test_other_runtime_errors_are_not_taken_for_memory(folder, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(folds_module, "window_logits", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        ensemble(folder).predict(IMAGE, RunContext())


def short_of_memory(monkeypatch, most):
    """A GPU, whose memory is enough for ``most`` windows at once."""
    sizes = []
    load = TorchRunner.load

    def limited(self, fold, weights):
        network = load(self, fold, weights)

        def run(tiles):
            sizes.append(len(tiles))
            if len(tiles) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(tiles)

        return run

    monkeypatch.setattr(TorchRunner, "load", limited)
    monkeypatch.setattr(backends, "batch_size", lambda device, patch: 8)
    return sizes


@pytest.mark.parametrize(("most", "savings"), [(8, None), (4, "4 windows"), (1, "1 window")])
def test_a_gpu_short_of_memory_gets_fewer_windows_at_once(most, savings, folder, monkeypatch):
    free = ensemble(folder, mirroring=True).predict(IMAGE, RunContext())
    sizes = short_of_memory(monkeypatch, most)
    loaded = ensemble(folder, mirroring=True)
    short = loaded.predict(IMAGE, RunContext())
    assert np.allclose(short.probabilities, free.probabilities, atol=1e-3)
    said = short.facts.get("out_of_memory")
    assert (said is None) if savings is None else said.startswith(savings)
    assert sum(size > most for size in sizes) == {8: 0, 4: 1, 1: 3}[most]
    # What helped is kept: nothing is tried in vain again.
    sizes.clear()
    loaded.predict(IMAGE, RunContext())
    assert set(sizes) == {most}


def test_a_gpu_without_any_memory_is_one_clear_error(folder, monkeypatch):
    sizes = short_of_memory(monkeypatch, 0)
    with pytest.raises(ProcessingError, match="the GPU ran out of memory"):
        ensemble(folder, mirroring=True).predict(IMAGE, RunContext())
    assert sizes == [8, 4, 2, 1]


def test_sums_move_to_the_main_memory_before_a_gpu_gives_up(folder, monkeypatch):
    """The device is a stand-in: sums anywhere but on the CPU do not fit."""
    blend, tried = folds_module.blend_windows, []

    def limited(parts, slices, shape, heads, device):
        tried.append(device.type)
        if device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return blend(parts, slices, shape, heads, device)

    monkeypatch.setattr(folds_module, "blend_windows", limited)
    loaded = ensemble(folder, (0,), mirroring=True)
    loaded._folds._sums = torch.device("meta")
    facts = loaded.predict(IMAGE, RunContext()).facts
    assert tried == ["meta", "meta", "cpu"]
    assert facts["out_of_memory"] == "1 window at once, sums in the main memory"


def in_time(seconds, folder, **options):
    loaded = ensemble(folder, mirroring=True, **options)
    return loaded.predict(IMAGE, RunContext(deadline=time.perf_counter() + seconds))


@pytest.mark.parametrize("combine", ["probabilities", "logits", "vote"])
def test_a_deadline_that_passed_leaves_one_fold_without_mirroring(combine, folder):
    limited = in_time(-1, folder, combine=combine)
    assert limited.facts["folds"] == [0]
    assert limited.facts["mirrored_copies"] == [1]
    assert limited.facts["passes"] == limited.facts["windows"]
    left_out = "the time limit left out folds 1, 2; all mirrored copies of fold 0"
    assert left_out in limited.facts["dropped"]
    alone = ensemble(folder, (0,), combine=combine, mirroring=False).predict(IMAGE, RunContext())
    assert np.array_equal(limited.labels_zyx, alone.labels_zyx)


def test_a_deadline_far_away_changes_nothing_but_rounding(folder):
    limited, free = (
        in_time(1e6, folder),
        ensemble(folder, mirroring=True).predict(IMAGE, RunContext()),
    )
    assert {**limited.facts, "mirrored_copies": None} == {**free.facts, "mirrored_copies": None}
    assert limited.facts["mirrored_copies"] == [8, 8, 8]
    assert np.abs(limited.probabilities - free.probabilities).max() < 2e-3


def test_folds_go_before_mirrored_copies_and_what_is_too_late_is_left_out(folder, monkeypatch):
    """On a clock that a pass moves by one second, and combining a fold by nothing."""
    now = [0.0]

    class Moves:
        def start(self, label, total):
            pass

        def advance(self, steps=1):
            now[0] += 1.0

        def finish(self):
            pass

    loaded = ensemble(folder, mirroring=True)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def with_limit(seconds):
        now[0] = 0.0
        run = RunContext(progress=Moves(), deadline=seconds)
        facts = loaded.predict(IMAGE, run).facts
        assert now[0] <= run.deadline
        return facts["folds"], facts["mirrored_copies"]

    # One window: a copy of a fold is one pass of one second, planned for with some caution.
    spare, each = anytime.SPARE_S, 1 + anytime.CAUTION
    assert with_limit(1 + spare + 1) == ([0], [1])
    assert with_limit(2 + spare + 1) == ([0, 1], [1, 1])
    assert with_limit(3 + spare + 1) == ([0, 1, 2], [1, 1, 1])
    assert with_limit(3 + spare + 6.1 * each) == ([0, 1, 2], [3, 3, 3])
    assert with_limit(3 + spare + 21.1 * each) == ([0, 1, 2], [8, 8, 8])


def test_passes_that_turn_out_slow_are_given_up(folder, monkeypatch):
    now, seconds = [0.0], [1.0]

    class Moves(SilentProgress):
        def start(self, label, total):
            seconds[0] = 20.0 if "fold 2" in label and total > 1 else 1.0

        def advance(self, steps=1):
            now[0] += seconds[0]

    loaded = ensemble(folder, mirroring=True)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    facts = loaded.predict(IMAGE, RunContext(progress=Moves(), deadline=60.0)).facts
    assert facts["mirrored_copies"] == [8, 1, 1]
    # Not more than the one batch of two that was running.
    assert now[0] <= 60 + 2 * 20


def test_a_slow_first_fold_is_no_measure_of_the_others(folder, monkeypatch):
    """As on a GPU, where the first passes pay for the search for algorithms."""
    now, seconds = [0.0], [1.0]

    class Moves(SilentProgress):
        def start(self, label, total):
            seconds[0] = 20.0 if "fold 1" in label and total == 1 else 1.0

        def advance(self, steps=1):
            now[0] += seconds[0]

    loaded = ensemble(folder, mirroring=True)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    facts = loaded.predict(IMAGE, RunContext(progress=Moves(), deadline=60.0)).facts
    assert facts["mirrored_copies"] == [8, 8, 8]
    assert now[0] == 20 + 23


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_highest_value_wins_and_the_lower_label_of_equal_ones(dtype):
    values = torch.randint(0, 4, (3, 5, 6, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = values.clone()
    found = module._highest(values)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), values.numpy().argmax(0))
    assert torch.equal(values, before)
