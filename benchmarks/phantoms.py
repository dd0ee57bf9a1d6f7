"""Phantoms for the benchmarks: the bundled ones, and others made once per seed and kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from warm import ROOT

from gc_panther.panther.phantom.dataset import Job, case_name, make_case
from gc_panther.panther.phantom.generate import PHANTOM_VERSION

#: No training recipe uses this seed (`docs/accuracy.md`).
SEED = 4242


def bundled_case(task: str) -> Path:
    """The image of the case that the project brings for a task."""
    (image,) = (ROOT / "test" / "cases" / task / "input" / "images").rglob("*.mha")
    return image


def phantom_files(task: str, case: int, seed: int, work: Path) -> tuple[str, Path, Path]:
    """Return (name, image, label) of one full-size phantom; makes what is not there yet."""
    folder = work / f"phantoms-v{PHANTOM_VERSION}-seed{seed}" / task
    name = case_name(task, case)
    image = folder / "ImagesTr" / f"{name}_0000.mha"
    label = folder / "LabelsTr" / f"{name}.mha"
    if not (image.is_file() and label.is_file()):
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        make_case(Job(task, seed, case, name, folder, "ImagesTr", labelled=True, organs=False))
    return name, image, label


def say(*words: Any) -> None:
    """Print a line of progress at once, apart from the result on stdout."""
    print(*words, file=sys.stderr, flush=True)
