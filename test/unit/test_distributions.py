"""What the three distributions, the workflows and a release state in several places."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from coverage_table import table
from packaging.specifiers import SpecifierSet

import gc_panther

ROOT = Path(__file__).parents[2]
TASKS = ("tasks/task1", "tasks/task2")
PYTHON = "Programming Language :: Python :: "


def project_of(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return found


@pytest.mark.parametrize("task", TASKS)
def test_the_distributions_agree(task: str) -> None:
    core, own = project_of("."), project_of(task)
    assert own["version"] == gc_panther.__version__
    for key in ("requires-python", "license", "authors", "urls"):
        assert own[key] == core[key], key
    # Only the core has a py.typed.
    assert {*own["classifiers"], "Typing :: Typed"} == set(core["classifiers"])


def test_the_pythons_that_are_stated_are_those_that_are_tested() -> None:
    project = project_of(".")
    stated = {word.removeprefix(PYTHON) for word in project["classifiers"] if PYTHON in word}
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert stated == {"3", *tested}
    possible = [f"3.{minor}" for minor in range(30)]
    assert list(SpecifierSet(project["requires-python"]).filter(possible)) == tested
    sentence = f"Python {', '.join(tested[:-1])} or {tested[-1]}"
    assert sentence in (ROOT / "README.md").read_text()
    assert sentence in (ROOT / "scripts" / "common.sh").read_text()


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").iterdir()))
def test_workflows_call_scripts_that_exist_and_pin_their_actions(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        elif (program := step["run"].split()[0]) != "gh":
            assert os.access(ROOT / program, os.X_OK), program


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with what a release reads and writes."""
    files = ("scripts/release.sh", "scripts/common.sh", "gc_panther/__init__.py")
    for name in (*files, *(f"{task}/pyproject.toml" for task in TASKS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changes\n\n## 0.9.0 – unreleased\n\n## 0.8.0 – 2020\n"
    )
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "begin")
    return tmp_path


AUTHOR = {
    f"GIT_{who}_{what}": f"{what}@example.org"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


def git(folder: Path, *words: str) -> str:
    # No settings of the machine's, such as signatures or hooks.
    quiet = {**os.environ, **AUTHOR, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *words], cwd=folder, env=quiet, capture_output=True, text=True, check=True
    ).stdout


def release(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "scripts" / "release.sh", *words],
        env={**os.environ, **AUTHOR, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_writes_one_version_everywhere_and_tags_it(checkout: Path) -> None:
    done = release(checkout, "1.2.3")
    assert done.returncode == 0, done.stderr
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "describe").strip() == "v1.2.3"
    assert '__version__ = "1.2.3"\n' in (checkout / "gc_panther" / "__init__.py").read_text()
    for task in TASKS:
        content = tomllib.loads((checkout / task / "pyproject.toml").read_text())
        assert content["project"] == {**project_of(task), "version": "1.2.3"}
    headings = re.findall(r"^## (.*)$", (checkout / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.fullmatch(r"1\.2\.3 – \d{4}-\d\d-\d\d", headings[0])
    assert headings[1] == "0.8.0 – 2020"
    # What the release's workflow asks.
    assert release(checkout, "--check", "v1.2.3").returncode == 0
    wrong = release(checkout, "--check", "v1.2.4")
    assert wrong.returncode == 1
    assert "v1.2.3" in wrong.stderr


def test_a_tag_on_an_unreleased_version_is_refused(checkout: Path) -> None:
    done = release(checkout, "--check", f"v{gc_panther.__version__}")
    assert done.returncode == 1
    assert "CHANGELOG.md" in done.stderr


@pytest.mark.parametrize(
    ("version", "prepare", "said"),
    [
        ("1.2", (), "'1.2' is not a version"),
        ("1.2.3", ("tag", "v1.2.3"), "a tag v1.2.3"),
        ("1.2.3", ("mv", "CHANGELOG.md", "OTHER.md"), "not committed"),
    ],
    ids=["no version", "released already", "changes"],
)
def test_a_release_that_cannot_be_made_changes_nothing(
    checkout: Path, version: str, prepare: tuple[str, ...], said: str
) -> None:
    if prepare:
        git(checkout, *prepare)
    before = git(checkout, "rev-parse", "HEAD"), git(checkout, "status", "--porcelain")
    done = release(checkout, version)
    assert done.returncode == 2
    assert said in done.stderr
    assert (git(checkout, "rev-parse", "HEAD"), git(checkout, "status", "--porcelain")) == before


def test_the_table_of_coverage_sums_up_each_package() -> None:
    def summary(*numbers: int) -> dict[str, Any]:
        names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
        return {"summary": {**dict(zip(names, numbers, strict=True)), "percent_covered": 1.0}}

    files = {
        "gc_panther/cli.py": summary(9, 10, 1, 4),
        "gc_panther/nnunet/model/pack.py": summary(10, 20, 0, 0),
        "gc_panther/nnunet/deep/er.py": summary(10, 20, 0, 0),
        "tasks/task1/gc_panther_task1/plugin.py": summary(1, 2, 1, 2),
    }
    assert table({"files": files}).splitlines()[2:] == [
        "| nnunet | 50.0 | 100.0 |",
        "| top level | 90.0 | 25.0 |",
        "| gc_panther_task1 | 50.0 | 50.0 |",
        "| all | 57.7 | 33.3 |",
    ]
