import errno
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.errors import ProcessingError
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import from_lps, to_lps
from gc_panther.json_files import write_json
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.nnunet.training.jobs.lock import locked
from gc_panther.nnunet.training.jobs.worker import (
    CallJob,
    Images,
    PredictJob,
    main,
    run,
    warn_of_cudnn,
    watch_epochs,
)
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.task import RunContext

FOLDS = (0, 2)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A blob in noise, stored with two axes reversed."""
    rng = np.random.default_rng(5)
    z, y, x = np.ogrid[:16, :40, :48]
    blob = np.exp(-((z - 8) ** 2 + (y - 20) ** 2 / 9 + (x - 22) ** 2 / 9) / 12)
    array = (400 + 300 * blob + rng.normal(0, 20, blob.shape)).astype(np.float32)
    flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    path = tmp_path_factory.mktemp("image") / "a_0000.mha"
    write_image(Volume(array, Geometry((48, 40, 16), (2.7, 2.7, 5.0), direction=flipped)), path)
    return path


@pytest.mark.slow
def test_labels_are_the_ensembles_on_the_images_grid(image, tmp_path, tiny_model_folder):
    model = tiny_model_folder()
    target = tmp_path / "labels" / "a.mha"
    kept = tmp_path / "labels" / "b.mha"
    kept.parent.mkdir()
    kept.write_text("made earlier")
    images = (Images(image=image, label=target), Images(image=image, label=kept))
    run(PredictJob(title="labels", model=model, folds=FOLDS, images=images))
    volume = read_image(image)
    ensemble = Ensemble(open_model_folder(model, FOLDS), device="cpu", options=NnUNetOptions())
    expected = ensemble.predict(to_lps(volume), RunContext()).labels_zyx
    written = read_image(target)
    assert np.array_equal(written.array_zyx, from_lps(expected, like=volume.geometry))
    assert written.geometry.matches(volume.geometry)
    assert written.array_zyx.dtype == np.uint8
    assert len(np.unique(written.array_zyx)) > 1
    assert kept.read_text() == "made earlier"


def test_a_call_is_given_its_arguments(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.json"
    arguments = {"path": str(path), "document": {"made": 1}}
    monkeypatch.setitem(sys.modules, "a_task", SimpleNamespace(write=write))
    run(CallJob(title="call", function="a_task:write", arguments=arguments))
    assert json.loads(path.read_text()) == {"made": 1}


def write(path, document):
    """What the test above lets a job call."""
    write_json(Path(path), document)


@pytest.mark.slow
def test_an_error_in_a_process_is_one_line(tmp_path, capfd):
    job = PredictJob(
        title="labels",
        model=tmp_path / "no-model",
        folds=(0,),
        images=(Images(image=tmp_path / "a.mha", label=tmp_path / "b.mha"),),
    )
    (failure,) = Workspace(tmp_path).engine.run([Workspace(tmp_path)._process(job)])
    assert str(failure).startswith("labels: there is no such model folder")
    lines = capfd.readouterr().out.strip().splitlines()
    assert "no such model folder" in lines[-1]
    assert not any("Traceback" in line for line in lines)


def full_disk():
    """What a job calls that finds no space."""
    raise OSError(errno.ENOSPC, "No space left on device")


def run_as_process(tmp_path, monkeypatch, function):
    """Run a job of this module's function as `python -m` does with the worker."""
    monkeypatch.setitem(sys.modules, "a_task", SimpleNamespace(function=function))
    path = tmp_path / "job.json"
    path.write_text(CallJob(title="a call", function="a_task:function").model_dump_json())
    monkeypatch.setattr(sys, "argv", ["worker", str(path)])
    monkeypatch.setattr("gc_panther.nnunet.training.jobs.worker.LOCK_WAIT", 0.1)
    with pytest.raises(SystemExit) as caught:
        main()
    return str(caught.value)


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    line = run_as_process(tmp_path, monkeypatch, full_disk)
    assert line.startswith("error: the disk is full. Free some space")


def test_a_full_disk_of_which_a_library_does_not_tell_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    line = run_as_process(tmp_path, monkeypatch, lambda: 1 / 0)
    assert line.startswith("error: the disk is full")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**9))
    line = run_as_process(tmp_path, monkeypatch, lambda: 1 / 0)
    assert line.startswith("error: internal error (ZeroDivisionError")


def test_a_job_is_done_by_one_process_at_a_time(tmp_path, monkeypatch):
    with locked(tmp_path / "job.lock", "a job"):
        line = run_as_process(tmp_path, monkeypatch, pytest.fail)
    assert line.startswith("error: the job 'a call' is already running here")


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("training", "validation", "ends"),
    [
        (0.5, 0.25, False),
        # A step that the gradient scaler leaves out; an overflow in a patch of validation.
        (NAN, 0.25, False),
        (0.5, INFINITE, False),
        (NAN, NAN, True),
        (INFINITE, NAN, True),
    ],
)
def test_a_training_ends_where_neither_loss_is_finite(training, validation, ends, caplog):
    caplog.set_level("INFO")
    values = {
        "train_losses": training,
        "val_losses": validation,
        "dice_per_class_or_region": [0.5, 0.75],
        "epoch_start_timestamps": 10.0,
        "epoch_end_timestamps": 12.0,
    }
    ended = []
    trainer = SimpleNamespace(
        current_epoch=6,
        num_epochs=9,
        output_folder="work/fold_3",
        logger=SimpleNamespace(get_value=lambda name, step: values[name]),
        on_epoch_end=lambda: ended.append(trainer.current_epoch),
    )
    watch_epochs(trainer, "task1 fold 3")
    if ends:
        with pytest.raises(ProcessingError, match="diverged: no loss of epoch 7") as diverged:
            trainer.on_epoch_end()
        assert diverged.value.where == "work/fold_3"
        # nnU-Net would have written checkpoints.
        assert not ended
        return
    trainer.on_epoch_end()
    assert ended == [6]
    line = f"task1 fold 3: epoch 7/9, 2 s, loss {training:.3f}, pseudo-Dice 0.500 0.750"
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("version", "cudnn", "said"),
    [("2.8.0", 91002, "wrongly"), ("2.10.0", 91002, "slowly"), ("2.7.1", 90501, "")],
)
def test_faults_of_cudnn_are_a_warning_of_a_training(version, cudnn, said, caplog):
    warn_of_cudnn("task1 fold 0", version, cudnn)
    assert len(caplog.records) == bool(said)
    assert said in caplog.text
