"""NRRD: ``.nrrd``, and ``.nhdr`` with a second file for the pixels; the header's fields by pynrrd.

https://teem.sourceforge.net/nrrd/format.html. Accepted are three-dimensional scalars with a space
that says how the image lies in the patient, raw or gzip, nothing skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.formats.header import FormatError, Header, pixel_file, text_lines
from gc_panther.imaging.formats.pixels import read_compressed, read_raw, stored_bytes

_MAGIC = re.compile(r"NRRD000[1-5]")
#: A field of the format, or a key of the user's.
_FIELD = re.compile(r"([a-z][a-z ]*[a-z]): (.*)")
_KEY = re.compile(r"[^:]+:=.*")
#: Fields that place the pixels, and those that only describe them.
_USED = {
    "type", "dimension", "sizes", "endian", "encoding", "data file", "datafile",
    "space", "space dimension", "space directions", "space origin", "spacings", "kinds",
}  # fmt: skip
_IGNORED = {
    "content", "min", "max", "old min", "oldmin", "old max", "oldmax", "thicknesses", "centers",
    "centerings", "labels", "units", "number", "space units", "measurement frame", "sample units",
    "sampleunits",
}  # fmt: skip
_TYPES: dict[np.dtype, str] = {
    np.dtype("i1"): "signed char|int8|int8_t",
    np.dtype("u1"): "uchar|unsigned char|uint8|uint8_t",
    np.dtype("i2"): "short|short int|signed short|signed short int|int16|int16_t",
    np.dtype("u2"): "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    np.dtype("i4"): "int|signed int|int32|int32_t",
    np.dtype("u4"): "uint|unsigned int|uint32|uint32_t",
    np.dtype("i8"): "longlong|long long|long long int|signed long long|signed long long int"
    "|int64|int64_t",
    np.dtype("u8"): "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    np.dtype("f4"): "float",
    np.dtype("f8"): "double",
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names.split("|")}
#: Signs that bring a space's axes x, y, z to LPS.
_TO_LPS = {
    "left-posterior-superior": (1.0, 1.0, 1.0), "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0), "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0), "las": (1.0, -1.0, 1.0),
}  # fmt: skip
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
#: Kinds of an axis along which voxels lie.
_PLACES = {"domain", "space", "none", "???"}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}


def read_nrrd(path: Path, check: Callable[[Header], Geometry]) -> Volume:
    """Read a file.

    Args:
        path: the ``.nrrd`` or ``.nhdr`` file.
        check: refuses what the header says, or returns the image's grid; called before memory is
            taken for the pixels.

    Raises:
        FormatError: the file breaks the format.
    """
    with path.open("rb") as file:
        lines = []
        for line in text_lines(file):
            if not line:
                break
            lines.append(line)
        fields = _fields(lines)
        header = _header(fields)
        geometry = check(header)
        name = fields.get("data file", fields.get("datafile"))
        if name is None:
            pixels = _pixels(file, fields, header)
        elif path.suffix.lower() != ".nhdr":
            raise FormatError(f"it refers to pixels elsewhere, {name[:80]!r}")
        elif stored_bytes(file):
            raise FormatError("something follows its header")
        else:
            with pixel_file(path, name).open("rb") as second:
                pixels = _pixels(second, fields, header)
    return Volume(pixels.reshape(geometry.shape_zyx), geometry)


def _fields(lines: list[str]) -> Mapping[str, Any]:
    import nrrd

    if not lines or _MAGIC.fullmatch(lines[0]) is None:
        raise FormatError("it does not begin as NRRD 1 to 5")
    wanted = [line for line in lines[1:] if not line.startswith("#") and not _KEY.fullmatch(line)]
    for line in wanted:
        match = _FIELD.fullmatch(line)
        if match is None or match[1] not in _USED | _IGNORED:
            raise FormatError(f"a line of its header is not read: {line[:60]!r}")
    used = [line for line in wanted if line.split(":")[0] in _USED]
    try:
        with np.errstate(invalid="ignore"):
            fields: Mapping[str, Any] = nrrd.read_header([lines[0], *used])
    # Whatever its parsers stumble over.
    except (nrrd.NRRDError, ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"its header is not understood, {error}") from error
    return fields


def _header(fields: Mapping[str, Any]) -> Header:
    for key in ("type", "dimension", "sizes", "encoding"):
        if key not in fields:
            raise FormatError(f"its header lacks {key}")
    size = tuple(int(n) for n in fields["sizes"])
    if len(size) != fields["dimension"] or min(size) < 1:
        raise FormatError(f"its header says a size of {'×'.join(map(str, size))[:60]}")
    dtype = _DTYPES.get(fields["type"])
    if dtype is None:
        raise FormatError(f"its type {fields['type'][:60]!r} is not read")
    if dtype.itemsize > 1:
        if fields.get("endian") not in _ORDERS:
            raise FormatError("its header does not say the order of bytes")
        dtype = dtype.newbyteorder(_ORDERS[fields["endian"]])
    if fields["encoding"] not in _ENCODINGS:
        raise FormatError(f"its encoding {fields['encoding'][:60]!r} is not read")
    kinds = fields.get("kinds", [])
    if len(size) != 3:
        # It will be refused for that, whatever its grid.
        vector = len(size) == 4 and kinds and kinds[0] not in ("domain", "space", "time")
        return Header(size[1:], dtype, components=size[0]) if vector else Header(size, dtype)
    if not set(kinds) <= _PLACES:
        raise FormatError(f"its kinds {' '.join(kinds)[:60]!r} are not those of a volume")
    space = str(fields.get("space", "")).lower()
    if space not in _TO_LPS or "space directions" not in fields:
        raise FormatError("it does not say how the image lies in the patient (space)")
    if "spacings" in fields:
        raise FormatError("its header says the spacing twice")
    signs = np.asarray(_TO_LPS[space])
    steps = np.asarray(fields["space directions"], float)
    origin = np.asarray(fields.get("space origin", np.zeros(3)), float)
    if steps.shape != (3, 3) or origin.shape != (3,):
        raise FormatError("its space directions or its space origin are not three-dimensional")
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(steps, axis=1)
        # A row of the file is the step along an axis, which is a column here.
        direction = ((steps / spacing[:, None]) * signs).T
    origin = origin * signs
    return Header(
        size,
        dtype,
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(value) for value in direction.ravel()),
    )


def _pixels(file: Any, fields: Mapping[str, Any], header: Header) -> np.ndarray:
    count = int(np.prod(header.size, dtype=object))
    if _ENCODINGS[fields["encoding"]] == "raw":
        return read_raw(file, count, header.dtype)
    return read_compressed(file, count, header.dtype, "gzip")
