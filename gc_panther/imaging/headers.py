"""What an image file's header may ask for: checked before a library acts on it.

An image comes from anywhere, and its header is obeyed: it names the file that holds the pixels
(``/etc/passwd``, or a pattern that MetaIO hands to ``sprintf``), and how much memory to take.
Formats: https://itk.org/Wiki/ITK/MetaIO/Documentation, https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from gc_panther.errors import InputError

#: Voxels of the largest image that is taken, as stored or as resampled for a network: 512×512×1024.
#: PANTHER's largest have 19 million.
MOST_VOXELS = 2**28
#: Bytes in which a text header has to end.
_LONGEST_HEADER = 1 << 20
#: Which of ITK's readers an ending stands for; others recognise files by their content.
_READERS = {
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".tif": "TIFFImageIO",
    ".tiff": "TIFFImageIO",
}
#: MetaIO and teem take the first of these; what follows is the pixels or their place.
_META_DATA = re.compile(rb"ElementDataFile")
_META_PLACE = re.compile(rb"ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*\r?(?:\n|$)")
_META_COMPRESSED = re.compile(rb"CompressedDataSize\s*[=:]\s*(\d+)")
_NRRD_PLACE = re.compile(
    rb"^[ \t]*data ?file[ \t]*:=?[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_PLAIN_NAME = re.compile(r"[^/\\%\s][^/\\%]*")
_FIX = "Export the image again as one .mha or .nii.gz file"


def check_header(path: Path, reader: str) -> None:
    """Refuse a header that leads out of the image, before it is read in earnest.

    Pixels in a second file are taken from the header's own folder only, and only for the endings
    that announce it (``.mhd``, ``.nhdr``).

    Args:
        path: the image file.
        reader: name of the ITK class that would read it.

    Raises:
        InputError: the header names another file, is endless, or is of another format than the
            file's ending says.
    """
    ending = path.suffix.lower()
    if _READERS.get(ending, reader) != reader:
        raise InputError(
            f"the image file is damaged, or cannot be read as what its ending says ({ending})",
            where=path,
            fix=_FIX,
        )
    if reader == "MetaImageIO":
        _check_metaimage(path)
    elif reader == "NrrdImageIO":
        _check_nrrd(path)


def check_voxels(size: Sequence[int], *, where: str | Path, doing: str = "") -> None:
    """Refuse a grid that no scan has, before memory is taken for it.

    Args:
        size: voxels along each axis.
        where: what the error message calls the image.
        doing: which grid it is, such as "resampled for the network"; empty for the stored one.

    Raises:
        InputError: it has more than :data:`MOST_VOXELS`.
    """
    if math.prod(map(int, size)) > MOST_VOXELS:
        shape = "×".join(f"{int(n):.6g}" for n in size)
        raise InputError(
            f"the image is too large{f' when {doing}' if doing else ''} "
            f"({shape} voxels; at most {MOST_VOXELS / 1e6:.0f} million are taken)",
            where=where,
            fix="Check its size and its spacing (mm), and crop or resample it",
        )


def _check_metaimage(path: Path) -> None:
    header = _start_of(path)
    found = _META_DATA.search(header)
    # Anywhere but at a line's start, the word and what MetaIO makes of it may differ.
    at_start = found is not None and (found.start() == 0 or header[found.start() - 1] == 0x0A)
    place = _META_PLACE.match(header, found.start()) if found and at_start else None
    if place is None:
        raise InputError(
            "the image file is damaged, incomplete or cannot be read "
            "(its header does not say where the pixels are)",
            where=path,
            fix=_FIX,
        )
    compressed = _META_COMPRESSED.search(header, 0, place.start())
    name = place[1].decode("latin-1")
    if name != "LOCAL":
        _check_second_file(path, name, allowed=path.suffix.lower() == ".mhd")
    elif compressed and int(compressed[1]) > path.stat().st_size:
        raise InputError(
            "the image file is damaged, incomplete or cannot be read "
            f"(its header promises {int(compressed[1])} bytes of pixels, "
            f"the whole file has {path.stat().st_size})",
            where=path,
            fix="Copy or export it again",
        )


def _check_nrrd(path: Path) -> None:
    header = re.split(rb"\r?\n\r?\n", _start_of(path), maxsplit=1)[0]
    for place in _NRRD_PLACE.finditer(header):
        name = place[1].decode("latin-1").strip()
        _check_second_file(path, name, allowed=path.suffix.lower() == ".nhdr")


def _check_second_file(path: Path, name: str, *, allowed: bool) -> None:
    """The name of a file beside the header's, and nothing that could be anything else."""
    plain = _PLAIN_NAME.fullmatch(name) is not None and name.split()[0] != "LIST"
    inside = plain and (path.parent / name).resolve().parent == path.parent.resolve()
    if not (allowed and inside):
        raise InputError(
            f"the header wants the pixels from elsewhere ({name[:80]!r})",
            where=path,
            fix=_FIX,
        )


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_HEADER)
