"""What is put into ``/output``: one checked mask and ``results.json``, all of it or nothing."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gc_panther.case import Geometry, Segmentation, Volume
from gc_panther.errors import OutputError
from gc_panther.files import publish, whole_file
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


def encode_mask(segmentation: Segmentation, image: Geometry) -> bytes:
    """The mask as a compressed MetaImage, with the geometry of the image to the last digit.

    Args:
        segmentation: a checked segmentation.
        image: the geometry of the image it belongs to.

    Raises:
        OutputError: the system's folder for temporary files cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{MASK_ENDING}"
        write_image(Volume(segmentation.mask.array_zyx, image), path)
        return path.read_bytes()


def publish_case(mask: bytes, mask_path: Path, results: Any, results_path: Path) -> None:
    """Fill the output folder. The mask is the last to appear: where it is, everything is.

    Args:
        mask: of :func:`encode_mask`.
        mask_path: its file in the socket's folder, which is made.
        results: JSON-compatible; NaN and infinities become null.
        results_path: file of the results.

    Raises:
        OutputError: something cannot be written.
    """
    for content, path in ((_as_json(results), results_path), (mask, mask_path)):
        _make_folder(path.parent)
        try:
            publish(content, path)
        except OSError as error:
            raise OutputError(
                f"the file cannot be written ({error.strerror})",
                where=path,
                fix="Check the folder and the free space",
            ) from error


def write_json(value: Any, path: Path) -> None:
    """Write JSON as UTF-8 in one step; NaN and infinities become null.

    Raises:
        OutputError: it cannot be written.
    """
    _make_folder(path.parent)
    try:
        with whole_file(path) as file:
            file.write(_as_json(value))
    except OSError as error:
        raise OutputError(
            f"the file cannot be written ({error.strerror})", where=path, fix="Check the folder"
        ) from error


def _as_json(value: Any) -> bytes:
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


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
