"""A folder of images: many cases, one after the other, with the networks loaded once.

A mask is written under the image's own path, without nnU-Net's ``_0000``, so that the folder of
masks has the references' names. The case's run report is next to it. The mask is the last of a
case's files to appear, and its digest is in the report: a case is finished when all of its files
are there and belong together.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import statistics
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import interruption
from gc_panther.commands.cohort_plan import Planned, plan_cohort, printable
from gc_panther.commands.cohort_record import (
    PROVENANCE,
    Recipe,
    image_digest,
    read_report,
    recipe_of,
    record_in,
)
from gc_panther.commands.cohort_resume import kept_outcomes
from gc_panther.commands.cohort_table import TABLE, CohortTable, Outcome
from gc_panther.commands.flow import process
from gc_panther.commands.predict import FileOutputs, image_slug, read_case
from gc_panther.errors import (
    GCPantherError,
    OutputError,
    ProcessingError,
    UserError,
    describe,
)
from gc_panther.imaging.images import check_mask_format
from gc_panther.memory import release_memory, settle_memory
from gc_panther.session import Choices, Session, check_sockets, errors_notified
from gc_panther.settings import Settings
from gc_panther.task import Task
from gc_panther.text import count

logger = logging.getLogger(__name__)

LOCK = ".cohort.lock"
#: Errors that the next image would meet as well.
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: With less free space, an error of writing is taken for a full disk; bytes.
_HARDLY_ANY_SPACE = 16 << 20


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
        mask_folder: gets masks, run reports and the table ``cohort.csv``, which is written again
            after each case and keeps the rows of other images; made if it is missing.
        keep: leave out the images whose results are there, complete, and made of the same image
            by the same task with the same options and weights.
        overwrite: make all masks again; each replaces the earlier one when it is complete.
        pictures: also write a PNG of each mask over its image.

    Returns:
        One outcome per image, in the order of their names.

    Raises:
        InputError: there are no images, or two would have the same mask.
        UserError: another cohort is running in the folder of masks; masks are there, and neither
            ``keep`` nor ``overwrite`` says what to do; or ``keep`` would replace a mask that this
            command has not made.
        GCPantherError: the device, the weights or the folder of masks cannot be used.
    """
    check_sockets(task, manager)
    slug = image_slug(task)
    plan = plan_cohort(image_folder, mask_folder)
    with _only_run_in(mask_folder), ExitStack() as stack:
        table = CohortTable(mask_folder, task)
        there = [one for one in plan if os.path.lexists(one.mask)]
        if there and not (keep or overwrite):
            raise UserError(
                f"{len(there)} of {count(len(plan), 'mask')} are already there",
                where=mask_folder,
                fix="--continue keeps those that still hold, --overwrite makes all masks again",
            )
        with errors_notified(manager, task):
            recipe = recipe_of(task, manager, settings, choices)
            kept = {} if overwrite else kept_outcomes(there, table, recipe, pictures=pictures)
            waiting = [one for one in plan if one.name not in kept]
            session = (
                stack.enter_context(Session(task, manager, settings, choices)) if waiting else None
            )
        for one in plan:
            table.put(kept.get(one.name) or Outcome(one.name, "waiting"))
        table.write()
        made: dict[str, Outcome] = {}
        if session is not None:
            work = _Work(session, manager, slug, recipe, mask_folder, pictures)
            made = _segment_all(work, waiting, table)
    outcomes = kept | made
    return [outcomes[one.name] for one in plan]


def check_outcomes(outcomes: Sequence[Outcome], mask_folder: Path) -> None:
    """Say in one line what has failed, if anything.

    Raises:
        ProcessingError: with the first of the images that failed.
    """
    failed = [one for one in outcomes if one.status == "failed"]
    if failed:
        raise ProcessingError(
            f"{len(failed)} of {count(len(outcomes), 'image')} failed, the first is "
            f"{failed[0].name} ({failed[0].error})",
            fix=f"All reasons are in {mask_folder / TABLE}; --continue tries these images again",
        )


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """Make the folder of masks, and hold its lock, which the system releases at any end.

    Raises:
        UserError: another cohort is running there, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(
            "another cohort is running in this folder",
            where=folder,
            fix="Wait for its end, or choose another folder for the masks",
        ) from error
    except OSError as error:
        raise UserError(
            f"the folder for the masks cannot be written ({error.strerror})",
            where=folder,
            fix="Check its permissions, or choose another one",
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Work:
    """What all images of a run share."""

    session: Session
    manager: pluggy.PluginManager
    slug: str
    recipe: Recipe
    folder: Path
    pictures: bool


def _segment_all(work: _Work, waiting: Sequence[Planned], table: CohortTable) -> dict[str, Outcome]:
    """Segment one image after the other, with a row in the table after each.

    Raises:
        OutputError: results cannot be written any more.
    """
    settle_memory()
    outcomes: dict[str, Outcome] = {}
    seconds: list[float] = []
    for number, one in enumerate(waiting):
        interruption.check()
        left = _time_left(seconds, len(waiting) - number)
        logger.info("image %d of %d%s: %s", number + 1, len(waiting), left, one.name)
        begin = time.perf_counter()
        outcomes[one.name] = _segment(work, one)
        release_memory()
        seconds.append(time.perf_counter() - begin)
        table.put(outcomes[one.name])
        table.write()
    return outcomes


def _segment(work: _Work, one: Planned) -> Outcome:
    """Segment one image; whatever is wrong with it is its outcome.

    Raises:
        OutputError, OSError: what came out cannot be written; nor could the next image's.
    """
    try:
        report = _make_results(work, one)
    except Exception as error:  # the others' masks do not depend on this one
        if _is_lasting(error, work.folder, work.session.scratch):
            raise
        if not isinstance(error, GCPantherError):
            logger.info(traceback.format_exc())
        message = printable(describe(error)[0])
        if os.path.lexists(one.mask):
            message = f"{message.rstrip('.')}. The earlier mask was left as it was"
        logger.error("%s: %s", one.name, message)
        return Outcome(one.name, "failed", error=message)
    return Outcome(one.name, "done", report)


def _make_results(work: _Work, one: Planned) -> dict[str, Any]:
    """Read, segment, and write all files of the case, the mask as the last to appear.

    Raises:
        GCPantherError: with what was wrong; earlier results are as they were.
    """
    with errors_notified(work.manager, work.session.task):
        one.check(work.folder)
        # Before it is read: if it changes meanwhile, the record is that of another image.
        record = work.recipe.record(image_digest(one.image), picture=work.pictures)
        case = read_case(work.slug, one.image)
    with errors_notified(work.manager, work.session.task, case):
        check_mask_format(one.mask, case.images[work.slug].geometry, work.session.scratch)
        had_picture = record_in(read_report(one.report)).get("picture")
        outputs = FileOutputs(
            one.mask,
            one.report,
            picture=one.picture if work.pictures else None,
            facts={PROVENANCE: record},
            # It would show the earlier mask.
            outdated=one.picture if had_picture and not work.pictures else None,
        )
        return process(work.session, case, outputs, transient=True)


def _is_lasting(error: BaseException | None, *folders: Path) -> bool:
    """Whether the next image would fail for the same reason: the disk is full, or read-only."""
    if isinstance(error, UserError):
        return False
    if isinstance(error, OutputError):
        # Image libraries do not say why they could not write.
        free = min(shutil.disk_usage(folder).free for folder in folders)
        if free < _HARDLY_ANY_SPACE:
            return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in _LASTING:
            return True
        error = error.__cause__
    return False


def _time_left(seconds: Sequence[float], images: int) -> str:
    """About how long it will take; nothing before the first image is done."""
    if not seconds:
        return ""
    left = statistics.median(seconds) * images
    return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
