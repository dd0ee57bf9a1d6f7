import errno
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import from_lps, to_lps
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.nnunet.training.dataset import write_json
from gc_panther.nnunet.training.jobs.lock import locked
from gc_panther.nnunet.training.jobs.worker import (
    DRAW_EVERY,
    DRAW_SHARE,
    CallJob,
    Images,
    PredictJob,
    draw_seldom,
    main,
    run,
)
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.task import CaseRun

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
    expected = ensemble.predict(to_lps(volume), CaseRun()).labels_zyx
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
    assert line.startswith("error: the job 'a call' is at work here already")


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    [(0.0, [0, 3, 6, 7]), (DRAW_EVERY * DRAW_SHARE, [0, 3, 6, 7]), (1.2, [0, 5, 7])],
)
def test_curves_are_drawn_now_and_then_and_at_the_end(monkeypatch, seconds, epochs):
    drawn, now = [], 100.0

    def plot(folder):
        nonlocal now
        drawn.append((trainer.current_epoch, folder))
        now += seconds

    trainer = SimpleNamespace(current_epoch=0, num_epochs=8)
    trainer.logger = SimpleNamespace(plot_progress_png=plot)
    monkeypatch.setattr("time.monotonic", lambda: now)
    draw_seldom(trainer)
    for trainer.current_epoch in range(8):
        trainer.logger.plot_progress_png("fold_0")
        now += DRAW_EVERY / 2.5
    assert drawn == [(epoch, "fold_0") for epoch in epochs]
