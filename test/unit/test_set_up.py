"""The virtual environment's set-up, with stand-ins for python3, pip and uv."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU_INDEX = "https://example.org/whl/cpu"
#: What else the script may use; no uv, no nvidia-smi.
TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "dirname",
    "flock",
    "mkdir",
    "mktemp",
    "rm",
    "sed",
    "sha256sum",
)
PYTHON = """#!/bin/bash
echo "$*" >> "$NOTES"
case "$*" in
    *version_info*) exit "${WRONG_VERSION:-0}" ;;
    *ensurepip*) exit "${NO_ENSUREPIP:-0}" ;;
    --version) echo Python 3.9.2 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""
UV = """#!/bin/bash
echo "uv $*" >> "$NOTES"
[ "$1" != venv ] || { mkdir -p .venv/bin && cp "$(command -v python3)" .venv/bin/python; }
"""


@pytest.fixture
def set_up(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]:
    """Call set_up_environment in a copy of the project; what came out, and what was started."""
    project, path = tmp_path / "project", tmp_path / "bin"
    (project / "scripts").mkdir(parents=True)
    path.mkdir()
    for file in (*ROOT.glob("requirements*.lock"), ROOT / "pyproject.toml"):
        shutil.copy(file, project)
    shutil.copy(ROOT / "scripts" / "common.sh", project / "scripts")
    for task in ("task1", "task2"):
        (project / "tasks" / task).mkdir(parents=True)
        shutil.copy(ROOT / "tasks" / task / "pyproject.toml", project / "tasks" / task)
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool) or tool)

    def run(
        programs: dict[str, str], **environment: str
    ) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        for name, content in programs.items():
            (path / name).write_text(content)
            (path / name).chmod(0o755)
        notes = tmp_path / "notes"
        notes.write_text("")
        done = subprocess.run(
            [path / "bash", "-c", "source scripts/common.sh; set_up_environment run"],
            cwd=project,
            env={"PATH": str(path), "NOTES": str(notes), "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, notes.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("programs", "environment", "said"),
    [
        ({"python3": PYTHON}, {"NO_ENSUREPIP": "1"}, "sudo apt-get install python3-venv"),
        ({"python3": PYTHON}, {"WRONG_VERSION": "1"}, "python3 is Python 3.9.2"),
        ({}, {}, "sudo apt-get install python3 python3-venv"),
    ],
    ids=["no venv", "an old Python", "no Python"],
)
def test_what_a_machine_lacks_is_named_in_one_line(
    set_up, programs: dict[str, str], environment: dict[str, str], said: str
) -> None:
    done, _ = set_up(programs, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("installer", ["-m pip install", "uv pip install"])
def test_the_locks_are_installed_by_their_hashes_and_only_torch_from_the_further_index(
    set_up, installer: str
) -> None:
    programs = {"python3": PYTHON, **({"uv": UV} if installer.startswith("uv") else {})}
    done, notes = set_up(programs, TORCH_INDEX_URL=CPU_INDEX)
    assert done.returncode == 0, done.stderr
    installs = [note for note in notes if note.startswith(installer)]
    assert not [note for note in notes if " install " in note and note not in installs]
    *locks, torch, own = installs
    assert [note.split(" -r ")[1] for note in locks] == [
        "requirements.lock",
        "requirements-task2.lock",
    ]
    assert all("--no-deps" in note and "--require-hashes" in note for note in locks)
    assert f"--extra-index-url {CPU_INDEX} -r requirements-torch.lock" in torch
    assert CPU_INDEX not in "".join([*locks, own])
    assert "-e . -e tasks/task1 -e tasks/task2" in own
    # uv makes the environment as well: Python's venv module is not needed.
    assert any("-m venv" in note for note in notes) == (not installer.startswith("uv"))
    # Once it is made, nothing is started.
    assert set_up(programs)[1] == []


def test_with_uv_pythons_venv_module_is_not_needed(set_up) -> None:
    done, _ = set_up({"python3": PYTHON, "uv": UV}, NO_ENSUREPIP="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("programs", "environment", "said"),
    [
        ({}, {}, "it has no NVIDIA driver"),
        ({"nvidia-smi": "#!/bin/bash\n"}, {}, "About 3.1 GB will be downloaded"),
        ({}, {"TORCH_INDEX_URL": CPU_INDEX}, "About 0.4 GB will be downloaded"),
    ],
    ids=["no driver", "driver", "further index"],
)
def test_it_says_what_will_be_downloaded(
    set_up, programs: dict[str, str], environment: dict[str, str], said: str
) -> None:
    done, _ = set_up({"python3": PYTHON, **programs}, **environment)
    assert said in done.stdout
    # An index's address may hold a password.
    assert CPU_INDEX not in done.stdout
