"""The Ray engine with a stand-in for Ray; test/integration runs it on Ray itself."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from gc_panther.errors import DeviceError, UserError
from gc_panther.nnunet.training.jobs import ray_engine
from gc_panther.nnunet.training.jobs.engine import Process
from gc_panther.nnunet.training.jobs.ray_engine import Killed, RayEngine
from gc_panther.processes import Ending


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Ray:
    """Does every task at once, in this process."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, gpus=0.0):
        self.gpus = gpus
        self.options, self.cancelled, self.started = [], [], []

    def is_initialized(self):
        return bool(self.started)

    def init(self, **options):
        self.started.append(options)

    def nodes(self):
        small = {"Alive": True, "Resources": {"CPU": 8.0}}
        dead = {"Alive": False, "Resources": {"CPU": 1.0}}
        return [{"Alive": True, "Resources": {"CPU": 16.0}}, small, dead]

    def cluster_resources(self):
        return {"CPU": 24.0, "GPU": self.gpus}

    def remote(self, function):
        def options(**chosen):
            self.options.append(chosen)
            return SimpleNamespace(remote=lambda *arguments: partial(function, *arguments))

        return SimpleNamespace(options=options)

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        try:
            return reference()
        except RayError:
            raise
        except Exception as error:
            raise RayTaskError(error) from error

    def cancel(self, reference, force):
        assert force
        self.cancelled.append(reference)


@pytest.fixture
def ray(monkeypatch):
    ray = Ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def let_run_here(monkeypatch, outcome):
    """Instead of a process: what happens on a machine, by the process's title."""

    def run_here(process, children, environment):
        result = outcome[process.title]
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(ray_engine, "run_here", run_here)


def processes(*titles, gpu=False):
    return [Process(title, "module", (), gpu=gpu, log="job.log") for title in titles]


def test_a_process_asks_for_its_cores_and_is_started_again_where_it_was_lost(
    ray, tmp_path, monkeypatch
):
    let_run_here(monkeypatch, {"fold 0": Ending(0), "fold 1": Ending(0)})
    engine = RayEngine(tmp_path, jobs=2)
    assert engine.threads(9) == 4
    assert engine.threads(1) == 8
    assert engine.run(processes("fold 0", "fold 1")) == []
    assert len(ray.started) == 1
    assert ray.options == [
        {
            "name": name,
            "num_cpus": 4,
            "num_gpus": 0,
            "max_retries": ray_engine.RETRIES,
            "retry_exceptions": [Killed],
        }
        for name in ("fold 0", "fold 1")
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_needs_a_gpu_asks_for_one(ray, tmp_path, monkeypatch):
    let_run_here(monkeypatch, {"fold 0": Ending(0)})
    with pytest.raises(DeviceError, match="has no GPU"):
        RayEngine(tmp_path).run(processes("fold 0", gpu=True))
    ray.gpus = 2.0
    assert RayEngine(tmp_path).run(processes("fold 0", gpu=True)) == []
    assert (ray.options[0]["num_gpus"], ray.options[0]["num_cpus"]) == (1, 1)


def test_a_failure_stops_none_of_the_others_and_says_what_it_was(ray, tmp_path, monkeypatch):
    outcome = {
        "a": Ending(1, "the disk is full"),
        "b": Ending(-9),
        "c": RayError("the worker died\nmore"),
        "d": Ending(0),
    }
    let_run_here(monkeypatch, outcome)
    texts = [str(error) for error in RayEngine(tmp_path).run(processes("a", "b", "c", "d"))]
    assert texts[0].startswith("a: the disk is full")
    assert "b failed on the Ray cluster (Killed: b (SIGKILL)): job.log" in texts[1]
    assert "c failed on the Ray cluster (RayError: the worker died): job.log" in texts[2]
    assert len(texts) == 3
    assert ray.cancelled == []


def test_a_machine_that_does_not_see_the_work_folder_is_named(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine.platform, "node", lambda: "node-7")
    monkeypatch.setattr(Path, "touch", lambda path: None)
    with pytest.raises(UserError) as caught:
        RayEngine(tmp_path).run(processes("a", "b"))
    assert "machine node-7 of the Ray cluster does not see the work folder" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert len(ray.cancelled) == 1


def test_a_cluster_that_does_not_answer_is_one_line(ray, tmp_path):
    def init(**_):
        raise ConnectionError("Could not find any running Ray instance")

    ray.init = init
    with pytest.raises(UserError, match="does not answer"):
        RayEngine(tmp_path).run([])
