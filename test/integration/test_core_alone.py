"""The core in a virtual environment of its own, without what nnU-Net and PANTHER need."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_plugin import write_example

from gc_panther.imaging.images import read_image

ROOT = Path(__file__).parents[2]
UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries"
)
#: What the extras bring.
HEAVY = {"torch", "nnunetv2", "evalutils", "surface-distance", "openvino", "ray", "gcapi"}


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A program with nothing of this environment but PATH and what its index is."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "GC_PANTHER_RESOURCES")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd="/",
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ``bin`` folder of an environment with the core's wheel and the example plugin."""
    folder = tmp_path_factory.mktemp("core")
    source, wheels, place = folder / "source", folder / "wheels", folder / "venv"
    shutil.copytree(ROOT / "gc_panther", source / "gc_panther")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # The tested versions; what is installed is decided by the wheel alone.
    pins = re.findall(r"^[\w.-]+==[^ ;\\]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = ran(*build, "-w", wheels, source, write_example(folder / "plugin"))
    assert done.returncode == 0, done.stderr
    venv.create(place, with_pip=True)
    done = ran(
        *(place / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", constraints),
        *sorted(wheels.glob("*.whl")),
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"no package index answers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    yield place / "bin"
    shutil.rmtree(folder)


@pytest.fixture
def gc_panther(programs: Path) -> Callable[..., str]:
    """Run a command that has to succeed, and return what it prints."""

    def run(*arguments: str | Path) -> str:
        done = ran(programs / "gc-panther", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_core_brings_nothing_that_its_extras_bring(programs: Path) -> None:
    done = ran(programs / "python", "-m", "pip", "list", "--format", "json")
    names = {one["name"].lower() for one in json.loads(done.stdout)}
    assert {"gc-panther", "gc-panther-bright", "simpleitk", "nvidia-ml-py"} <= names
    assert names & HEAVY == set()


@pytest.mark.slow
def test_the_commands_that_tell_what_is_there_work(gc_panther: Callable[..., str]) -> None:
    assert "bright" in gc_panther("tasks")
    facts = json.loads(gc_panther("info", "--json"))
    assert [task["name"] for task in facts["tasks"]] == ["bright"]
    assert facts["versions"]["torch"] is None
    assert facts["versions"]["SimpleITK"]
    assert {"bright", "nnunet", "panther"} <= set(facts["plugins"])


@pytest.mark.slow
def test_doctor_finds_the_machine_ready(gc_panther: Callable[..., str]) -> None:
    rows = {row["check"]: row for row in json.loads(gc_panther("doctor", "--json"))}
    assert rows["offline trial bright"]["verdict"] == "ok"
    assert rows["device"]["verdict"] == "ok"
    assert "torch" not in rows


@pytest.mark.slow
def test_a_task_without_torch_segments(
    gc_panther: Callable[..., str], tmp_path: Path, write_volume: Callable[..., Path]
) -> None:
    image = write_volume(tmp_path / "image.mha")
    mask, report, picture = (tmp_path / name for name in ("mask.mha", "report.json", "mask.png"))
    gc_panther(*("predict", "bright", image, "-o", mask, "--report", report, "--picture", picture))
    values: Any = read_image(image).array_zyx
    assert np.array_equal(read_image(mask).array_zyx, values > np.percentile(values, 99))
    written = json.loads(report.read_text())
    assert written["device"]["name"] in ("cpu", "cuda:0")
    assert "torch" not in written["versions"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_case_of_the_platform_needs_no_extra(
    gc_panther: Callable[..., str], tmp_path: Path, write_volume: Callable[..., Path]
) -> None:
    image = write_volume(tmp_path / "input/images/any-mri/scan.mha")
    folders = ("--input", tmp_path / "input", "--output", tmp_path / "output")
    gc_panther("run", "--task", "bright", *folders)
    values: Any = read_image(image).array_zyx
    mask = read_image(tmp_path / "output/images/bright-segmentation/scan.mha").array_zyx
    assert np.array_equal(mask, values > np.percentile(values, 99))
    assert (tmp_path / "output/results.json").is_file()
