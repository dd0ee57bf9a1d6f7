import torch
import training_step

from gc_panther.nnunet.training.workspace import WAITING_TURNS


def test_ways_are_compared_with_the_first():
    ways = [
        training_step.Way("stock", seconds=[0.4, 0.5, 0.9]),
        training_step.Way("ours", last=True, seconds=[0.25, 0.2, 0.3]),
    ]
    lines = training_step.text(ways, threads=2).splitlines()
    assert "2 threads, 3 interleaved repeats" in lines[0]
    assert lines[-2] == "| stock | 0.500 (0.400–0.900) | 1.00 |"
    assert lines[-1] == "| ours | 0.250 (0.200–0.300) | 2.00 |"


def test_an_iteration_is_timed_in_a_process_with_the_jobs_settings(monkeypatch):
    started = []

    def run(command, env, **_):
        started.append((command, env))
        return type("Done", (), {"stdout": "a warning\n0.25\n"})

    monkeypatch.setattr(training_step.subprocess, "run", run)
    way = training_step.Way("ours", last=True)
    way.run(threads=2)
    training_step.Way("asleep", awake=False).run(threads=2)
    assert way.seconds == [0.25]
    assert started[0][0][-4:] == ["--iterate", "1", "0", "0"]
    assert started[0][1]["OMP_NUM_THREADS"] == "2"
    assert [env["GOMP_SPINCOUNT"] for _, env in started] == [WAITING_TURNS, "0"]


def test_an_iteration_takes_time_and_changes_the_weights(monkeypatch, tmp_path, tiny_model_folder):
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "task1").symlink_to(tiny_model_folder(folds=(0,)))
    monkeypatch.setattr(training_step, "ROOT", tmp_path)
    steps = []
    step = torch.optim.AdamW.step

    def counted(self, *args):
        before = self.param_groups[0]["params"][0].detach().clone()
        step(self, *args)
        steps.append(not torch.equal(before, self.param_groups[0]["params"][0]))

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    kept = []
    monkeypatch.setattr(training_step, "keep_memory", lambda: kept.append(True))
    for keep in (False, True):
        assert training_step.seconds_of_an_iteration(True, False, kept=keep, iterations=2) > 0
    assert kept == [True]
    assert steps == [True] * 10
