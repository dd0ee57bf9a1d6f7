"""Which results of earlier runs a cohort keeps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from gc_panther.commands.cohort_plan import Planned, printable
from gc_panther.commands.cohort_record import (
    Recipe,
    differences,
    file_digest,
    image_digest,
    read_report,
    record_in,
)
from gc_panther.commands.cohort_table import CohortTable, Outcome
from gc_panther.errors import GCPantherError, UserError
from gc_panther.text import count

logger = logging.getLogger(__name__)


def kept_outcomes(
    there: Sequence[Planned], table: CohortTable, recipe: Recipe, *, pictures: bool
) -> dict[str, Outcome]:
    """Those of the masks which this run would make again in the same way, by image.

    Args:
        there: the images that have a mask.
        table: of the folder of masks.
        recipe: of this run.
        pictures: whether a case needs a picture.

    Raises:
        UserError: one of the others is not the cohort's own, and must not be replaced unasked.
    """
    kept: dict[str, Outcome] = {}
    foreign: list[Planned] = []
    reasons: dict[str, list[str]] = {}
    for one in there:
        report, status = read_report(one.report), table.status(one.name)
        if _is_foreign(one, report, status):
            foreign.append(one)
        elif reason := _why_again(one, report, status, recipe, pictures=pictures):
            reasons.setdefault(reason, []).append(one.name)
        else:
            kept[one.name] = Outcome(one.name, "kept", report)
    if foreign:
        were = "was" if len(foreign) == 1 else "were"
        raise UserError(
            f"{count(len(foreign), 'mask')} {were} not made by gc-panther cohort, or changed "
            f"afterwards; the first is {printable(foreign[0].mask.name)}",
            where=foreign[0].mask.parent,
            fix="Move such masks away, or --overwrite replaces them",
        )
    logger.info("%d of %s kept", len(kept), count(len(there), "mask"))
    for reason, names in reasons.items():
        logger.info("%s made again (%s): %s", count(len(names), "mask"), reason, ", ".join(names))
    return kept


def _is_foreign(one: Planned, report: dict[str, Any], status: str) -> bool:
    """Whether a mask may be a person's work: not written by the cohort, or changed since."""
    if status == "waiting":
        # Interrupted while the new files took the places of the old ones.
        return False
    if not record_in(report):
        return not status
    try:
        return file_digest(one.mask) != report["mask_sha256"]
    except OSError:
        return True


def _why_again(
    one: Planned, report: dict[str, Any], status: str, recipe: Recipe, *, pictures: bool
) -> str:
    """Why a mask cannot be kept; empty if it can."""
    record = record_in(report)
    if not report:
        return "the report is missing"
    if not record:
        return "the report does not say how the mask was made"
    if status in ("waiting", "failed"):
        return "an earlier run did not finish the image"
    if pictures and not one.picture.is_file():
        return "the picture is missing"
    if found := differences(record, recipe):
        return "; ".join(found)
    try:
        return "" if image_digest(one.image) == record.get("image") else "the image has changed"
    except GCPantherError:
        return "the image cannot be read"
