"""The small pieces everything else stands on: values, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.errors import (
    EXIT_FAILED,
    InputError,
    ProcessingError,
    describe,
    is_out_of_memory,
    missing_package,
)

GRID = Geometry((4, 3, 2), (1.0, 1.5, 3.0))


def test_geometry_in_array_order() -> None:
    assert GRID.shape_zyx == (2, 3, 4)
    assert GRID.spacing_zyx == (3.0, 1.5, 1.0)
    assert GRID.voxel_volume_mm3 == pytest.approx(4.5)


def test_geometries_match_within_the_tolerance_only() -> None:
    assert GRID.matches(replace(GRID, origin_xyz=(0.0, 5e-5, 0.0)))
    assert not GRID.matches(replace(GRID, origin_xyz=(0.0, 5e-4, 0.0)))
    assert GRID.matches(replace(GRID, spacing_xyz=(1.0, 1.5, 3.00005)))
    assert not GRID.matches(replace(GRID, spacing_xyz=(1.0, 1.5, 3.0005)))
    assert GRID.matches(replace(GRID, direction=(1.0, 0, 5e-5, 0, 1.0, 0, 0, 0, 1.0)))
    assert not GRID.matches(replace(GRID, direction=(1.0, 0, 5e-4, 0, 1.0, 0, 0, 0, 1.0)))
    assert not GRID.matches(replace(GRID, size_xyz=(4, 3, 3)))


def test_a_volume_refuses_an_array_of_another_shape() -> None:
    with pytest.raises(ValueError, match="grid of"):
        Volume(np.zeros((4, 3, 2)), GRID)


def test_an_error_is_one_line_with_what_where_and_fix() -> None:
    error = InputError("it is\nbroken", where=Path("/a/b"), fix="Mend it")
    assert str(error) == "it is broken: /a/b. Mend it"
    assert str(ProcessingError("it failed")) == "it failed"
    assert (error.exit_code, ProcessingError("x").exit_code) == (2, 1)


@pytest.mark.parametrize(
    ("module", "fix"),
    [
        ("ray", "Run pip install 'gc-panther[ray]'"),
        ("gcapi.client", "Run pip install 'gc-panther[submit]'"),
        ("some_library", "Run pip install 'gc-panther[some]'"),
        ("pytest", "Install what the task's distribution and requirements.lock list"),
        ("mrsegmentator", "Install what the task's distribution and requirements.lock list"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(
    module: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    declared = [
        "numpy>=2",
        'gcapi>=0.16; extra == "submit"',
        'ray>=2.52 ; extra == "ray"',
        'Some-Library[fast]>1,<2; python_version > "3" and extra == "some"',
        'pytest; extra == "dev"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: declared)
    found = missing_package(ModuleNotFoundError("No module", name=module))
    assert found is not None
    assert found.fix == fix


def test_a_missing_module_of_this_package_is_no_missing_package() -> None:
    assert missing_package(ModuleNotFoundError("No module", name="gc_panther.nothing")) is None
    assert missing_package(ValueError("something else")) is None


def test_stages_of_a_part_are_named_after_it():
    from gc_panther.session import Clock
    from gc_panther.task import RunContext

    run = RunContext(clock=Clock())
    with run.within("localizer").clock.stage("network"), run.clock.stage("network"):
        pass
    assert sorted(run.clock.seconds) == ["localizer: network", "network"]
    assert run.within("localizer").progress is run.progress


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("the sizes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_known_by_the_words_of_libraries(
    error: Exception, memory: bool
) -> None:
    assert is_out_of_memory(error) == memory


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_memory_that_ran_out_is_no_internal_error(error: Exception) -> None:
    assert describe(error)[0].startswith("the machine ran out of memory")


def test_a_thread_that_cannot_be_started_is_one_clear_line() -> None:
    message, code = describe(RuntimeError("can't start new thread"))
    assert message.startswith("no further thread can be started")
    assert code == EXIT_FAILED
