"""A copy of the checkout's scripts, with an engine that only notes what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim-bookworm"
COPIED = (
    ".dockerignore",
    "Dockerfile.task1",
    "Dockerfile.task2",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "do_build.sh",
    "do_test_run.sh",
    "do_save.sh",
    "requirements.lock",
    "requirements-task2.lock",
    "requirements-torch.lock",
    "requirements-torch-gpu.lock",
    "gc_panther/__init__.py",
    "tasks/task1/pyproject.toml",
    "tasks/task2/pyproject.toml",
    "resources/task1/plans.json",
    "resources/task2/plans.json",
    "resources/mrsegmentator/plans.json",
    "scripts/common.sh",
    "scripts/invoke.py",
    "scripts/install_packages.sh",
    "scripts/slim_venv.sh",
)


@dataclass
class Checkout:
    """A copy of the scripts and what they need, and an engine that notes what it is asked.

    Attributes:
        root: of the copy.
        engine: the engine's folder.
        environment: of the scripts.
    """

    root: Path
    engine: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script."""
        (self.engine / "asked").unlink(missing_ok=True)
        return subprocess.run(
            [str(self.root / words[0]), *words[1:]],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self, *first: str) -> list[list[str]]:
        """The commands that begin with these words, of the last script."""
        file = self.engine / "asked"
        calls = file.read_text().split("\x1e")[:-1] if file.exists() else []
        found = [call.split("\x1f")[:-1] for call in calls]
        return [words for words in found if tuple(words[: len(first)]) == first]

    def add_image(self, name: str, **fields: str) -> None:
        """Let the engine know an image, or other facts of it."""
        folder = self.engine / "images" / name.replace(":", "__")
        folder.mkdir(parents=True, exist_ok=True)
        for field_name, value in fields.items():
            (folder / field_name).write_text(value)

    def image(self, name: str = "gc-panther-task1") -> dict[str, str]:
        """What the engine knows of an image."""
        files = (self.engine / "images" / name).iterdir()
        return {file.name: file.read_text() for file in files}

    def prints(self, text: str) -> None:
        """What containers print: the CUDA version of their torch."""
        (self.engine / "stdout").write_text(f"{text}\n")

    def change(self, path: str) -> None:
        """Change a file."""
        with (self.root / path).open("a") as file:
            file.write("\n")


def make_checkout(tmp_path: Path) -> Checkout:
    """Copy the scripts below a folder, and put the stand-in on their PATH as docker."""
    root, engine = tmp_path / "checkout", tmp_path / "engine"
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    # The SBOM, the emulation and the result's picture are tested elsewhere; here it counts that
    # they are asked for.
    for name in ("audit/sbom.py", "emulation/emulate.py", "show_result.py"):
        script = root / "scripts" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"import sys; print('{script.name}', *sys.argv[1:])\n")
    with (root / "scripts" / "common.sh").open("a") as common:
        # No environment is set up, and nothing but the stand-in runs in it.
        common.write("set_up_environment() { :; }\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    program = python.with_name("gc-panther")
    program.write_text('#!/bin/sh\necho gc-panther "$@"\n')
    program.chmod(0o755)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.symlink_to(ROOT / "test" / "support" / "engine_stand_in.sh")
    kept = {key: value for key, value in os.environ.items() if key in ("HOME", "LANG", "TMPDIR")}
    environment = {**kept, "PATH": f"{docker.parent}:{os.environ['PATH']}", "STAND_IN": str(engine)}
    made = Checkout(root, engine, environment)
    made.add_image(BASE, Id="sha256:base")
    made.prints("12.6")
    return made
