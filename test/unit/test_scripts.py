"""The shell scripts, as far as they can be tried without setting anything up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("*.sh"), *ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("name", ["do_build.sh", "do_test_run.sh", "do_save.sh"])
def test_an_unknown_task_is_one_line_and_exit_2(name: str) -> None:
    done = subprocess.run([str(ROOT / name), "task9"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: 'task9' is no task. Choose one of: task1 task2\n"
