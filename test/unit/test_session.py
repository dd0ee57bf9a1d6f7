"""The engine's self-test. Its runs of cases are in test/integration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gc_panther.options import RunOptions
from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.session import Choices, Engine
from gc_panther.settings import read_settings


def test_the_self_test_leaves_no_time_for_more_than_one_fold(toy_plugin: Any) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    choices = Choices(RunOptions(device="cpu"))
    with Engine(find_task(manager, "toy"), manager, read_settings({}), choices) as e:
        e.self_test()
    (run,) = toy_plugin.runs
    assert run.deadline <= time.perf_counter()
    # No plugin is notified of a case that is none.
    assert toy_plugin.calls == []


def test_networks_that_cannot_be_loaded_leave_no_temporary_files(
    toy_plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    task = find_task(manager, "toy")
    folders = []

    def fail(runtime: Any) -> None:
        folders.append(runtime.scratch)
        (runtime.scratch / "part").touch()
        raise ValueError("no such layer")

    monkeypatch.setattr(task, "load", fail)
    settings = read_settings({"GC_PANTHER_SCRATCH": str(tmp_path)})
    with pytest.raises(ValueError, match="no such layer"):
        Engine(task, manager, settings, Choices(RunOptions(device="cpu")))
    assert [folder.parent for folder in folders] == [tmp_path]
    assert list(tmp_path.iterdir()) == []


# Loads real networks.
@pytest.mark.slow
@pytest.mark.parametrize("task", ["task1", "task2"])
def test_the_self_test_runs_one_window_of_one_fold(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each network: five folds with eight mirrored copies would take 40 times as long."""
    manager = create_plugin_manager()
    details = []
    choices = Choices(RunOptions(device="cpu"))
    with Engine(find_task(manager, task), manager, read_settings({}), choices) as e:
        segment = e._segmenter.segment

        def noted(case: Any, run: Any) -> Any:
            segmentation = segment(case, run)
            details.append(segmentation.details)
            return segmentation

        monkeypatch.setattr(e._segmenter, "segment", noted)
        e.self_test()
    (found,) = details
    for network in [found, *([found["localizer"]] if task == "task2" else [])]:
        assert (network["windows"], network["passes"], network["folds"]) == (1, 1, [0])
