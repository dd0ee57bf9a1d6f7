"""A session's own rules. Its runs through the commands are in test/integration."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gc_panther.case import Case, Geometry, Result, Volume
from gc_panther.errors import ProcessingError
from gc_panther.options import RunOptions
from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.session import WRITING_S, Choices, Session, errors_notified
from gc_panther.settings import read_settings


def session_of(task: str, manager: Any, **options: Any) -> Session:
    choices = Choices(RunOptions(device="cpu", **options))
    return Session(find_task(manager, task), manager, read_settings({}), choices)


def case_of(value: int = 300) -> Case:
    array = np.full((3, 4, 5), value, np.int16)
    return Case("a case", {"toy-mri": Volume(array, Geometry((5, 4, 3), (1.0, 1.0, 2.0)))})


def test_a_case_s_time_counts_from_where_its_caller_says_or_from_its_own_beginning(
    toy_plugin: Any,
) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    with session_of("toy", manager, time_limit=100.0) as session:
        began = time.perf_counter() - 50
        _, report = session.run(case_of(), began=began)
        before = time.perf_counter()
        _, again = session.run(case_of())
    first, second = (run.deadline for run in toy_plugin.runs)
    assert first == began + 100 - WRITING_S
    assert second >= before + 100 - WRITING_S
    assert again["seconds"]["total"] < 50 <= report["seconds"]["total"]


def test_a_mask_gets_the_grid_of_the_image_to_the_last_digit(toy_plugin: Any) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    task = find_task(manager, "toy")
    (output,) = task.interfaces[0].outputs
    near = Geometry((5, 4, 3), (1.0, 1.0, 2.00001))
    with session_of("toy", manager) as session:
        rounded = Result({output: Volume(np.ones((3, 4, 5), np.uint8), near)})
        session._predictor = SimpleNamespace(predict=lambda case, run: rounded)
        result, _ = session.run(case_of())
    assert result.mask.geometry == case_of().images["toy-mri"].geometry
    assert np.array_equal(result.mask.array_zyx, rounded.mask.array_zyx)


def test_the_scratch_folder_is_removed_also_where_loading_fails(
    toy_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    with session_of("toy", manager) as session:
        assert session.scratch.is_dir()
    assert not session.scratch.exists()
    folders: list[Path] = []

    def fail(task: Any, runtime: Any) -> Any:
        assert runtime.scratch.is_dir()
        folders.append(runtime.scratch)
        raise ProcessingError("no network today")

    monkeypatch.setattr(type(find_task(manager, "toy")), "load", fail)
    with pytest.raises(ProcessingError, match="no network today"):
        session_of("toy", manager)
    assert [folder.exists() for folder in folders] == [False]


def test_an_error_is_raised_again_after_the_plugins_have_heard_of_it(toy_plugin: Any) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    task = find_task(manager, "toy")
    with pytest.raises(ProcessingError, match="broken"), errors_notified(manager, task):
        raise ProcessingError("broken")
    assert toy_plugin.calls == [("error", "toy", "broken")]


def test_the_self_test_leaves_no_time_for_more_than_one_fold(toy_plugin: Any) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    with session_of("toy", manager) as session:
        session.self_test()
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
    with session_of(task, manager) as session:
        predict = session._predictor.predict

        def noted(case: Any, run: Any) -> Any:
            result = predict(case, run)
            details.append(result.details)
            return result

        monkeypatch.setattr(session._predictor, "predict", noted)
        session.self_test()
    (found,) = details
    for network in [found, *([found["localizer"]] if task == "task2" else [])]:
        assert (network["windows"], network["passes"], network["folds"]) == (1, 1, [0])
