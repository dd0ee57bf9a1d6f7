"""docs/submission.md, as a participant types it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stock import with_stock_trainer

from gc_panther.imaging.images import read_image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "submission.md"
CASE = ROOT / "test" / "cases" / "task1"

pytestmark = [pytest.mark.container, pytest.mark.slow]


@pytest.fixture
def environment(
    tmp_path: Path, built_image: Callable[[str], str], unavailable: Callable[[str], None]
) -> dict[str, str]:
    """The page's variables, the checkout's program first on the path, and a base image."""
    # What the page builds needs what that one needed: packages, of wheels or from a registry.
    built_image("task1")
    base = subprocess.run(
        [ROOT / "test" / "container" / "engine.sh"], capture_output=True, text=True, check=False
    )
    if base.returncode:
        unavailable(f"no container engine: {base.stderr.strip().splitlines()[-1]}")
    (image,) = (CASE / "input" / "images").rglob("*.mha")
    programs = Path(sys.executable).parent
    # In the place of `gc-panther submit`, which would reach the platform.
    program = tmp_path / "bin" / "gc-panther"
    program.parent.mkdir()
    stand_in = ROOT / "test" / "support" / "platform_stand_in.py"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = submit ] && exec {sys.executable} {stand_in} mask.mha "$@"\n'
        f'exec {programs}/gc-panther "$@"\n'
    )
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{program.parent}:{programs}:{os.environ['PATH']}",
        "BASE_IMAGE": base.stdout.strip(),
        "GC_PANTHER_DEVICE": "cpu",
        "FOLDS": str(with_stock_trainer(ROOT / "resources" / "task1", tmp_path / "folds")),
        "IMAGE": str(image),
        "ALGORITHM": "my-algorithm",
    }


def test_every_command_of_the_page_works(environment: dict[str, str], tmp_path: Path) -> None:
    commands = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    assert commands.count("./do_") == 3
    # The scripts are the checkout's; what they write lies here. The image is built for the CPU:
    # wheels for it are there.
    script = commands.replace("./do_build.sh task1", "./do_build.sh task1 --device cpu")
    script = script.replace("./do_", f"{ROOT}/do_")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.count("The platform would take it.") == 2
    here, there = (read_image(tmp_path / f"{m}.mha") for m in ("mask", "mask-from-there"))
    assert here.array_zyx.any()
    assert np.array_equal(here.array_zyx, there.array_zyx)
    assert (tmp_path / "mask.png").stat().st_size > 10_000
    sums = subprocess.run(
        ["sha256sum", "--check", "task1.sha256"], cwd=ROOT / "out" / "save", check=False
    )
    assert sums.returncode == 0
