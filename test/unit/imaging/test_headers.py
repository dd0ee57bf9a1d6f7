"""Headers that ask for what no image needs."""

import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.headers import MOST_VOXELS, check_header, check_voxels
from gc_panther.imaging.images import read_image
from gc_panther.imaging.resampling import resample

SECRET = b"root:x:0:0:the content of a file that is none of an image's business" * 20


def metaimage(path, *, size="10 10 10", kind="MET_UCHAR", data="LOCAL", pixels=b"", extra=""):
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"{extra}TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
        f"DimSize = {size}\nElementType = {kind}\n"
    )
    line = data if data.startswith("ElementDataFile") else f"ElementDataFile = {data}"
    path.write_bytes(f"{header}{line}\n".encode() + pixels)
    return path


def assert_refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize(
    "data",
    [
        "{secret}",
        "elsewhere/secret",
        "../{folder}/elsewhere/secret",
        "LIST",
        "LIST 2",
        "%s%s%s%n 1 2 1",
        "slice%03d.raw 1 10 1",
        "ElementDataFile : {secret}",
        "ElementDataFile={secret}",
    ],
)
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_pixels_from_elsewhere_are_not_read(tmp_path, secret, data, ending):
    data = data.format(secret=secret, folder=tmp_path.name)
    path = metaimage(tmp_path / f"image{ending}", data=data, pixels=b"elsewhere/secret\n" * 10)
    assert_refused(path, "wants the pixels from elsewhere")


def test_a_link_beside_the_header_leads_elsewhere_too(tmp_path, secret):
    (tmp_path / "image.raw").symlink_to(secret)
    path = metaimage(tmp_path / "image.mhd", data="image.raw")
    assert_refused(path, "wants the pixels from elsewhere")


def test_pixels_beside_the_header_are_read_where_the_ending_announces_it(tmp_path):
    (tmp_path / "my image.raw").write_bytes(bytes(range(100)) * 10)
    path = metaimage(tmp_path / "image.mhd", data="my image.raw")
    assert read_image(path).array_zyx[3, 2, 1] == 21
    assert_refused(path.rename(tmp_path / "image.mha"), "wants the pixels from elsewhere")


@pytest.mark.parametrize(
    "line", ["Comment = ElementDataFile = LOCAL", " ElementDataFile = LOCAL", "ElementDataFile"]
)
def test_the_place_of_the_pixels_has_a_line_of_its_own(tmp_path, line):
    path = metaimage(tmp_path / "image.mha", extra=f"{line}\n", pixels=bytes(1000))
    assert_refused(path, "does not say where the pixels are|from elsewhere")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_either_line_end_is_understood(tmp_path, line_end):
    path = metaimage(tmp_path / "image.mha")
    path.write_bytes(path.read_bytes().replace(b"\n", line_end.encode()) + bytes(range(250)) * 4)
    assert read_image(path).array_zyx[0, 0, 7] == 7


@pytest.mark.parametrize("size", ["5000 5000 2000", "-10 20 20", "4294967297 4294967297 9"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_size_that_no_scan_has(tmp_path, size, compressed):
    pixels = zlib.compress(bytes(1000))
    extra = f"CompressedData = True\nCompressedDataSize = {len(pixels)}\n" if compressed else ""
    path = metaimage(tmp_path / "image.mha", size=size, extra=extra, pixels=pixels)
    assert_refused(path, "too large .* at most 268 million")


def test_compressed_pixels_that_are_longer_than_the_file(tmp_path):
    extra = f"CompressedData = True\nCompressedDataSize = {10**15}\n"
    path = metaimage(tmp_path / "image.mha", extra=extra, pixels=zlib.compress(bytes(1000)))
    assert_refused(path, "promises 1000000000000000 bytes")


@pytest.mark.parametrize("line", ["data file: {secret}", "DATAFILE: {secret}", "data file: LIST"])
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
def test_nrrd_takes_no_pixels_from_elsewhere(tmp_path, secret, line, ending):
    path = tmp_path / f"image{ending}"
    path.write_text(
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 10 10 10\nencoding: raw\n"
        f"{line.format(secret=secret)}\n\n"
    )
    assert_refused(path, "wants the pixels from elsewhere")


def test_nrrd_takes_pixels_beside_a_detached_header(tmp_path):
    image = sitk.Image([4, 5, 6], sitk.sitkInt16) + 7
    sitk.WriteImage(image, str(tmp_path / "image.nhdr"))
    assert (read_image(tmp_path / "image.nhdr").array_zyx == 7).all()


def test_the_ending_says_which_format_it_is(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkInt16), str(tmp_path / "image.nrrd"))
    assert_refused((tmp_path / "image.nrrd").rename(tmp_path / "image.tif"), "what its ending says")


def test_an_endless_header(tmp_path):
    path = tmp_path / "image.mha"
    path.write_bytes(b"NDims = 3\n" + b"Comment = nothing\n" * 100_000)
    with pytest.raises(InputError, match="does not say where the pixels are"):
        check_header(path, "MetaImageIO")


@given(st.lists(st.integers(1, 2**40), min_size=3, max_size=3))
def test_a_grid_is_refused_by_its_number_of_voxels(size):
    if size[0] * size[1] * size[2] <= MOST_VOXELS:
        check_voxels(size, where="image")
    else:
        with pytest.raises(InputError, match="too large"):
            check_voxels(size, where="image")


def test_a_spacing_that_makes_a_small_image_huge_is_refused_before_it_is_resampled():
    volume = Volume(np.zeros((10, 10, 10), np.int16), Geometry((10, 10, 10), (1e30,) * 3))
    with pytest.raises(InputError, match="too large when resampled to"):
        resample(volume, (3.0, 3.0, 6.0))
