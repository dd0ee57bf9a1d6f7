"""MetaImage, the platform's own format: ``.mha``, and ``.mhd`` with a second file for the pixels.

https://itk.org/Wiki/ITK/MetaIO/Documentation. Accepted is what ITK and the platform write: binary
pixels, each key once, the place of the pixels last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.formats.header import (
    IDENTITY,
    FormatError,
    Header,
    numbers,
    pixel_file,
    text_lines,
    whole_numbers,
)
from gc_panther.imaging.formats.pixels import read_compressed, read_raw, stored_bytes

_LINE = re.compile(r"([^=:\s][^=]*?)\s*=\s*(.*?)\s*")
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    # Four bytes, whatever a C compiler says.
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
#: Other names of keys.
_SAME = {
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
#: Keys that change what the pixels mean, and the only value with which they are read.
_FIXED = {
    "ObjectType": ("Image",),
    "BinaryData": ("True",),
    "HeaderSize": ("0",),
    "ElementToIntensityFunctionSlope": ("1",),
    "ElementToIntensityFunctionOffset": ("0",),
    "DistanceUnits": ("mm", "MET_DISTANCE_UNITS_MM"),
}
_PLACE = "ElementDataFile"


def read_metaimage(path: Path, check: Callable[[Header], Geometry]) -> Volume:
    """Read a file.

    Args:
        path: the ``.mha`` or ``.mhd`` file.
        check: refuses what the header says, or returns the image's grid; called before memory is
            taken for the pixels.

    Raises:
        FormatError: the file breaks the format.
    """
    with path.open("rb") as file:
        fields = _fields(file)
        header = _header(fields)
        geometry = check(header)
        name = fields[_PLACE]
        if name == "LOCAL":
            pixels = _pixels(file, fields, header)
        elif path.suffix.lower() != ".mhd":
            raise FormatError(f"it refers to pixels elsewhere, {name[:80]!r}")
        elif stored_bytes(file):
            raise FormatError(f"something follows {_PLACE}, which has to be the last line")
        else:
            with pixel_file(path, name).open("rb") as second:
                pixels = _pixels(second, fields, header)
    return Volume(pixels.reshape(geometry.shape_zyx), geometry)


def _fields(file: BinaryIO) -> dict[str, str]:
    """The header's keys and values, those with several names under the common one."""
    fields: dict[str, str] = {}
    for line in text_lines(file):
        match = _LINE.fullmatch(line)
        if match is None:
            raise FormatError(f"a line of its header is not KEY = VALUE: {line[:60]!r}")
        key = _SAME.get(match[1], match[1])
        if key in fields:
            raise FormatError(f"its header says {key[:60]} twice")
        fields[key] = match[2]
        if key == _PLACE:
            return fields
    raise FormatError("its header does not say where the pixels are")


def _header(fields: dict[str, str]) -> Header:
    for key, values in _FIXED.items():
        if fields.get(key, values[0]) not in values:
            raise FormatError(f"{key} = {fields[key][:60]!r} is not read")
    (axes,) = whole_numbers(_needed(fields, "NDims"), "NDims", 1)
    size = whole_numbers(_needed(fields, "DimSize"), "DimSize")
    if len(size) != axes:
        raise FormatError(f"DimSize has {len(size)} numbers, and NDims says {axes}")
    kind = _needed(fields, "ElementType")
    if kind not in _TYPES:
        raise FormatError(f"ElementType = {kind[:60]!r} is not read")
    order = ">" if _truth(fields, "BinaryDataByteOrderMSB") else "<"
    (components,) = whole_numbers(
        fields.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", 1
    )
    header = Header(size, np.dtype(order + _TYPES[kind]), components=components)
    if axes != 3 or components != 1:
        # It will be refused for that, whatever its grid.
        return header
    x, y, z = numbers(_needed(fields, "ElementSpacing"), "ElementSpacing", 3)
    origin = numbers(fields.get("Offset", "0 0 0"), "Offset", 3)
    matrix = numbers(
        fields.get("TransformMatrix", " ".join(map(str, IDENTITY))), "TransformMatrix", 9
    )
    # A row of the file is the direction of an axis, which is a column here.
    direction = tuple(np.reshape(matrix, (3, 3)).T.ravel().tolist())
    return Header(size, header.dtype, (x, y, z), (origin[0], origin[1], origin[2]), direction)


def _pixels(file: BinaryIO, fields: dict[str, str], header: Header) -> np.ndarray:
    count = int(np.prod(header.size, dtype=object))
    if not _truth(fields, "CompressedData"):
        return read_raw(file, count, header.dtype)
    if "CompressedDataSize" in fields:
        (promised,) = whole_numbers(fields["CompressedDataSize"], "CompressedDataSize", 1)
        if promised != stored_bytes(file):
            raise FormatError(
                f"its header promises {promised} bytes of pixels, {stored_bytes(file)} are there"
            )
    return read_compressed(file, count, header.dtype, "zlib")


def _needed(fields: dict[str, str], key: str) -> str:
    if key not in fields:
        raise FormatError(f"its header lacks {key}")
    return fields[key]


def _truth(fields: dict[str, str], key: str) -> bool:
    value = fields.get(key, "False")
    if value not in ("True", "False"):
        raise FormatError(f"{key} is neither True nor False: {value[:60]!r}")
    return value == "True"
