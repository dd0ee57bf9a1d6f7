import logging
from dataclasses import dataclass, field

import pytest

from gc_panther.errors import ProcessingError, UserError
from gc_panther.nnunet.training.jobs.worker import CallJob, TrainJob
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Schedule
from gc_panther.nnunet.training.workspace import Workspace

DATASET, TRAINER = "Dataset001_Tiny", "module:Trainer"


@dataclass
class Recorder:
    """An engine that runs nothing."""

    cores: int = 6
    failures: list = field(default_factory=list)
    titles: list = field(default_factory=list)
    started: list = field(default_factory=list)

    def threads(self, processes):
        return self.cores // min(2, processes)

    def run(self, processes):
        self.started += processes
        self.titles += [process.title for process in processes]
        return self.failures


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path, engine=Recorder())


def folds(space, count):
    schedule = Schedule(epochs=1, learning_rate=0.1)
    return [
        TrainJob(title=f"fold {k}", dataset=DATASET, trainer=TRAINER, schedule=schedule, fold=k)
        for k in range(count)
    ]


def finish(space, fold):
    path = space.results(DATASET, TRAINER) / f"fold_{fold}" / "checkpoint_final.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_a_stage_is_done_once_and_again_where_it_did_not_end(space):
    calls = []
    with pytest.raises(ZeroDivisionError):
        space.stage("prepare", lambda: calls.append(1) or 1 / 0)
    space.stage("prepare", lambda: calls.append(2))
    space.stage("prepare", lambda: calls.append(3))
    assert calls == [1, 2]


def test_only_folds_without_a_final_checkpoint_are_trained(space, caplog):
    final = finish(space, 1)
    space.train("task1", folds(space, 3))
    assert space.engine.titles == ["fold 0", "fold 2"]
    finish(space, 0)
    finish(space, 2)
    with caplog.at_level(logging.INFO):
        space.train("task1", folds(space, 3))
    assert "task1-train: finished earlier" in caplog.messages
    # One that was lost, or deleted because it is damaged, is trained again.
    final.unlink()
    space.train("task1", folds(space, 3))
    assert space.engine.titles == ["fold 0", "fold 2", "fold 1"]


def test_the_first_failure_is_raised_and_the_stage_is_not_finished(space):
    space.engine.failures = [ProcessingError("fold 1 failed"), ProcessingError("fold 2 failed")]
    with pytest.raises(ProcessingError, match="fold 1"):
        space.train("task1", folds(space, 3))
    assert not (space.folder / "finished").exists()


def test_jobs_get_the_engines_threads_and_say_whether_they_need_a_gpu(space):
    process = space._process(CallJob(title="a call", function="a:b", arguments={"device": "cuda"}))
    assert process.gpu
    assert process.environment["OMP_NUM_THREADS"] == "6"
    assert process.environment["nnUNet_results"] == str(space.folder / "nnUNet_results")
    assert not space._process(folds(space, 1)[0]).gpu


@pytest.mark.parametrize(("count", "threads"), [(1, "6"), (2, "3"), (5, "3")])
def test_trainings_share_the_cores_and_one_alone_has_them_all(space, count, threads):
    space.train("task1", folds(space, count))
    assert {p.environment["OMP_NUM_THREADS"] for p in space.engine.started} == {threads}


def test_a_fold_that_is_trained_again_has_the_threads_it_had(space):
    space.train("task1", folds(space, 2))
    final = space.results(DATASET, TRAINER) / "fold_0" / "checkpoint_final.pth"
    final.parent.mkdir(parents=True)
    final.touch()
    space.train("task1", folds(space, 2))
    assert space.engine.started[-1].title == "fold 1"
    assert space.engine.started[-1].environment["OMP_NUM_THREADS"] == "3"


def test_a_job_sees_its_gpu_under_no_number(tmp_path):
    request = TrainingRequest("demo", tmp_path, tmp_path, device="cuda:1", jobs=2)
    space = Workspace.of(request)
    assert (space.device, space.engine.device) == ("cuda", "cuda:1")


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UserError, match="no engine 'dask'"):
        Workspace.of(TrainingRequest("demo", tmp_path, tmp_path, engine="dask"))
