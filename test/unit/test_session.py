"""The engine's self-test. Its runs of cases are in test/integration."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.session import Choices, Engine
from gc_panther.settings import read_settings


def test_the_self_test_leaves_no_time_for_more_than_one_fold(toy_plugin: Any) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    with Engine(find_task(manager, "toy"), manager, read_settings({}), Choices(device="cpu")) as e:
        e.self_test()
    (run,) = toy_plugin.runs
    assert run.deadline <= time.perf_counter()
    # No plugin is notified of a case that is none.
    assert toy_plugin.calls == []


# Loads real networks.
@pytest.mark.slow
@pytest.mark.parametrize("task", ["task1", "task2"])
def test_the_self_test_runs_one_window_of_one_fold(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each network: five folds with eight mirrored copies would take 40 times as long."""
    manager = create_plugin_manager()
    details = []
    with Engine(find_task(manager, task), manager, read_settings({}), Choices(device="cpu")) as e:
        predict = e._predictor.predict

        def noted(case: Any, run: Any) -> Any:
            result = predict(case, run)
            details.append(result.details)
            return result

        monkeypatch.setattr(e._predictor, "predict", noted)
        e.self_test()
    (found,) = details
    for network in [found, *([found["localizer"]] if task == "task2" else [])]:
        assert (network["windows"], network["passes"], network["folds"]) == (1, 1, [0])
