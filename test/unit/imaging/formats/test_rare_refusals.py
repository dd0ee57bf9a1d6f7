"""Files that break a format in ways which the tests of each format do not have."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from gc_panther.case import Geometry
from gc_panther.errors import InputError
from gc_panther.imaging import images
from gc_panther.imaging.formats.header import FormatError
from gc_panther.imaging.formats.pixels import read_raw
from gc_panther.imaging.images import check_mask_format, read_image

ARRAY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "DimSize = 6 5 4\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
)
NRRD = (
    "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: raw\n"
)


def refused(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_image(path)


def test_what_follows_the_place_of_the_pixels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(ARRAY.tobytes())
    head = f"{META}ElementDataFile = a.raw\n".encode()
    (tmp_path / "good.mhd").write_bytes(head)
    assert np.array_equal(read_image(tmp_path / "good.mhd").array_zyx, ARRAY)
    refused(tmp_path / "a.mhd", head + b"more", "something follows ElementDataFile")
    head = f"{NRRD}data file: a.raw\n\n".encode()
    (tmp_path / "good.nhdr").write_bytes(head)
    assert np.array_equal(read_image(tmp_path / "good.nhdr").array_zyx, ARRAY)
    refused(tmp_path / "a.nhdr", head + b"more", "something follows its header")


def test_numbers_of_axes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    flat = f"{META.replace('NDims = 3', 'NDims = 2')}ElementDataFile = LOCAL\n".encode()
    refused(tmp_path / "a.mha", flat + ARRAY.tobytes(), "DimSize has 3 numbers, and NDims says 2")
    twice = f"{NRRD}spacings: 1 1 1\n\n".encode()
    refused(tmp_path / "a.nrrd", twice + ARRAY.tobytes(), "says the spacing twice")
    unknown = META.replace("MET_SHORT", "MET_LONG_DOUBLE") + "ElementDataFile = LOCAL\n"
    refused(tmp_path / "c.mha", unknown.encode() + ARRAY.tobytes(), "MET_LONG_DOUBLE")
    without_encoding = NRRD.replace("encoding: raw\n", "") + "\n"
    refused(
        tmp_path / "c.nrrd", without_encoding.encode() + ARRAY.tobytes(), "lacks encoding|encoding"
    )
    empty = f"{NRRD.replace('6 5 4', '6 5 0')}\n".encode()
    refused(tmp_path / "b.nrrd", empty, "sizes|not a volume|damaged")


def test_a_size_of_the_compressed_pixels_may_be_missing(tmp_path: Path) -> None:
    head = f"{META}CompressedData = True\nElementDataFile = LOCAL\n".encode()
    (tmp_path / "a.mha").write_bytes(head + zlib.compress(ARRAY.tobytes()))
    assert np.array_equal(read_image(tmp_path / "a.mha").array_zyx, ARRAY)


def test_nifti_of_rare_types_and_damaged_streams(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(ARRAY.T, np.eye(4))
    nibabel.save(image, tmp_path / "good.nii")
    whole = bytearray((tmp_path / "good.nii").read_bytes())
    # Pixels that do not begin at a multiple of their size.
    odd = bytearray(whole[:352] + b"\0" + whole[352:])
    odd[108:112] = struct.pack("<f", 353.0)
    (tmp_path / "odd.nii.gz").write_bytes(gzip.compress(bytes(odd)))
    assert np.array_equal(read_image(tmp_path / "odd.nii.gz").array_zyx, ARRAY)
    # 16 bytes per voxel: NIfTI's float128, which numpy has under another layout.
    whole[70:74] = struct.pack("<hh", 1536, 128)
    refused(tmp_path / "a.nii", bytes(whole), "float128|is not read|bits")
    stream = bytearray(gzip.compress(bytes(whole)))
    stream[10:40] = b"\xff" * 30
    refused(tmp_path / "b.nii.gz", bytes(stream), "damaged")


class Shrinking(io.BytesIO):
    """A file that has lost its end since its size was asked for."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(buffer[:-1])


def test_a_file_that_changes_while_it_is_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc_panther.imaging.formats.pixels.stored_bytes", lambda file: 20)
    with pytest.raises(FormatError, match="changed while it was read"):
        read_raw(Shrinking(bytes(20)), 10, np.dtype(np.int16))


def test_tiff_of_other_bits_or_without_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ARRAY.astype(np.uint8), photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = {name: tags[name].valueoffset for name in ("BitsPerSample", "StripByteCounts")}
    whole = path.read_bytes()

    def changed(name: str, value: int) -> bytes:
        start = places[name]
        return whole[:start] + struct.pack("<H", value) + whole[start + 2 :]

    refused(tmp_path / "b.tif", changed("BitsPerSample", 4), "bits|damaged")
    refused(tmp_path / "c.tif", changed("StripByteCounts", 3), "ends early|damaged")


def test_a_format_that_cannot_read_its_own_blank_mask_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(path: Path) -> None:
        raise InputError("the trial is damaged")

    monkeypatch.setattr(images, "read_image", damaged)
    with pytest.raises(Exception, match=r"cannot hold the image's grid \(the trial is damaged\)"):
        check_mask_format(tmp_path / "m.nii", Geometry((3, 4, 5), (1.0, 1.0, 1.0)))
