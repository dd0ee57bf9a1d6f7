"""The shell scripts, as far as they can be tried without setting anything up."""

from __future__ import annotations

import re
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
    assert done.stderr == "error: 'task9' is not a valid task. Choose one of: task1 task2\n"


LOCKS = [
    *(path for path in ROOT.glob("requirements*.lock") if path.name != "requirements-torch.lock"),
    *ROOT.glob("scripts/*/requirements.lock"),
]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_of_a_lock_has_a_version_and_hashes(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    entries = re.split(r"\s+(?=[A-Za-z0-9_.-]+==)", " ".join(lines).replace("\\", ""))
    assert entries
    for entry in entries:
        assert re.fullmatch(
            r"[A-Za-z0-9_.-]+==\S+(?: ; [^-]+?)?(?:\s+--hash=sha256:[0-9a-f]{64})+\s*", entry
        ), entry


def test_the_pins_of_a_lock_are_found_without_its_hashes() -> None:
    script = "source scripts/common.sh; pins_of requirements.lock"
    found = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(found) == (ROOT / "requirements.lock").read_text().count("==")
    assert all(re.fullmatch(r"\S+==[0-9A-Za-z.+]+", pin) for pin in found)
