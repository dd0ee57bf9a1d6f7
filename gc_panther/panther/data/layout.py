"""Data in PANTHER's layout: the files by their names, and nnU-Net's raw layout.

PANTHER's folders (https://zenodo.org/records/15192302) are ``ImagesTr/<case>_0000.mha``,
``LabelsTr/<case>.mha`` and, where a task has them, ``ImagesTr_unlabeled/<case>_0000.mha``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gc_panther.errors import InputError
from gc_panther.files import whole_folder
from gc_panther.findings import Finding
from gc_panther.imaging.names import CHANNEL
from gc_panther.imaging.plausibility import ExpectedScan
from gc_panther.json_files import write_json

ENDING = ".mha"
IMAGES, LABELS, UNLABELLED = "ImagesTr", "LabelsTr", "ImagesTr_unlabeled"
#: How a file comes into the raw data set, the cheapest first.
Transfer = Literal["hard link", "symbolic link", "copy"]


@dataclass(frozen=True)
class DataLayout:
    """What a task's training data are called and hold; the task's plugin says it.

    Attributes:
        dataset: nnU-Net's name of the data set, ``Dataset101_PantherTask1``.
        case_pattern: regular expression of a case's name.
        example: a case's name, for messages.
        labels: values by name, the background included.
        tumour: name of the label that every case has.
        organ: name of the label in or next to which the tumour lies.
        scan: what the images should be; None where any image will do.
    """

    dataset: str
    case_pattern: str
    example: str
    labels: Mapping[str, int]
    tumour: str
    organ: str | None = None
    scan: ExpectedScan | None = None


@dataclass(frozen=True)
class Content:
    """The files of a data set that have proper names, by case.

    Attributes:
        images: of labelled cases.
        labels: of the same cases.
        unlabelled: images without labels.
    """

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    unlabelled: Mapping[str, Path]

    @property
    def files(self) -> int:
        """How many there are."""
        return len(self.images) + len(self.labels) + len(self.unlabelled)


def list_content(folder: Path, layout: DataLayout) -> tuple[Content, list[Finding]]:
    """Find the files of a data set by their names alone.

    Returns:
        What is there, and what is wrong with names and pairs.

    Raises:
        InputError: it is not a folder.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=folder, fix="Check the path")
    problems: list[Finding] = []
    parts = {
        part: dict(_named(folder, part, suffix, layout, problems))
        for part, suffix in (
            (IMAGES, CHANNEL),
            (LABELS, ""),
            (UNLABELLED, CHANNEL),
        )
    }
    images, labels, unlabelled = parts.values()
    if not images:
        fix = f"Give a folder that holds {IMAGES} and {LABELS}"
        problems.append(Finding(IMAGES, "fail", "there are no images", fix))
    for name in sorted(images.keys() - labels.keys()):
        file = str(images[name].relative_to(folder))
        fix = f"Add {LABELS}/{name}{ENDING}, or move the image to {UNLABELLED}"
        problems.append(Finding(file, "fail", "the image has no label map", fix))
    for name in sorted(labels.keys() - images.keys()):
        file = str(labels[name].relative_to(folder))
        fix = f"Add {IMAGES}/{name}{CHANNEL}{ENDING}, or remove it"
        problems.append(Finding(file, "fail", "the label map has no image", fix))
    for name in sorted(unlabelled.keys() & images.keys()):
        file = str(unlabelled[name].relative_to(folder))
        problems.append(Finding(file, "fail", "the case is labelled as well", "Remove it here"))
    return Content(images, labels, unlabelled), problems


def data_files(folder: Path, layout: DataLayout, *, unlabelled: bool) -> dict[str, Path]:
    """The files that a training reads, by their names below the folder.

    Args:
        folder: in PANTHER's layout.
        layout: what the task expects.
        unlabelled: whether the unlabelled images are used, too.

    Raises:
        InputError: it is not a folder.
    """
    content, _ = list_content(folder, layout)
    parts = [content.images, content.labels, *([content.unlabelled] if unlabelled else [])]
    paths = [path for part in parts for path in part.values()]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def import_data(content: Content, layout: DataLayout, out: Path) -> tuple[Path, Transfer]:
    """Write nnU-Net's raw data set, without copying where the file system allows it.

    Args:
        content: checked files.
        layout: names it.
        out: folder that receives the data set's own; it appears as a whole.

    Returns:
        The data set's folder, and the most expensive way in which a file came there.

    Raises:
        InputError: it exists.
    """
    target = out / layout.dataset
    if target.exists():
        raise InputError(
            "the data set exists", where=target, fix="Remove it, or choose another OUT"
        )
    ways: set[Transfer] = set()
    document = {
        "channel_names": {"0": "MR"},
        "labels": dict(layout.labels),
        "numTraining": len(content.images),
        "file_ending": ENDING,
    }
    with whole_folder(target) as part:
        for folder, files, suffix in (
            ("imagesTr", content.images, CHANNEL),
            ("labelsTr", content.labels, ""),
            ("imagesUn", content.unlabelled, CHANNEL),
        ):
            for name, path in files.items():
                place = part / folder / f"{name}{suffix}{ENDING}"
                place.parent.mkdir(exist_ok=True)
                ways.add(_bring(path, place))
        write_json(part / "dataset.json", document)
    order: tuple[Transfer, ...] = ("copy", "symbolic link", "hard link")
    return target, next(way for way in order if way in ways)


def _named(
    folder: Path, part: str, suffix: str, layout: DataLayout, problems: list[Finding]
) -> Iterator[tuple[str, Path]]:
    """The files of a part that are named as they should be; others become problems."""
    if not (folder / part).is_dir():
        return
    wanted = f"{layout.example}{suffix}{ENDING}"
    pattern = re.compile(f"({layout.case_pattern}){re.escape(suffix + ENDING)}")
    for path in sorted((folder / part).iterdir()):
        if path.name.startswith("."):
            continue
        match = pattern.fullmatch(path.name)
        if match is None:
            fix = f"Name it like {wanted}, or move it elsewhere"
            file = str(path.relative_to(folder))
            problems.append(Finding(file, "fail", "the name is not PANTHER's", fix))
        else:
            yield match[1], path


def _bring(path: Path, place: Path) -> Transfer:
    # A link to a link would hang on the first one.
    path = path.resolve()
    try:
        os.link(path, place)
        return "hard link"
    except OSError:
        pass
    try:
        place.symlink_to(path)
        return "symbolic link"
    except OSError:
        shutil.copyfile(path, place)
        return "copy"
