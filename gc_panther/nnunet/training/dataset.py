"""Data sets on disk in nnU-Net's raw layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gc_panther.json_files import write_json


@dataclass(frozen=True)
class LabelledCase:
    """One image and its label map, on disk."""

    name: str
    image: Path
    label: Path


def write_raw_dataset(
    folder: Path, cases: Sequence[LabelledCase], labels: Mapping[str, int]
) -> dict[str, Any]:
    """Write nnU-Net's ``dataset.json``, which points at the images where they are.

    Args:
        folder: nnU-Net's raw data set, ``Dataset123_Name``.
        cases: its cases; images are single-channel and stored in LPS order.
        labels: label values by name.
    """
    document = {
        "channel_names": {"0": "MR"},
        "labels": dict(labels),
        "numTraining": len(cases),
        "file_ending": ".mha",
        "dataset": {
            case.name: {"images": [str(case.image.resolve())], "label": str(case.label.resolve())}
            for case in cases
        },
    }
    write_json(folder / "dataset.json", document)
    return document


def raw_cases(folder: Path) -> list[LabelledCase]:
    """The cases of a raw data set that :func:`write_raw_dataset` wrote."""
    document = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    return [
        LabelledCase(name, Path(files["images"][0]), Path(files["label"]))
        for name, files in document["dataset"].items()
    ]
