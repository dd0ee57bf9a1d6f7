"""What the distributions declare, against the lock files and what a resolver makes of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = (ROOT, ROOT / "tasks" / "task1", ROOT / "tasks" / "task2")
TORCH_LOCKS = ("requirements-torch.lock", "requirements-torch-gpu.lock")
ALL_LOCKS = ("requirements.lock", "requirements-task2.lock", "requirements-dev.lock")
UNREACHABLE = re.compile(
    r"Failed to fetch|error sending request|Could not connect|dns error|timed out|Connect"
)


def pins_of(*locks: str) -> dict[str, str]:
    pins = {}
    for lock in locks:
        for line in (ROOT / lock).read_text().splitlines():
            if found := re.match(r"([A-Za-z0-9_.-]+)==([^ ;\\]+)", line):
                pins[canonicalize_name(found[1])] = found[2]
    return pins


def project_of(folder: Path) -> dict[str, Any]:
    """The table ``project`` of a distribution's ``pyproject.toml``."""
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def declared(folder: Path) -> Iterator[Requirement]:
    """All requirements of a distribution, its extras and groups, but for those on each other."""
    content = tomllib.loads((folder / "pyproject.toml").read_text())
    project, groups = content["project"], content.get("dependency-groups", {})
    extras = project.get("optional-dependencies", {})
    for lines in (project["dependencies"], *extras.values(), *groups.values()):
        # Tables include other groups, which are here as well.
        for line in (line for line in lines if isinstance(line, str)):
            requirement = Requirement(line)
            if not requirement.name.startswith("gc-panther"):
                yield requirement


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("torch_lock", TORCH_LOCKS)
def test_the_locks_hold_what_is_declared(folder: Path, torch_lock: str) -> None:
    pins = pins_of(*ALL_LOCKS, torch_lock)
    wrong = [
        f"{requirement} (locked: {pins.get(canonicalize_name(requirement.name))})"
        for requirement in declared(folder)
        if not requirement.specifier.contains(
            pins.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert not wrong


def test_task_2_declares_the_library_of_its_localizer() -> None:
    names = {requirement.name for requirement in declared(ROOT / "tasks" / "task2")}
    assert "mrsegmentator" in names


#: Extras that are installed by the locks of a run.
RUN = ("evalutils", "nnunet", "openvino", "panther")


def test_what_is_needed_to_run_is_locked_without_the_test_tools() -> None:
    project = project_of(ROOT)
    lines = [*project["dependencies"]]
    for extra in RUN:
        lines += project["optional-dependencies"][extra]
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    assert names - set(pins_of("requirements.lock", *TORCH_LOCKS)) == set()


@pytest.mark.parametrize("folder", DISTRIBUTIONS[1:], ids=lambda folder: folder.name)
def test_a_task_names_extras_that_exist_and_that_its_imports_need(folder: Path) -> None:
    (core,) = [
        requirement
        for requirement in map(Requirement, project_of(folder)["dependencies"])
        if requirement.name == "gc-panther"
    ]
    assert core.extras <= set(RUN)
    sources = "".join(path.read_text() for path in folder.rglob("*.py"))
    for layer in ("nnunet", "panther"):
        assert (layer in core.extras) == (f"gc_panther.{layer}" in sources)


def test_the_core_needs_neither_torch_nor_nnunet() -> None:
    names = {Requirement(line).name for line in project_of(ROOT)["dependencies"]}
    assert names.isdisjoint({"torch", "nnunetv2", "evalutils", "surface-distance"})


# Slow: it asks a package index.
@pytest.mark.slow
def test_the_distributions_can_be_resolved_together_from_their_metadata(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    wanted = tmp_path / "requirements.in"
    wanted.write_text("\n".join(str(one) for folder in DISTRIBUTIONS for one in declared(folder)))
    # No lock and no --no-deps: nothing but the metadata decides.
    command = [uv, "pip", "compile", "--python-version", "3.11", "--no-header", "--no-annotate"]
    done = subprocess.run(
        [*command, "--python-platform", "x86_64-manylinux_2_28", wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"no package index answers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    # The release that is tested and that GPU images have, not one between the tested bounds.
    assert found["torch"] == pins_of("requirements-torch-gpu.lock")["torch"]
    assert found["nnunetv2"].startswith("2.8.")
    assert found["mrsegmentator"] == pins_of("requirements-task2.lock")["mrsegmentator"]
