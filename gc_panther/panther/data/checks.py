"""Training data, checked file by file: all problems are found before any work."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gc_panther.case import Volume
from gc_panther.errors import InputError
from gc_panther.findings import Finding, Verdict
from gc_panther.imaging.plausibility import scan_problems, scan_warnings
from gc_panther.imaging.values import MOST_VALUES, distinct_values
from gc_panther.panther.data.label_checks import tumour_warnings
from gc_panther.panther.data.layout import Content, DataLayout, list_content
from gc_panther.text import count

log = logging.getLogger(__name__)

#: Called while a file is checked, with the part of the work on it that was done since the last
#: call; the parts of a file add up to 1.
OnProgress = Callable[[Path, float], None]
#: Bytes of pixels after which progress is reported.
STEP = 1 << 26
#: Parts of the work on a file: reading it, and the first half of what follows.
READ, HALF = 0.5, 0.25


def check_data(
    folder: Path, layout: DataLayout, progress: OnProgress = lambda _path, _part: None
) -> tuple[Content, list[Finding]]:
    """Look at every file of a data set.

    Args:
        folder: in PANTHER's layout.
        layout: what the task expects.
        progress: called while a file is read and checked.

    Returns:
        What is there, and all problems, those of names first.

    Raises:
        InputError: it is not a folder.
    """
    content, problems = list_content(folder, layout)
    check = _Check(folder, layout, progress, problems)
    for name, path in content.images.items():
        image = check.image(path)
        if name in content.labels:
            check.label(content.labels[name], image)
    for name in content.labels.keys() - content.images.keys():
        progress(content.labels[name], 1.0)
    for path in content.unlabelled.values():
        check.image(path)
    return content, problems


def case_counts(content: Content) -> str:
    """How many cases there are, for people."""
    unlabelled = count(len(content.unlabelled), "unlabelled case")
    return f"{len(content.images)} labelled and {unlabelled}"


def problem_counts(problems: list[Finding]) -> str:
    """How many errors and warnings there are, to follow a line; empty where there are none."""
    counts = []
    for word, failed in (("error", True), ("warning", False)):
        some = [problem for problem in problems if problem.failed == failed]
        if some:
            files = len({problem.check for problem in some})
            counts.append(f"; {count(len(some), word)} in {count(files, 'file')}")
    return "".join(counts)


def require_sound(folder: Path, problems: list[Finding]) -> None:
    """Refuse a data set with an error.

    Raises:
        InputError: there is one; the message names the first and says how to see all.
    """
    errors = [problem for problem in problems if problem.failed]
    if not errors:
        return
    first = errors[0]
    further = f", and {count(len(errors) - 1, 'more problem')}" if len(errors) > 1 else ""
    raise InputError(
        f"{first.found}{further}",
        where=folder / first.check,
        fix=f"{first.fix}; `gc-panther dataset check` shows all problems",
    )


def check_before_training(folder: Path, layout: DataLayout) -> None:
    """Look at every file, and log what is wrong.

    Raises:
        InputError: no network can be trained on the data.
    """
    content, problems = check_data(folder, layout)
    for problem in problems:
        kind = "error" if problem.failed else "warning"
        log.warning("%s: %s: %s. %s", kind, problem.check, problem.found, problem.fix)
    require_sound(folder, problems)
    log.info("%s in %s%s", case_counts(content), folder, problem_counts(problems))


class _Check:
    """One look at a data set."""

    def __init__(
        self, folder: Path, layout: DataLayout, progress: OnProgress, problems: list[Finding]
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._progress = progress
        self._problems = problems
        self._seen: dict[str, Path] = {}

    def image(self, path: Path) -> Volume | None:
        """Look at an image; None where it cannot be read."""
        image = self._read(path)
        if image is not None:
            self._same_pixels(image, path)
            self._not_a_scan(image, path)
            self._progress(path, HALF)
        return image

    def label(self, path: Path, image: Volume | None) -> None:
        """Look at a label map, and at how it goes with its image."""
        label = self._read(path)
        if label is None:
            return
        if image is not None and not label.geometry.matches(image.geometry):
            self._add(
                path,
                "size, spacing, origin or direction differ from the image's "
                f"({_grids(label, image)})",
                "Resample it onto its image, or export both again",
            )
        self._values(label, path)
        self._progress(path, HALF)

    def _read(self, path: Path) -> Volume | None:
        from gc_panther.imaging.images import read_image

        # Shows whose turn it is.
        self._progress(path, 0.0)
        try:
            image = read_image(path)
        except InputError as error:
            self._add(path, error.what, error.fix or "Download or export it again")
            self._progress(path, 1.0)
            return None
        self._progress(path, READ)
        return image

    def _same_pixels(self, image: Volume, path: Path) -> None:
        """A warning where the same pixels came before under another name."""
        pixels = np.ascontiguousarray(image.array_zyx).reshape(-1).view(np.uint8).data
        digest = hashlib.sha256()
        for start in range(0, len(pixels), STEP):
            part = pixels[start : start + STEP]
            digest.update(part)
            self._progress(path, HALF * len(part) / len(pixels))
        file = path.relative_to(self._folder)
        first = self._seen.setdefault(digest.hexdigest(), file)
        if first != file:
            fix = "Keep one: in different folds they make the cross-validation too good"
            self._add(path, f"the same pixels as {first}", fix, "warn")

    def _not_a_scan(self, image: Volume, path: Path) -> None:
        """Warnings where an image cannot be, or does not look like, what the task wants."""
        if self._layout.scan is None:
            return
        for found in scan_problems(image) or scan_warnings(image, self._layout.scan):
            what, _, fix = found.partition(": ")
            fix = fix[:1].upper() + fix[1:] or "Check the image, or remove the case"
            self._add(path, what, fix, "warn")

    def _values(self, label: Volume, path: Path) -> None:
        layout = self._layout
        found, is_all = distinct_values(
            label.array_zyx, lambda part: self._progress(path, HALF * part)
        )
        unknown = sorted(found - set(layout.labels.values()))
        if unknown:
            known = ", ".join(f"{value} {name}" for name, value in layout.labels.items())
            values = ", ".join(f"{value:g}" for value in unknown[:5])
            more = "" if is_all else f", and more than {MOST_VALUES} in all, as an image has"
            self._add(path, f"unknown label values: {values}{more}", f"Known: {known}")
        elif found <= {0}:
            self._add(path, "the label map is empty", "Remove the case")
        elif layout.labels[layout.tumour] not in found:
            fix = "Check the case; every PANTHER case has one"
            self._add(path, f"no {layout.tumour} is labelled", fix, "warn")
        else:
            organ = (layout.organ, layout.labels[layout.organ]) if layout.organ else None
            for what in tumour_warnings(label, layout.labels[layout.tumour], organ):
                self._add(path, what, "Check the label map", "warn")

    def _add(self, path: Path, what: str, fix: str, verdict: Verdict = "fail") -> None:
        file = str(path.relative_to(self._folder))
        self._problems.append(Finding(file, verdict, what, fix))


def _grids(label: Volume, image: Volume) -> str:
    """The first thing in which two grids differ."""
    for name in ("size_xyz", "spacing_xyz", "origin_xyz", "direction"):
        mine, theirs = getattr(label.geometry, name), getattr(image.geometry, name)
        if not np.allclose(mine, theirs, rtol=0, atol=1e-4):
            shown = " against ".join("×".join(f"{v:.6g}" for v in one) for one in (mine, theirs))
            return f"{name.removesuffix('_xyz')} {shown}"
    return "no two values"
