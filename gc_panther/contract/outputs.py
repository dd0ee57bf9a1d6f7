"""What is put into ``/output``: one checked mask and ``results.json``, all of it or nothing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gc_panther.case import Geometry, Segmentation, Volume
from gc_panther.errors import OutputError
from gc_panther.imaging.images import write_image
from gc_panther.task import Task

RESULTS_FILE = "results.json"
MASK_ENDING = ".mha"


def check_mask(mask: Volume, expected: Geometry, task: Task) -> None:
    """Refuse a mask that the platform or a reader of it could misunderstand.

    Args:
        mask: what the task returned.
        expected: the geometry of the image that was segmented.
        task: says which values a mask may hold.

    Raises:
        OutputError: another grid than the image's, another type than uint8, or other values.
    """
    if not mask.geometry.matches(expected):
        raise OutputError(
            f"{task.name} returned a mask that does not lie on the image's grid",
            fix="This is a fault of the task; please report it",
        )
    if mask.array_zyx.dtype != np.uint8:
        raise OutputError(
            f"{task.name} returned a mask of type {mask.array_zyx.dtype} instead of uint8",
            fix="This is a fault of the task; please report it",
        )
    unknown = sorted(set(np.unique(mask.array_zyx).tolist()) - set(task.mask_values))
    if unknown:
        raise OutputError(
            f"{task.name} returned a mask with the values {unknown}, "
            f"allowed are {list(task.mask_values)}",
            fix="This is a fault of the task; please report it",
        )


def check_output_folder(folder: Path, file_name: str) -> None:
    """Refuse a socket's folder that would hold more than one image afterwards.

    The platform empties ``/output`` before each case. On another machine an earlier result of the
    same case is replaced, but nothing else is deleted.

    Raises:
        OutputError: other files are there.
    """
    others = (
        [entry.name for entry in sorted(folder.iterdir()) if entry.name != file_name]
        if folder.is_dir()
        else []
    )
    if others:
        raise OutputError(
            f"the output folder already holds other files ({', '.join(others[:5])})",
            where=folder,
            fix="Empty it; the platform takes exactly one image from there",
        )


def write_mask(segmentation: Segmentation, image: Geometry, folder: Path, file_name: str) -> Path:
    """Write the mask, stamped with the geometry of the image it belongs to.

    Args:
        segmentation: a checked segmentation.
        image: the geometry of the image, which the file gets to the last digit.
        folder: the output socket's folder; it is made.
        file_name: ending in ``.mha``.

    Returns:
        The mask's path.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / file_name
    _make_folder(folder)
    write_image(Volume(segmentation.mask.array_zyx, image), path)
    return path


def write_json(value: Any, path: Path) -> None:
    """Write JSON as UTF-8 in one step; NaN and infinities become null.

    Raises:
        OutputError: it cannot be written.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    _make_folder(path.parent)
    try:
        text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"the file cannot be written ({error.strerror})", where=path, fix="Check the folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """The value with None in place of every NaN and infinity, tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be made ({error.strerror})",
            where=folder,
            fix="Check that the output is writable for this user",
        ) from error
