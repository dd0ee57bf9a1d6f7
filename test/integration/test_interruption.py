"""Trainings that are killed, and what the same command makes of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from gc_panther_task1.training import Task1Recipe, Task1Training
from in_process import engine_in_process as engine_in_process

from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Network, Schedule
from gc_panther.panther.training.recipe import PhantomCases, WarmUp

# Ten and six processes that import torch and nnU-Net, and Ray.
pytestmark = pytest.mark.slow
DRIVER = Path(__file__).parents[1] / "tiny_training.py"
SUPPORT = DRIVER.parent / "support"
#: What a run that has to wait there prints.
WAITS = "waits for its end"
#: Voxels so large that a phantom is made, and a network trained on it, in no time.
SPACING = (9.0, 9.0, 9.0)
#: Seconds that only a test which has failed waits.
PATIENCE = 1200
SCHEDULE = Schedule(
    epochs=4,
    learning_rate=0.01,
    iterations_per_epoch=2,
    validation_iterations=1,
    oversample_foreground=1.0,
    optimizer="adamw",
    augmentation="light",
    save_every=1,
)
NETWORK = Network(
    spacing_zyx=SPACING,
    patch_zyx=(16, 16, 16),
    features=(4, 8, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    blocks=(1, 1, 1),
    decoder_convs=(1, 1),
)


def phantoms(cases, seed):
    return PhantomCases(task="task1", cases=cases, seed=seed, spacing_xyz=SPACING)


def recipe(folds, warm_up=()):
    return Task1Recipe(
        folds=folds,
        schedule=SCHEDULE,
        network=NETWORK,
        phantoms=phantoms(folds, 7),
        warm_up=warm_up,
    )


class Run:
    """A run of the command line in a process of its own, and what it has printed."""

    def __init__(self, folder, name, recipe, *options):
        self.folder = folder / name
        self.work, self.export = self.folder / "work", self.folder / "models"
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "recipe.json"
        file.write_text(recipe.model_dump_json())
        self.log = self.folder / f"log-{len(list(self.folder.glob('log-*')))}"
        command = [sys.executable, str(DRIVER), str(file), *options, "train", "task1"]
        command += ["--work", str(self.work), "--export", str(self.export)]
        if "--ray" in options:
            command += ["--engine", "ray", "--jobs", "2"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
            "RAY_memory_monitor_refresh_ms": "0",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, text):
        """Wait until the run has printed a text."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert self.process.poll() is None, f"ended before {text!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {text!r} in\n{self.text}"
            time.sleep(0.02)
        return self

    def kill(self, wait_for_end):
        """SIGKILL; the processes it has started must end by themselves."""
        processes = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        wait_for_end(processes)
        return self

    def finish(self):
        assert self.process.wait(PATIENCE) == 0, self.text
        return self


def weights(model, fold):
    file = model / f"fold_{fold}" / "checkpoint_final.pth"
    return torch.load(file, weights_only=True)["network_weights"]


def parents():
    """The parent of every process."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name, which is in brackets: state and parent.
            found[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    return found


def descendants(pid):
    pairs, family = parents().items(), {pid}
    while more := {child for child, parent in pairs if parent in family} - family:
        family |= more
    return family - {pid}


@pytest.fixture
def start(tmp_path):
    """Start runs; none survives the test."""
    runs = []

    def start_one(*arguments):
        runs.append(Run(tmp_path, *arguments))
        return runs[-1]

    yield start_one
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def test_a_training_killed_in_every_stage_ends_as_if_it_had_not_been(
    start, wait_for_end, tmp_path, engine_in_process, monkeypatch
):
    tiny = recipe(2, (WarmUp(phantoms=phantoms(3, 5), schedule=SCHEDULE),))
    monkeypatch.setattr("gc_panther_task1.training.WARM_UP_FOLDS", 3)
    undisturbed = tmp_path / "undisturbed"
    request = TrainingRequest("demo", undisturbed / "work", undisturbed / "models")
    expected = Task1Training().train_recipe(tiny, request)

    def killed(where):
        run = start("killed", tiny, f"--hold={where}")
        return run.wait_for(WAITS).kill(wait_for_end)

    run = killed("phantoms")
    assert not (run.work / "finished" / "warm-up-0-phantoms.json").exists()

    run = killed("Dataset110_PantherWarmUp: the fingerprint is written")
    preprocessed = run.work / "nnUNet_preprocessed" / "Dataset110_PantherWarmUp"
    fingerprint = preprocessed / "dataset_fingerprint.json"
    # The same a moment earlier, while nnU-Net wrote it.
    fingerprint.write_bytes(fingerprint.read_bytes()[:20])

    run = killed("warm-up-0: epoch 2/4")
    assert "warm-up-0-phantoms: finished earlier" in run.text

    run = killed("task1 fold 0: epoch 2/4")
    assert "warm-up-0: continues at epoch 2" in run.text
    assert "warm-up-0-prepare: finished earlier" in run.text

    run = killed("export")
    assert "task1 fold 0: continues at epoch 2" in run.text
    assert "task1 fold 1: starts from" in run.text
    assert not (run.export / "task1").exists()

    run = start("killed", tiny).finish()
    assert "epoch" not in run.text
    for fold in (0, 1):
        right, found = weights(expected, fold), weights(run.export / "task1", fold)
        assert right.keys() == found.keys()
        assert all(torch.equal(right[name], found[name]) for name in right)
    assert sorted(path.name for path in run.export.iterdir()) == [
        "task1",
        "task1_model.tar.gz",
    ]
    shutil.rmtree(run.folder)


def test_on_ray_a_killed_worker_costs_nothing_but_its_last_epoch(start, wait_for_end):
    run = start("ray", recipe(2), "--ray", "--hold=task1 fold 0: epoch 2/4").wait_for(WAITS)
    lock = run.work / "jobs" / "task1_fold_0.lock"
    training = json.loads(lock.read_text())["process"]
    worker = parents()[training]
    assert worker != run.process.pid
    os.kill(worker, signal.SIGKILL)
    wait_for_end([training])
    run.finish()
    # It is not stopped again, as it does not log that epoch again.
    assert "task1 fold 0: continues at epoch 2" in run.text
    for fold in range(2):
        assert weights(run.export / "task1", fold)
        assert run.text.count(f"task1 fold {fold}: epoch 4/4") == 1
