"""The worked example of docs/plugins.md, as a stranger would install and run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from example_plugin import write_example

from gc_panther.imaging.images import read_image


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, write_volume: Callable[..., Path]) -> None:
    source, site = write_example(tmp_path / "source"), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)

    image = write_volume(tmp_path / "image.mha")
    mask, report = tmp_path / "mask.mha", tmp_path / "report.json"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("gc-panther")), "predict", "bright", str(image)]
        + ["-o", str(mask), "--report", str(report)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values = read_image(image).array_zyx
    assert np.array_equal(read_image(mask).array_zyx, values > np.percentile(values, 99))
    assert json.loads(report.read_text())["task"] == "bright"
