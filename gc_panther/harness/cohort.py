"""The door for a folder of images: many cases, one after the other, with the networks loaded once.

A mask is written under the image's own path, without nnU-Net's ``_0000``, so that the folder of
masks has the references' names. Beside it lies the case's run report.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import statistics
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from gc_panther.errors import (
    GCPantherError,
    InputError,
    OutputError,
    ProcessingError,
    UserError,
    describe,
)
from gc_panther.files import whole_file
from gc_panther.harness.engine import Choices, Engine, check_sockets, told_to_plugins
from gc_panther.harness.predict import image_slug, read_case, write_results
from gc_panther.harness.progress import shown_progress
from gc_panther.memory import release_memory
from gc_panther.settings import Settings
from gc_panther.task import Task

logger = logging.getLogger(__name__)

#: Which files are images, and what their masks end in; the longest that fits counts.
ENDINGS = {
    ".nii.gz": ".nii.gz",
    ".nii": ".nii.gz",
    ".nrrd": ".nrrd",
    ".nhdr": ".nrrd",
    ".mha": ".mha",
    ".mhd": ".mha",
}
#: nnU-Net's ending of a first channel.
CHANNEL = "_0000"
TABLE = "cohort.csv"


@dataclass(frozen=True)
class Planned:
    """An image of the cohort and where its results go.

    Attributes:
        name: the image's path below the cohort's folder, as it is in the table.
        image: the image.
        mask: its mask.
    """

    name: str
    image: Path
    mask: Path

    @property
    def report(self) -> Path:
        """The run report beside the mask."""
        return self.mask.with_name(f"{_without_ending(self.mask)}.json")

    @property
    def picture(self) -> Path:
        """The picture beside the mask."""
        return self.mask.with_name(f"{_without_ending(self.mask)}.png")

    @property
    def finished(self) -> bool:
        """Whether it has its mask, which is never there in part."""
        return self.mask.is_file()

    def remove_results(self) -> None:
        """Delete what a run before has written."""
        for old in (self.mask, self.report, self.picture):
            old.unlink(missing_ok=True)


@dataclass(frozen=True)
class Outcome:
    """A row of the cohort's table.

    Attributes:
        name: the image.
        status: ``done``, ``kept`` (the mask was there) or ``failed``.
        report: the run report, where there is one.
        error: why it failed.
    """

    name: str
    status: str
    report: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def cohort(
    task: Task,
    manager: pluggy.PluginManager,
    settings: Settings,
    choices: Choices,
    *,
    image_folder: Path,
    mask_folder: Path,
    keep: bool = False,
    overwrite: bool = False,
    pictures: bool = False,
) -> list[Outcome]:
    """Segment all images below a folder; an image that fails does not stop the others.

    Args:
        task: a task that takes one image.
        manager: the plugins.
        settings: the environment.
        choices: device, weights and inference options; a time limit holds for each case.
        image_folder: searched with all its folders for files of a known ending.
        mask_folder: gets masks, run reports and the table ``cohort.csv``, which is written anew
            after each case; made if it is missing.
        keep: leave out the images whose masks are there.
        overwrite: delete the masks that are there, and make them anew.
        pictures: also write a PNG of each mask over its image.

    Returns:
        One outcome per image, in the order of their names.

    Raises:
        InputError: there are no images, or two would have the same mask.
        UserError: masks are there, and neither ``keep`` nor ``overwrite`` says what to do.
        GCPantherError: device, weights or the folder of masks are at fault.
    """
    check_sockets(task, manager)
    slug = image_slug(task)
    plan = plan_cohort(image_folder, mask_folder)
    finished = [one for one in plan if one.finished]
    if finished and not (keep or overwrite):
        raise UserError(
            f"{len(finished)} of {len(plan)} masks are already there",
            where=mask_folder,
            fix="--continue leaves their images out, --overwrite makes all masks anew",
        )
    kept = [] if overwrite else finished
    waiting = [one for one in plan if one not in kept]
    outcomes = {one.name: Outcome(one.name, "kept", _read_report(one.report)) for one in kept}
    if kept:
        logger.info("%d of %d masks are there", len(kept), len(plan))
    if waiting:
        with told_to_plugins(manager, task):
            engine = Engine(task, manager, settings, choices)
        # All at once: after an interruption, --continue finds none of the old ones.
        for one in waiting:
            one.remove_results()
        seconds: list[float] = []
        with engine:
            for number, one in enumerate(waiting):
                left = _time_left(seconds, len(waiting) - number)
                logger.info("image %d of %d%s: %s", number + 1, len(waiting), left, one.name)
                begin = time.perf_counter()
                outcomes[one.name] = _segment(engine, manager, slug, one, pictures=pictures)
                release_memory()
                seconds.append(time.perf_counter() - begin)
                _write_table(mask_folder, task, outcomes.values())
    _write_table(mask_folder, task, outcomes.values())
    return [outcomes[one.name] for one in plan]


def plan_cohort(image_folder: Path, mask_folder: Path) -> list[Planned]:
    """Find the images, and say where their masks go.

    Raises:
        InputError: there are no images, two would have the same mask, or the masks would lie
            among the images.
    """
    if not image_folder.is_dir():
        raise InputError("there is no such folder of images", where=image_folder)
    if mask_folder.resolve().is_relative_to(image_folder.resolve()):
        raise InputError(
            "the masks would lie among the images",
            where=mask_folder,
            fix="Give a folder outside the images'",
        )
    plan: dict[Path, Planned] = {}
    for image in sorted(image_folder.rglob("*")):
        below = image.relative_to(image_folder)
        ending = _ending(image)
        if not ending or any(part.startswith(".") for part in below.parts) or not image.is_file():
            continue
        name = _without_ending(image).removesuffix(CHANNEL)
        mask = mask_folder / below.with_name(f"{name}{ENDINGS[ending]}")
        one = Planned(str(below), image, mask)
        other = plan.setdefault(one.report, one)
        if other is not one:
            raise InputError(
                "two images would have the same results",
                where=f"{other.name} and {one.name} in {image_folder}",
                fix="Rename one, or take it out of the folder",
            )
    if not plan:
        raise InputError(
            f"there are no images ({', '.join(ENDINGS)})",
            where=image_folder,
            fix="DICOM series have to be converted first, for instance by dcm2niix",
        )
    return list(plan.values())


def check_outcomes(outcomes: Sequence[Outcome], mask_folder: Path) -> None:
    """Say in one line what has failed, if anything.

    Raises:
        ProcessingError: with the first of the images that failed.
    """
    failed = [one for one in outcomes if one.status == "failed"]
    if failed:
        raise ProcessingError(
            f"{len(failed)} of {len(outcomes)} images failed, the first is {failed[0].name} "
            f"({failed[0].error})",
            fix=f"All reasons are in {mask_folder / TABLE}; --continue tries these images again",
        )


def _segment(
    engine: Engine, manager: pluggy.PluginManager, slug: str, one: Planned, *, pictures: bool
) -> Outcome:
    """Segment one image; whatever is wrong with it is its outcome.

    Raises:
        OutputError: what came out cannot be written; nor could the next image's.
    """
    try:
        with told_to_plugins(manager, engine.task) as work:
            case = work.case = read_case(slug, one.image)
            with shown_progress(transient=True) as progress:
                segmentation, report = engine.process(case, progress)
    except Exception as error:  # noqa: BLE001 - the others' masks do not depend on this one
        message, _ = describe(error)
        if not isinstance(error, GCPantherError):
            logger.info(traceback.format_exc())
        logger.error("%s: %s", one.name, message)
        return Outcome(one.name, "failed", error=message)
    try:
        one.mask.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be made ({error.strerror})", where=one.mask.parent
        ) from error
    write_results(
        engine,
        case,
        segmentation,
        report,
        mask_path=one.mask,
        report_path=one.report,
        picture_path=one.picture if pictures else None,
    )
    return Outcome(one.name, "done", report)


def _write_table(folder: Path, task: Task, outcomes: Iterable[Outcome]) -> None:
    """One row per image so far, in the order of the names."""
    labels = [name for value, name in task.labels.items() if value]
    columns = ["image", "status", *(f"{label}_ml" for label in labels), "seconds", "notes", "error"]
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    for one in sorted(outcomes, key=lambda outcome: outcome.name):
        sizes = one.report.get("labels", {})
        rows.writerow(
            [
                one.name,
                one.status,
                *(sizes.get(label, {}).get("volume_ml", "") for label in labels),
                one.report.get("seconds", {}).get("segment", ""),
                " ".join(one.report.get("notes", ())),
                one.error,
            ]
        )
    try:
        with whole_file(folder / TABLE) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise OutputError(
            f"the table cannot be written ({error.strerror})", where=folder / TABLE
        ) from error


def _read_report(path: Path) -> dict[str, Any]:
    """The report of a run before; empty where it is none any more."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _time_left(seconds: Sequence[float], images: int) -> str:
    """About how long it will take; nothing before the first image is done."""
    if not seconds:
        return ""
    left = statistics.median(seconds) * images
    return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"


def _ending(path: Path) -> str:
    """Which of :data:`ENDINGS` a file has, or nothing."""
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")


def _without_ending(path: Path) -> str:
    return path.name[: len(path.name) - len(_ending(path))]
