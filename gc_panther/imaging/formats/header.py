"""What every format's header says, and how text headers are split into lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gc_panther.case import XYZ

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
#: Bytes of the longest text header; those of DICOM conversions have some ten thousand.
_LONGEST_HEADER = 1 << 20
#: Axes of the most that is read, to say what kind of image it is.
_MOST_AXES = 10
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_PLAIN_NAME = re.compile(r"[^/\\%\s][^/\\%]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class FormatError(ValueError):
    """A file breaks its format, or is of a kind of it that is not read; says how, in one line."""


@dataclass(frozen=True)
class Header:
    """An image as its header describes it; nothing in it has been checked yet.

    Attributes:
        size: voxels along each axis, x first.
        dtype: of the stored pixels, byte order included.
        spacing_xyz: distance between voxel centres, mm.
        origin_xyz: centre of the first voxel, mm (LPS).
        direction: 3×3 direction cosines (LPS), row-major.
        components: values per voxel.
        result: type of the pixels that are handed out, where it is not that of the stored ones.
    """

    size: tuple[int, ...]
    dtype: np.dtype
    spacing_xyz: XYZ = (1.0, 1.0, 1.0)
    origin_xyz: XYZ = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    components: int = 1
    result: np.dtype | None = None


def text_lines(file: BinaryIO) -> Iterator[str]:
    """The lines of a text header, without their ends; the file stays behind the last one.

    Raises:
        FormatError: the header is endless, or a line holds control characters.
    """
    left = _LONGEST_HEADER
    while True:
        line = file.readline(left + 1)
        left -= len(line)
        if left < 0:
            raise FormatError("its header has no end")
        if not line:
            return
        # A lone carriage return ends a line for some readers and not for others.
        bare = line.removesuffix(b"\n").removesuffix(b"\r")
        if _CONTROL.search(bare):
            raise FormatError("its header holds control characters")
        yield bare.decode("latin-1")


def numbers(text: str, key: str, count: int) -> tuple[float, ...]:
    """So many decimal numbers with blanks between them.

    Raises:
        FormatError: there are others, or something else.
    """
    words = text.split(maxsplit=count)
    if len(words) != count or not all(_NUMBER.fullmatch(word) for word in words):
        raise FormatError(f"{key} is not {count} number{'s' * (count > 1)}: {text[:60]!r}")
    return tuple(float(word) for word in words)


def whole_numbers(text: str, key: str, count: int | None = None) -> tuple[int, ...]:
    """So many whole numbers from 0 on, or at most as many as an image has axes.

    Raises:
        FormatError: there are others, or something else.
    """
    words = text.split(maxsplit=_MOST_AXES)
    fits = len(words) == count if count is not None else 0 < len(words) <= _MOST_AXES
    if not fits or not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        raise FormatError(f"{key} is not understood: {text[:60]!r}")
    return tuple(int(word) for word in words)


def pixel_file(header: Path, name: str) -> Path:
    """The file with the pixels, which has to be in the header's own folder.

    Raises:
        FormatError: the name could be anything else than that of such a file.
    """
    path = header.parent / name
    plain = _PLAIN_NAME.fullmatch(name) is not None and name.split()[0] != "LIST"
    if not plain or path.resolve().parent != header.parent.resolve() or not path.is_file():
        raise FormatError(f"it refers to pixels elsewhere, {name[:80]!r}")
    return path
