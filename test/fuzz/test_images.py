"""Damaged and hostile image files of every format.

Each case takes a good file of SimpleITK's and changes it. Either it is refused in one line, or it
is an image: of finite numbers on a scanner's grid, of as many voxels as its bytes can hold, and
without a byte of a file that is none of its business. More cases::

    GC_PANTHER_FUZZ_CASES=10000 ./run_tests.sh --all -s test/fuzz/test_images.py
"""

from __future__ import annotations

import gzip
import random
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from harness import run_cases
from image_files import DTYPES, random_image

from gc_panther.case import Volume
from gc_panther.errors import InputError
from gc_panther.imaging.checks import MOST_MM, ORTHONORMAL_TOLERANCE, SPACING_MM
from gc_panther.imaging.images import READERS, read_image

# Hundreds of files for each format.
pytestmark = pytest.mark.slow

#: Bytes of the file that no image may show; they do not occur by chance.
CANARY = bytes(range(0xA1, 0xF1)) * 40
ZEROS_ZLIB, ZEROS_GZIP = zlib.compress(bytes(10**8), 1), gzip.compress(bytes(10**8), 1)
#: What numbers in headers are replaced by.
NUMBERS = [
    "0", "-1", "1", "2", "60", "1000", "32767", "32768", "65536", "2147483647", "2147483648",
    "4294967296", "9223372036854775807", "18446744073709551616", "1e308", "-1e308", "1e-308",
    "1e999", "1e-12", "nan", "-nan", "inf", "-inf", "NaN", "0x10", "1,5", "", "1 ", " ", "%n%n%s",
    "١", "1_0",
]  # fmt: skip
FLOATS = [0.0, -1.0, 1e30, -1e30, 1e-30, float("nan"), float("inf"), -float("inf"), 348.0, 352.0]
#: Lines that make some reader look elsewhere, or for more.
LINES = [
    "ElementDataFile = {canary}", "ElementDataFile = LOCAL", "ElementDataFile = LIST",
    "ElementDataFile = canary.raw", "ElementDataFile = canary%03d.raw 1 3 1", "data file: {canary}",
    "data file: canary.raw", "datafile: canary.raw", "data file: LIST", "Data File: {canary}",
    "content: a\rdata file: {canary}", "Comment = a\rElementDataFile = {canary}", "Foo",
    "Offset = 0 0", "NDims = 1000", "NDims = 1e308", "NDims = 60", "HeaderSize = -1",
    "HeaderSize = 100", "CompressedData = True", "CompressedDataSize = 0", "byte skip: -1",
    "byte skip: 4", "line skip: 3", "encoding: ascii", "encoding: hex", "encoding: gzip",
    "ElementNumberOfChannels = 3", "BinaryData = False", "kinds: vector domain domain", "#", "",
    "space: RAS", "spacings: 1 1 1", "key:=value", "\0", "a = \x7f", "Comment = \xff\xfe",
    "TransformMatrix = " + "1 " * 3600,
]  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_header(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(min(352, len(changed)))] = rng.choice((0, 1, 10, 13, 32, 127, 128, 255))
    return bytes(changed)


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice((b"\0", b"\n", bytes(1000), content, gzip.compress(bytes(10**6))))


def remove(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 2, 4, 100)) :]


def _lines(content: bytes) -> tuple[list[bytes], bytes]:
    """A text header's lines, and what follows; no lines where it has no text header."""
    end = re.search(rb"ElementDataFile = [^\n]*\n|\n\n", content)
    if end is None:
        return [], content
    return content[: end.end()].split(b"\n")[:-1], content[end.end() :]


def change_lines(content: bytes, rng: random.Random) -> bytes:
    lines, rest = _lines(content)
    if not lines:
        return flip_header(content, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                lines.insert(place, lines[rng.randrange(len(lines))])
            case 1:
                lines.insert(place, rng.choice(LINES).encode("latin-1"))
            case 2 if len(lines) > 1:
                del lines[place]
            case 3:
                other = rng.randrange(len(lines))
                lines[place], lines[other] = lines[other], lines[place]
            case _:
                cut = rng.randrange(len(lines[place]) + 1)
                extra = rng.choice((b"\r", b"\0", b"\t", b" ", b"\r\n", b"=", b":", b"%s"))
                lines[place] = lines[place][:cut] + extra + lines[place][cut:]
    return b"\n".join(lines) + b"\n" + rest


def change_numbers(content: bytes, rng: random.Random) -> bytes:
    lines, rest = _lines(content)
    if not lines:
        return change_fields(content, rng)
    text = b"\n".join(lines) + b"\n"
    found = list(re.finditer(rb"-?\d+\.?\d*(e[-+]?\d+)?", text))
    place = rng.choice(found)
    number = rng.choice(NUMBERS).encode()
    return text[: place.start()] + number + text[place.end() :] + rest


def change_fields(content: bytes, rng: random.Random) -> bytes:
    """A number of a binary header: NIfTI's fields, or a TIFF directory's."""
    zipped = content[:2] == b"\x1f\x8b"
    changed = bytearray(gzip.decompress(content) if zipped else content)
    if len(changed) < 16:
        return bytes(changed)
    place = 2 * rng.randrange(min(352, len(changed) - 8) // 2)
    match rng.randrange(3):
        case 0:
            struct.pack_into("<f", changed, place - place % 4, rng.choice(FLOATS))
        case 1:
            struct.pack_into("<h", changed, place, rng.choice((0, 1, -1, 7, 32767, -32768, 4, 16)))
        case _:
            struct.pack_into("<i", changed, place, rng.choice((0, -1, 2**31 - 1, 5, 348, 540)))
    return gzip.compress(changed, 1) if zipped else bytes(changed)


def other_order(content: bytes, rng: random.Random) -> bytes:
    for old, new in ((b"MSB = False", b"MSB = True"), (b"endian: little", b"endian: big")):
        content = content.replace(old, new)
    return content


def bomb(content: bytes, rng: random.Random) -> bytes:
    """Pixels that grow: as gzip or zlib, where the format has either."""
    lines, _ = _lines(content)
    if lines:
        pixels = ZEROS_ZLIB if b"ElementDataFile" in lines[-1] else ZEROS_GZIP
        return b"\n".join(lines) + b"\n" + pixels
    if content[:2] == b"\x1f\x8b":
        # As another member, or in the same one.
        if rng.random() < 0.5:
            return content + ZEROS_GZIP
        return gzip.compress(gzip.decompress(content) + bytes(10**6), 1)
    return content + bytes(10**6)


MUTATIONS: list[Mutation] = [
    flip_bytes, flip_header, truncate, append, remove, change_lines, change_lines, change_lines,
    change_numbers, change_numbers, change_fields, other_order, bomb,
]  # fmt: skip


def make_file(folder: Path, ending: str, rng: random.Random) -> tuple[Path, sitk.Image, bool]:
    """A good file; the image, and whether its pixels are compressed."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    types = ("u1", "i1", "u2", "i2", "f4") if ending == ".tif" else DTYPES
    image = random_image(numbers, np.dtype(rng.choice(types)))
    compress = ending not in (".tif", ".nii") and rng.random() < 0.5
    path = folder / f"image{ending}"
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path, image, compress or ending == ".nii.gz"


def check_volume(path: Path, volume: Volume, places: int) -> None:
    """What is true of every image that is accepted."""
    array, geometry = volume.array_zyx, volume.geometry
    assert array.shape == geometry.shape_zyx
    assert array.dtype.isnative and array.dtype.kind in "iuf"
    assert np.isfinite(array).all()
    assert array.size <= 8 * places, "more voxels than its bytes can hold"
    assert CANARY[:16] not in array.tobytes(), "another file was read"
    assert all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in geometry.spacing_xyz)
    assert max(np.multiply(geometry.size_xyz, geometry.spacing_xyz)) <= MOST_MM
    assert np.isfinite(geometry.origin_xyz).all()
    axes = np.reshape(geometry.direction, (3, 3))
    assert np.abs(axes.T @ axes - np.eye(3)).max() <= ORTHONORMAL_TOLERANCE


def outcome(path: Path) -> Volume | None:
    """The image, or None where it is refused as it should be."""
    try:
        return read_image(path)
    except InputError as error:
        message = str(error)
        assert "\n" not in message and message.isprintable(), message
        assert str(path) in message
        assert len(message) < 700 + len(str(path)), message
        return None


def check_mutated(ending: str, rng: random.Random) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        # Next to the image only under names that a header has to be tricked into.
        canary = folder / "secret"
        canary.write_bytes(CANARY)
        if ending not in (".mhd", ".nhdr"):
            (folder / "canary.raw").write_bytes(CANARY)
        path, image, compressed = make_file(folder, ending, rng)
        mutation = rng.choice(MUTATIONS)
        victim = path
        if ending in (".mhd", ".nhdr") and rng.random() < 0.3:
            victim = next(one for one in folder.iterdir() if one not in (path, canary))
        content = victim.read_bytes()
        changed = mutation(content, rng).replace(b"{canary}", str(canary).encode())
        victim.write_bytes(changed)
        volume = outcome(path)
        if volume is None:
            return
        places = sum(one.stat().st_size for one in folder.iterdir() if one != canary)
        if compressed:
            # Nothing is as small as a thousandth.
            places *= 1000
        check_volume(path, volume, places)
        if compressed and mutation in (flip_bytes, truncate, remove):
            sound = _same_or_header(content, changed, volume, image)
            assert sound, "damaged pixels were accepted"
    finally:
        shutil.rmtree(folder)


def _same_or_header(old: bytes, new: bytes, volume: Volume, image: sitk.Image) -> bool:
    """Whether pixels are as they were, or the change has to do with the header."""
    array = sitk.GetArrayFromImage(image)
    same = (
        volume.array_zyx.dtype.itemsize == array.dtype.itemsize
        and volume.array_zyx.tobytes() == array.tobytes()
    )
    lines, _ = _lines(old)
    header = sum(len(line) + 1 for line in lines)
    return same or old[:header] != new[:header]


@pytest.mark.parametrize("ending", [ending for ending in READERS if ending != ".tiff"])
def test_damaged_and_hostile_files(ending):
    failures = run_cases(lambda rng: check_mutated(ending, rng), 60, memory_bytes=1 << 30)
    assert not failures, "\n".join(map(str, failures[:20]))
