"""What the fuzz tests stand on: each way in which a case can go wrong is one failure."""

import os
import random
import time

import numpy as np
import pytest
from harness import CASES_VARIABLE, Failure, number_of_cases, random_of, run_cases


@pytest.fixture(autouse=True)
def own_number(monkeypatch):
    monkeypatch.delenv(CASES_VARIABLE, raising=False)


def case_of(rng: random.Random, count: int) -> int:
    """Which case a generator belongs to."""
    state = rng.getstate()
    return next(n for n in range(count) if random_of(0, n).getstate() == state)


def test_every_case_runs_once_and_good_ones_leave_nothing(tmp_path):
    def check(rng):
        (tmp_path / str(case_of(rng, 250))).touch(exist_ok=False)

    assert run_cases(check, 250) == []
    assert len(list(tmp_path.iterdir())) == 250


def test_an_exception_a_crash_and_too_much_memory_are_one_failure_each():
    def check(rng):
        case = case_of(rng, 10)
        if case == 2:
            raise ValueError("wrong\nby two lines")
        if case == 3:
            os.abort()
        if case == 5:
            os._exit(0)
        if case == 7:
            np.ones(600 << 20, np.uint8)

    failures = run_cases(check, 10, memory_bytes=500 << 20)
    assert [failure.case for failure in failures] == [2, 3, 5, 7]
    first, second, third, fourth = (failure.what for failure in failures)
    assert first.startswith("ValueError: wrong\nby two lines (test_harness.py:")
    assert second == "the process ended with SIGABRT"
    assert third == "the process ended with exit code 0"
    assert "MemoryError" in fourth


def test_a_case_that_hangs_is_a_failure(monkeypatch):
    # Long enough for the other cases, however busy the machine is.
    monkeypatch.setattr("harness.PATIENCE_S", 5.0)

    def check(rng):
        if case_of(rng, 3) == 1:
            time.sleep(3600)

    assert [failure.what for failure in run_cases(check, 3)] == ["no end after 5 s"]


def test_a_case_is_the_same_alone():
    assert random_of(3, 4).random() == random_of(3, 4).random() != random_of(3, 5).random()


def test_the_environment_says_how_many(monkeypatch):
    monkeypatch.setenv(CASES_VARIABLE, "3")
    assert number_of_cases(100) == 3

    def check(rng):
        raise AssertionError

    assert len(run_cases(check)) == 3
    assert str(Failure(1, 2, "x")) == "case 1 of seed 2: x"
