import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import assert_as_simpleitk_reads, assert_refused, images

from gc_panther.imaging.images import read_image

ARRAY = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)


@settings(max_examples=30)
@given(images(), st.booleans())
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(tmp_path_factory, image, compress):
    path = tmp_path_factory.mktemp("image") / "image.tif"
    try:
        sitk.WriteImage(image, str(path), useCompression=compress)
    except RuntimeError:
        return  # a type that ITK does not write as TIFF
    if compress:
        assert_refused(path, "otherwise than by deflate")
    elif image.GetSize()[2] == 1:
        assert_refused(path, "not a volume")
    else:
        assert_as_simpleitk_reads(path, tolerance=1e-6)


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", "<>")
def test_pages_are_slices(tmp_path, kind, compression, order):
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        ARRAY.astype(kind),
        photometric="minisblack",
        compression=compression,
        byteorder=order,
        metadata=None,
        resolution=(2, 4),
        resolutionunit="CENTIMETER",
    )
    volume = assert_as_simpleitk_reads(path, tolerance=1e-6)
    assert volume.geometry.spacing_xyz == (5.0, 2.5, 1.0)


def test_tiles(tmp_path):
    array = np.arange(3 * 40 * 50, dtype=np.int16).reshape(3, 40, 50)
    path = tmp_path / "image.tiff"
    tifffile.imwrite(path, array, tile=(16, 32), photometric="minisblack", metadata=None)
    assert np.array_equal(read_image(path).array_zyx, array)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_ends_early(tmp_path, compression, kept):
    array = np.random.default_rng(0).integers(0, 9999, (5, 30, 40)).astype(np.uint16)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, array, photometric="minisblack", compression=compression, metadata=None)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert_refused(path, "cannot be read")


def test_a_file_by_itk_that_ends_early(tmp_path):
    """ITK reads the slices that are there, fewer than there should be."""
    path = tmp_path / "image.tif"
    sitk.WriteImage(sitk.Image([40, 30, 5], sitk.sitkUInt16), str(path), False)
    content = path.read_bytes()
    for length in range(100, len(content), 487):
        path.write_bytes(content[:length])
        assert_refused(path, "cannot be read")


@pytest.mark.parametrize("compression", ["zlib"])
def test_no_bit_of_compressed_pixels_can_flip_unnoticed(tmp_path, compression):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, ARRAY, photometric="minisblack", compression=compression, metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, count = page.dataoffsets[0], page.databytecounts[0]
    for place in range(start + 3, start + count):
        content[place] ^= 4
        path.write_bytes(content)
        assert_refused(path, "cannot be read")
        content[place] ^= 4


def test_other_kinds_of_image(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, ARRAY[0], photometric="minisblack", metadata=None)
    assert_refused(path, "not a volume")
    tifffile.imwrite(path, np.zeros((3, 4, 5, 3), np.uint8), photometric="rgb", metadata=None)
    assert_refused(path, "several values per voxel")
    with tifffile.TiffWriter(path) as file:
        for side in (4, 5):
            file.write(np.zeros((side, 5), np.uint8), photometric="minisblack", metadata=None)
    assert_refused(path, "different sizes")


def test_reduced_copies_are_no_slices(tmp_path):
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as file:
        for plane, reduced in itertools.product(ARRAY, (False, True)):
            data = plane[::2, ::2] if reduced else plane
            file.write(data, photometric="minisblack", subfiletype=reduced, metadata=None)
    assert np.array_equal(read_image(path).array_zyx, ARRAY)


def test_pages_in_a_circle(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, ARRAY, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0], file.pages[-1]
        end = last.offset + 2 + 12 * len(last.tags)
        content = bytearray(path.read_bytes())
        content[end : end + 4] = first.offset.to_bytes(4, "little")
    path.write_bytes(content)
    assert_refused(path, "cannot be read")


def test_a_file_of_another_format_under_this_ending(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkInt16), str(tmp_path / "image.nrrd"))
    assert_refused((tmp_path / "image.nrrd").rename(tmp_path / "image.tif"), "cannot be")
