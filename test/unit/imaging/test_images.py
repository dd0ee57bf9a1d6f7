import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import assert_refused

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError, OutputError, UserError
from gc_panther.imaging.images import (
    MASK_ENDINGS,
    check_mask_format,
    farthest_mm,
    from_sitk,
    read_image,
    to_sitk,
    write_image,
)

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
GEOMETRY = Geometry((5, 4, 3), (0.7, 1.1, 3.3), (-10.123456, 20.5, 7.25), OBLIQUE)


@pytest.fixture
def volume():
    return Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), GEOMETRY)


@pytest.mark.parametrize("name", ["image.mha", "image.nii.gz", "image.nii", "image.nrrd"])
@pytest.mark.parametrize("compress", [True, False])
def test_what_is_written_is_read(volume, tmp_path, name, compress):
    write_image(volume, tmp_path / name, compress=compress)
    again = read_image(tmp_path / name)
    assert np.array_equal(again.array_zyx, volume.array_zyx)
    assert again.array_zyx.dtype == volume.array_zyx.dtype
    assert again.geometry.matches(volume.geometry)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_metaimage_keeps_the_geometry_to_the_last_digit(volume, tmp_path):
    write_image(volume, tmp_path / "image.mha")
    assert read_image(tmp_path / "image.mha").geometry.matches(GEOMETRY, tolerance=1e-12)


def test_compression_can_be_chosen(volume, tmp_path):
    large = Volume(np.zeros((40, 40, 40), np.uint8), Geometry((40, 40, 40), (1.0,) * 3))
    write_image(large, tmp_path / "small.mha")
    write_image(large, tmp_path / "large.mha", compress=False)
    assert (tmp_path / "small.mha").stat().st_size < 40**3 < (tmp_path / "large.mha").stat().st_size


def test_truth_values_become_uint8(volume):
    image = to_sitk(Volume(volume.array_zyx > 5, GEOMETRY))
    assert image.GetPixelID() == sitk.sitkUInt8


def test_a_failed_write_leaves_the_old_file_and_nothing_else(volume, tmp_path, monkeypatch):
    path = tmp_path / "masks" / "mask.mha"
    path.parent.mkdir()
    write_image(volume, path)
    before = path.read_bytes()

    def fail(image, name, **options):
        Path(name).write_bytes(b"half")
        raise RuntimeError("sitk::ERROR:\nthe disk is full")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        write_image(volume, path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there(volume, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_image(volume, tmp_path / "no-such-folder" / "mask.mha")
    assert not list(tmp_path.iterdir())


#: Formats of two files, without a direction, of two dimensions, of surfaces, and no format.
OTHERS = ["mhd", "nhdr", "img", "vtk", "gipl", "tif", "png", "dcm", "stl", "jpg", "unknown", ""]


@pytest.mark.parametrize("ending", OTHERS)
def test_formats_that_are_not_written(volume, tmp_path, ending):
    path = tmp_path / f"mask.{ending}".rstrip(".")
    with pytest.raises(OutputError, match="images are not written as"):
        write_image(volume, path)
    with pytest.raises(UserError, match="masks are not written as"):
        check_mask_format(path, volume.geometry)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_a_mask_lies_where_its_image_does(tmp_path, ending):
    check_mask_format(tmp_path / f"mask{ending}", GEOMETRY)
    assert not list(tmp_path.iterdir())


SHEAR = Geometry((50, 40, 30), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0), (1, 4e-4, 0, 0, 1, 0, 0, 0, 1))
FAR = Geometry((50, 40, 30), (1.0, 1.0, 3.0), (54321.00195, 0.0, 0.0))


@pytest.mark.parametrize("geometry", [SHEAR, FAR], ids=["sheared", "far away"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_grid_that_nifti_cannot_hold(tmp_path, geometry, ending):
    with pytest.raises(UserError, match=r"cannot hold the image's grid .* Choose \.mha") as caught:
        check_mask_format(tmp_path / f"mask{ending}", geometry)
    assert "\n" not in str(caught.value)
    check_mask_format(tmp_path / "mask.mha", geometry)


def test_grids_are_compared_at_the_farthest_corner():
    spacing = replace(GEOMETRY, spacing_xyz=(0.7, 1.1, 3.3005))
    assert farthest_mm(GEOMETRY, GEOMETRY) == 0
    assert farthest_mm(GEOMETRY, spacing) == pytest.approx(0.001)
    assert farthest_mm(GEOMETRY, replace(GEOMETRY, size_xyz=(5, 4, 2))) == float("inf")


def test_a_name_that_is_not_utf_8(volume, tmp_path):
    """SimpleITK ended the process."""
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    folder.mkdir()
    for name in ("image.mha", "image.nii.gz", "image.nrrd", "image.nii"):
        write_image(volume, folder / name)
        path = (folder / name).rename(folder / os.fsdecode(b"\xff" + name.encode()))
        assert np.array_equal(read_image(path).array_zyx, volume.array_zyx)
        write_image(volume, path)
        check_mask_format(path, volume.geometry)
    with pytest.raises(InputError, match="no such image"):
        read_image(folder / os.fsdecode(b"\xff\xfe.mha"))


@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_a_name_as_long_as_a_file_system_takes(volume, tmp_path, ending):
    path = tmp_path / ("n" * (255 - len(ending)) + ending)
    write_image(volume, path)
    assert np.array_equal(read_image(path).array_zyx, volume.array_zyx)
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_too_long(volume, tmp_path):
    path = tmp_path / ("n" * 300 + ".mha")
    assert_refused(path, "cannot be read .File name too long|no such image")
    with pytest.raises(OutputError, match="File name too long"):
        write_image(volume, path)


@pytest.mark.parametrize("ending", ["gipl", "vtk", "png", "dcm", "hdr", "img", "gz", "raw", ""])
def test_formats_that_are_not_read(tmp_path, ending):
    path = tmp_path / f"image.{ending}".rstrip(".")
    path.write_bytes(b"something")
    assert_refused(path, r"images are not read from .* Convert it to one of \.mha, ")


def test_a_link_in_a_circle(tmp_path):
    (tmp_path / "a.mha").symlink_to("b.mha")
    (tmp_path / "b.mha").symlink_to("a.mha")
    assert_refused(tmp_path / "a.mha", "no such image|cannot be read")


@pytest.mark.parametrize("name", ["IMAGE.MHA", "Image.Nii.Gz"])
def test_endings_in_capitals(volume, tmp_path, name):
    write_image(volume, tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name).array_zyx, volume.array_zyx)


def test_a_missing_file(tmp_path):
    assert_refused(tmp_path / "none.mha", "no such image")


def test_a_folder_is_no_image(tmp_path):
    assert_refused(tmp_path, "no such image")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.mha").touch()
    assert_refused(tmp_path / "empty.mha", "empty")


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "text.mha").write_text("hello")
    assert_refused(tmp_path / "text.mha", "cannot be read")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["image.mha", "image.nii.gz", "image.nii", "image.nrrd"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_file(tmp_path, compress, name, kept):
    noise = np.random.default_rng(0).integers(0, 30000, (20, 20, 20)).astype(np.int16)
    path = tmp_path / name
    write_image(Volume(noise, Geometry((20, 20, 20), (1.0,) * 3)), path, compress=compress)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert_refused(path, "cannot be read")


def test_other_formats_may_carry_the_keys_of_a_nifti_header(volume, tmp_path):
    image = to_sitk(volume)
    image.SetMetaData("bitpix", "64")
    image.SetMetaData("vox_offset", "1000000")
    sitk.WriteImage(image, str(tmp_path / "converted.mha"))
    assert np.array_equal(read_image(tmp_path / "converted.mha").array_zyx, volume.array_zyx)


def test_a_damaged_gzip_stream(volume, tmp_path):
    path = tmp_path / "image.nii.gz"
    write_image(volume, path)
    path.write_bytes(gzip.compress(b"not an image at all" * 50))
    assert_refused(path, "cannot be read")


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (sitk.Image(4, 4, sitk.sitkUInt8), "not a volume"),
        (sitk.Image([4, 4, 4, 2], sitk.sitkUInt8), "not a volume"),
        (sitk.Image([4, 4, 4, 1], sitk.sitkUInt8), "not a volume"),
        (sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), "several values per voxel"),
        (sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), "several values per voxel"),
    ],
    ids=["2-D", "4-D", "4-D of one", "RGB", "complex"],
)
def test_other_kinds_of_image(tmp_path, image, match):
    path = tmp_path / "other.mha"
    sitk.WriteImage(image, str(path))
    assert_refused(path, match)
    with pytest.raises(InputError, match=match):
        from_sitk(image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(tmp_path, value):
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 2, 3] = value
    write_image(Volume(array, GEOMETRY), tmp_path / "image.mha")
    assert_refused(tmp_path / "image.mha", "NaN or infinite")
