"""Data in PANTHER's layout: all problems found before any work, then nnU-Net's raw layout.

PANTHER's folders (https://zenodo.org/records/15192302) are ``ImagesTr/<case>_0000.mha``,
``LabelsTr/<case>.mha`` and, where a task has them, ``ImagesTr_unlabeled/<case>_0000.mha``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gc_panther.case import Volume
from gc_panther.errors import InputError
from gc_panther.text import count
from gc_panther.training.dataset import CHANNEL_SUFFIX, UNLABELLED, write_json

log = logging.getLogger(__name__)

ENDING = ".mha"
IMAGES, LABELS = "ImagesTr", "LabelsTr"
#: How a file comes into the raw data set, the cheapest first.
Transfer = Literal["hard link", "symbolic link", "copy"]
#: Called after each file that was looked at.
Looked = Callable[[Path], None]


@dataclass(frozen=True)
class DataLayout:
    """What a task's training data are called and hold; the task's plugin says it.

    Attributes:
        dataset: nnU-Net's name of the data set, ``Dataset101_PantherTask1``.
        case_pattern: regular expression of a case's name.
        example: a case's name, for messages.
        labels: values by name, the background included.
        tumour: name of the label that every case has.
        organ: name of the label in or beside which the tumour lies.
    """

    dataset: str
    case_pattern: str
    example: str
    labels: Mapping[str, int]
    tumour: str
    organ: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something about a data set that a person should know.

    Attributes:
        file: relative to the data set's folder.
        what: is wrong.
        fix: what to do.
        fatal: whether no work can be done with it.
    """

    file: Path
    what: str
    fix: str
    fatal: bool = True


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


def list_content(folder: Path, layout: DataLayout) -> tuple[Content, list[Problem]]:
    """Find the files of a data set by their names alone.

    Returns:
        What is there, and what is wrong with names and pairs.

    Raises:
        InputError: it is no folder.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=folder, fix="Check the path")
    problems: list[Problem] = []
    parts = {
        part: dict(_named(folder, part, suffix, layout, problems))
        for part, suffix in (
            (IMAGES, CHANNEL_SUFFIX),
            (LABELS, ""),
            (UNLABELLED, CHANNEL_SUFFIX),
        )
    }
    images, labels, unlabelled = parts.values()
    if not images:
        fix = f"Give a folder that holds {IMAGES} and {LABELS}"
        problems.append(Problem(Path(IMAGES), "there are no images", fix))
    for name in sorted(images.keys() - labels.keys()):
        file = images[name].relative_to(folder)
        fix = f"Add {LABELS}/{name}{ENDING}, or move the image to {UNLABELLED}"
        problems.append(Problem(file, "the image has no label map", fix))
    for name in sorted(labels.keys() - images.keys()):
        file = labels[name].relative_to(folder)
        fix = f"Add {IMAGES}/{name}{CHANNEL_SUFFIX}{ENDING}, or remove it"
        problems.append(Problem(file, "the label map has no image", fix))
    for name in sorted(unlabelled.keys() & images.keys()):
        file = unlabelled[name].relative_to(folder)
        problems.append(Problem(file, "the case is labelled as well", "Remove it here"))
    return Content(images, labels, unlabelled), problems


def data_files(folder: Path, layout: DataLayout, *, unlabelled: bool) -> dict[str, Path]:
    """The files that a training reads, by their names below the folder.

    Args:
        folder: in PANTHER's layout.
        layout: what the task expects.
        unlabelled: whether the unlabelled images are used, too.

    Raises:
        InputError: it is no folder.
    """
    content, _ = list_content(folder, layout)
    parts = [content.images, content.labels, *([content.unlabelled] if unlabelled else [])]
    paths = [path for part in parts for path in part.values()]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def check_data(
    folder: Path, layout: DataLayout, looked: Looked = lambda _: None
) -> tuple[Content, list[Problem]]:
    """Look at every file of a data set.

    Args:
        folder: in PANTHER's layout.
        layout: what the task expects.
        looked: called after each file.

    Returns:
        What is there, and all problems, those of names first.

    Raises:
        InputError: it is no folder.
    """
    content, problems = list_content(folder, layout)
    seen: dict[str, Path] = {}
    for name, path in content.images.items():
        image = _read(path, folder, problems)
        looked(path)
        label = None
        if name in content.labels:
            label = _read(content.labels[name], folder, problems)
            looked(content.labels[name])
        if image is not None:
            problems += _same_pixels(image, path, folder, seen)
        if label is not None:
            problems += _label_problems(label, image, content.labels[name], folder, layout)
    for name in content.labels.keys() - content.images.keys():
        looked(content.labels[name])
    for path in content.unlabelled.values():
        image = _read(path, folder, problems)
        looked(path)
        if image is not None:
            problems += _same_pixels(image, path, folder, seen)
    return content, problems


def require_sound(folder: Path, problems: list[Problem]) -> None:
    """Refuse a data set with a fatal problem.

    Raises:
        InputError: there is one; the message names the first and says how to see all.
    """
    fatal = [problem for problem in problems if problem.fatal]
    if not fatal:
        return
    further = f", and {count(len(fatal) - 1, 'more problem')}" if len(fatal) > 1 else ""
    raise InputError(
        f"{fatal[0].what}{further}",
        where=folder / fatal[0].file,
        fix=f"{fatal[0].fix}; `gc-panther dataset check` shows all problems",
    )


def check_before_training(folder: Path, layout: DataLayout) -> None:
    """Look at every file, and log what is wrong.

    Raises:
        InputError: no network can be trained on the data.
    """
    content, problems = check_data(folder, layout)
    for problem in problems:
        kind = "error" if problem.fatal else "warning"
        log.warning("%s: %s: %s. %s", kind, problem.file, problem.what, problem.fix)
    require_sound(folder, problems)
    log.info(
        "%d labelled and %d unlabelled cases in %s",
        len(content.images),
        len(content.unlabelled),
        folder,
    )


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
    part = out / f".{layout.dataset}.part"
    if part.exists():
        shutil.rmtree(part)
    ways: set[Transfer] = set()
    for folder, files, suffix in (
        ("imagesTr", content.images, CHANNEL_SUFFIX),
        ("labelsTr", content.labels, ""),
        ("imagesUn", content.unlabelled, CHANNEL_SUFFIX),
    ):
        for name, path in files.items():
            place = part / folder / f"{name}{suffix}{ENDING}"
            place.parent.mkdir(parents=True, exist_ok=True)
            ways.add(_bring(path, place))
    document = {
        "channel_names": {"0": "MR"},
        "labels": dict(layout.labels),
        "numTraining": len(content.images),
        "file_ending": ENDING,
    }
    write_json(part / "dataset.json", document)
    part.rename(target)
    order: tuple[Transfer, ...] = ("copy", "symbolic link", "hard link")
    return target, next(way for way in order if way in ways)


def _named(
    folder: Path, part: str, suffix: str, layout: DataLayout, problems: list[Problem]
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
            problems.append(Problem(path.relative_to(folder), "the name is not PANTHER's", fix))
        else:
            yield match[1], path


def _read(path: Path, folder: Path, problems: list[Problem]) -> Volume | None:
    from gc_panther.imaging.images import read_image

    try:
        return read_image(path)
    except InputError as error:
        fix = error.fix or "Download or export it again"
        problems.append(Problem(path.relative_to(folder), error.what, fix))
        return None


def _same_pixels(image: Volume, path: Path, folder: Path, seen: dict[str, Path]) -> list[Problem]:
    """A warning where the same pixels came before under another name."""
    file = path.relative_to(folder)
    digest = hashlib.sha256(np.ascontiguousarray(image.array_zyx).tobytes()).hexdigest()
    first = seen.setdefault(digest, file)
    if first == file:
        return []
    fix = "Keep one: in different folds they make the cross-validation too good"
    return [Problem(file, f"the same pixels as {first}", fix, fatal=False)]


def _label_problems(
    label: Volume, image: Volume | None, path: Path, folder: Path, layout: DataLayout
) -> list[Problem]:
    file = path.relative_to(folder)
    problems = []
    if image is not None and not label.geometry.matches(image.geometry):
        what = (
            f"size, spacing, origin or direction differ from the image's ({_grids(label, image)})"
        )
        problems.append(Problem(file, what, "Resample it onto its image, or export both again"))
    found = set(np.unique(label.array_zyx).tolist())
    unknown = sorted(found - set(layout.labels.values()))
    if unknown:
        known = ", ".join(f"{value} {name}" for name, value in layout.labels.items())
        values = ", ".join(f"{value:g}" for value in unknown[:5])
        problems.append(Problem(file, f"unknown label values: {values}", f"Known: {known}"))
    if found <= {0}:
        problems.append(Problem(file, "the label map is empty", "Remove the case"))
    elif layout.labels[layout.tumour] not in found:
        what, fix = f"no {layout.tumour} is labelled", "Check the case; every PANTHER case has one"
        problems.append(Problem(file, what, fix, fatal=False))
    return problems


def _grids(label: Volume, image: Volume) -> str:
    """The first thing in which two grids differ."""
    for name in ("size_xyz", "spacing_xyz", "origin_xyz", "direction"):
        mine, theirs = getattr(label.geometry, name), getattr(image.geometry, name)
        if not np.allclose(mine, theirs, rtol=0, atol=1e-4):
            shown = " against ".join("×".join(f"{v:.6g}" for v in one) for one in (mine, theirs))
            return f"{name.removesuffix('_xyz')} {shown}"
    return "no two values"


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
