import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError, OutputError
from gc_panther.imaging.images import from_sitk, read_image, to_sitk, write_image

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
    path = tmp_path / "mask.mha"
    write_image(volume, path)
    before = path.read_bytes()

    def fail(image, name, **options):
        (tmp_path / name).write_bytes(b"half")
        raise RuntimeError("sitk::ERROR:\nthe disk is full")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        write_image(volume, path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["no-such-folder/mask.mha", "mask.unknown"])
def test_places_and_formats_that_cannot_be_written(volume, tmp_path, name):
    with pytest.raises(OutputError, match="cannot be written"):
        write_image(volume, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mask.mhd", "mask.nhdr", "mask.img"])
def test_formats_of_two_files_are_refused(volume, tmp_path, name):
    with pytest.raises(OutputError, match="needs two"):
        write_image(volume, tmp_path / name)


def assert_refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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
