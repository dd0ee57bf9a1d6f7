"""TIFF, of whose pages the slices of a volume are; read by tifffile.

TIFF says nothing about the position of an image, and nothing about the distance of its slices: the
axes are taken as x, y, z, the slices as 1 mm apart, as ITK takes them.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.formats.header import FormatError, Header

#: A reduced copy of another page, or a mask.
_REDUCED, _MASK = 1, 4
#: Millimetres of TIFF's units of length: none, inch, centimetre.
_UNIT_MM = {1: None, 2: 25.4, 3: 10.0}
#: No compression, and both codes of deflate; the others do not reveal damage or truncation.
_RAW = 1
_COMPRESSIONS = (_RAW, 8, 32946)


def read_tiff(path: Path, check: Callable[[Header], Geometry]) -> Volume:
    """Read a file.

    Args:
        path: the file.
        check: refuses what the header says, or returns the image's grid; called before memory is
            taken for the pixels.

    Raises:
        FormatError: the file breaks the format.
    """
    import tifffile

    # It logs what is wrong with a file, and goes on.
    tifffile.logger().setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as file:
            pages = _pages(file)
            header = _header(pages)
            geometry = check(header)
            array_zyx = np.empty(geometry.shape_zyx, header.dtype.newbyteorder("="))
            for page, plane in zip(pages, array_zyx, strict=True):
                _check_segments(page, path.stat().st_size)
                plane[...] = page.asarray().reshape(plane.shape)
    except (InputError, FormatError, OSError, MemoryError):
        raise
    # tifffile meets a damaged file with whatever Python raises.
    except Exception as error:
        raise FormatError("its pages cannot be decoded") from error
    return Volume(array_zyx, geometry)


def _pages(file: Any) -> list[Any]:
    """The pages that are slices; every one that the file names, with all of its tags."""
    pages: list[Any] = []
    following = None
    seen: set[int] = set()
    for page in file.pages:
        if page.offset in seen or following not in (None, page.offset):
            raise FormatError("its pages do not follow each other")
        seen.add(page.offset)
        tags, following = _directory(file, page.offset)
        if tags != len(page.tags):
            raise FormatError("a page is not described completely")
        if not page.subfiletype & (_REDUCED | _MASK):
            pages.append(page)
    # tifffile stops where a page should follow and does not.
    if not pages or following:
        raise FormatError("pages are missing")
    return pages


def _directory(file: Any, offset: int) -> tuple[int, int]:
    """How many tags describe a page, and where the next one's directory is; 0 behind the last."""
    stream, form = file.filehandle, file.tiff
    stream.seek(offset)
    (tags,) = struct.unpack(form.tagnoformat, stream.read(form.tagnosize))
    stream.seek(offset + form.tagnosize + tags * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, stream.read(form.offsetsize))
    return tags, following


def _header(pages: list[Any]) -> Header:
    first = pages[0]
    kinds = {(page.shape, page.dtype, page.samplesperpixel, page.photometric) for page in pages}
    if len(kinds) != 1:
        raise FormatError("its pages are of different sizes or types")
    if first.dtype is None or int(first.compression) not in _COMPRESSIONS:
        raise FormatError("its pixels are compressed otherwise than by deflate")
    if first.bitspersample != first.dtype.itemsize * 8:
        raise FormatError(f"its pixels have {first.bitspersample} bits")
    size = (int(first.imagewidth), int(first.imagelength), len(pages))
    if len(pages) == 1:
        size = size[:2]  # type: ignore[assignment]
    x, y = _spacing(first)
    dtype = np.dtype(first.dtype)
    return Header(size, dtype, (x, y, 1.0), components=int(first.samplesperpixel))


def _spacing(page: Any) -> tuple[float, float]:
    """Of the pixels, mm; 1 where the file does not say it."""
    unit = page.tags.get("ResolutionUnit")
    millimetres = _UNIT_MM.get(2 if unit is None else int(unit.value))
    spacing = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        above, below = tag.value if tag is not None else (0, 1)
        known = millimetres is not None and above and below
        spacing.append(millimetres * below / above if known and millimetres else 1.0)
    return spacing[0], spacing[1]


def _check_segments(page: Any, length: int) -> None:
    """Refuse a page whose strips or tiles are missing or cut; some would be read as zeros."""
    places, counts = page.dataoffsets, page.databytecounts
    if not places or len(places) != len(counts) or len(places) != int(np.prod(page.chunked)):
        raise FormatError("parts of a page are missing")
    if any(
        place <= 0 or count <= 0 or place + count > length
        for place, count in zip(places, counts, strict=True)
    ):
        raise FormatError("a page ends early")
    if int(page.compression) == _RAW and sum(counts) < page.nbytes:
        raise FormatError("a page ends early")
