"""The command, in a checkout of one small module."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CODE = """
def area(width, height):
    if width < 0:
        raise ValueError("a negative width")
    return width * height


def unused():
    return 5


def empty(values):
    while values:
        values.pop()
"""
TESTS = """
import pytest
from gc_panther.toy.area import area, empty


def test_area():
    assert area(2, 3) == 6
    with pytest.raises(ValueError):
        area(-1, 3)


def test_empty():
    empty([1, 2])
"""


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / "scripts" / "mutation", tmp_path / "scripts" / "mutation")
    (tmp_path / "gc_panther" / "toy").mkdir(parents=True)
    (tmp_path / "gc_panther" / "__init__.py").touch()
    (tmp_path / "gc_panther" / "toy" / "__init__.py").touch()
    (tmp_path / "gc_panther" / "toy" / "area.py").write_text(CODE)
    (tmp_path / "gc_panther" / "toy" / "other.py").write_text("SIDES = 4\n")
    (tmp_path / "test" / "unit" / "toy").mkdir(parents=True)
    (tmp_path / "test" / "unit" / "toy" / "test_area.py").write_text(TESTS)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["a: b"]\n')
    return tmp_path


def mutate(checkout, *arguments):
    script = checkout / "scripts" / "mutation" / "mutate.py"
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


# Runs pytest eight times, once until it is stopped.
@pytest.mark.slow
def test_what_no_test_notices_is_listed_and_all_is_counted(checkout):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    done = mutate(checkout, "toy/area.py", "--limit", "0.5")
    assert done.returncode == 0, done.stderr
    file = "gc_panther/toy/area.py"
    assert done.stdout.splitlines() == [
        f"survived: {file}:3: comparison: width < 0 -> (width <= 0)",
        f"survived: {file}:3: constant: 0 -> 1",
        f"not covered: {file}:9: return: return 5 -> return None",
        f"not covered: {file}:9: constant: 5 -> 6",
        f"survived: {file}:13: boolean: values -> (not (values))",
        "9 of 9 mutants: 3 killed, 1 timeout, 3 survived, 2 not covered; noticed: 44 %",
    ]
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before


def test_a_sample_is_seeded_and_modules_can_be_skipped(checkout):
    # No test of the package runs the other module: nothing has to be tried.
    sample = ["toy", "--sample", "1", "--skip", "toy/area.py"]
    done = mutate(checkout, *sample)
    assert done.stdout.splitlines() == [
        "not covered: gc_panther/toy/other.py:1: constant: 4 -> 5",
        "1 of 1 mutants: 0 killed, 0 timeout, 0 survived, 1 not covered; noticed: 0 %",
    ]


def test_tests_that_fail_by_themselves_are_no_measure(checkout):
    (checkout / "test" / "unit" / "toy" / "test_area.py").write_text("def test(): assert 0\n")
    done = mutate(checkout, "toy/area.py", "--sample", "1")
    assert done.returncode == 1
    assert "test_area.py fails without a fault (exit code 1)" in done.stderr


@pytest.mark.parametrize("package", ["toyy", "toy/square.py"])
def test_an_unknown_package_is_named(checkout, package):
    done = mutate(checkout, package)
    assert done.returncode == 1
    assert done.stderr == f"error: there is no such package or module: gc_panther/{package}\n"
