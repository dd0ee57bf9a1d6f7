import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import assert_as_simpleitk_reads, assert_refused, images, rotation

from gc_panther.imaging.images import read_image

ARRAY_XYZ = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
#: Offsets in the header (nifti1.h) and struct's types.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim0": (40, "h"),
    "dim1": (42, "h"),
    "dim4": (48, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim0": (76, "f"),
    "pixdim1": (80, "f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern_b": (256, "f"),
    "qoffset_x": (268, "f"),
    "srow_x0": (280, "f"),
    "srow_x1": (284, "f"),
    "srow_x3": (292, "f"),
    "magic": (344, "4s"),
}


def affine(seed=0, spacing=(1.0, 2.0, 3.0)):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(rng.normal(size=4)) * spacing
    matrix[:3, 3] = rng.uniform(-100, 100, 3)
    return matrix


def write(path, array=ARRAY_XYZ, matrix=None, qform=None, codes=(1, 1), **fields):
    """A file by nibabel, with some fields of its header overwritten."""
    matrix = affine() if matrix is None else matrix
    image = nibabel.Nifti1Image(array, np.eye(4), dtype=array.dtype)
    image.set_qform(matrix if qform is None else qform, 1)
    image.set_sform(matrix, 1)
    image.header["qform_code"], image.header["sform_code"] = codes
    content = bytearray(image.to_bytes())
    for name, value in fields.items():
        place, kind = FIELDS[name]
        struct.pack_into(f"<{kind}", content, place, value)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@settings(max_examples=30)
@given(images(), st.booleans(), st.sampled_from(["image.nii", "image.nii.gz"]))
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(
    tmp_path_factory, image, compress, name
):
    path = tmp_path_factory.mktemp("image") / name
    sitk.WriteImage(image, str(path), useCompression=compress)
    assert_as_simpleitk_reads(path, tolerance=1e-5)


@pytest.mark.parametrize(
    ("sform", "qform"), [pair for pair in itertools.product((0, 1, 2, 4), repeat=2) if any(pair)]
)
def test_of_two_maps_the_one_that_simpleitk_takes(tmp_path, sform, qform):
    path = write(tmp_path / "image.nii", matrix=affine(1), qform=affine(2), codes=(qform, sform))
    assert_as_simpleitk_reads(path, tolerance=1e-5)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_an_image_lies_where_nibabel_says(tmp_path, ending):
    volume = read_image(write(tmp_path / f"image{ending}", matrix=affine(3)))
    corner = np.asarray(volume.geometry.size_xyz) - 1
    ras = affine(3) @ [*corner, 1]
    axes = np.reshape(volume.geometry.direction, (3, 3)) * volume.geometry.spacing_xyz
    lps = axes @ corner + volume.geometry.origin_xyz
    np.testing.assert_allclose(lps * [-1, -1, 1], ras[:3], atol=1e-3)
    assert np.array_equal(volume.array_zyx, ARRAY_XYZ.T)


@pytest.mark.parametrize(("code", "millimetres"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_units_of_length(tmp_path, code, millimetres):
    matrix = affine(spacing=np.array([1.0, 2.0, 3.0]) / millimetres)
    matrix[:3, 3] /= millimetres
    path = write(tmp_path / "image.nii", matrix=matrix, xyzt_units=code)
    volume = assert_as_simpleitk_reads(path, tolerance=1e-3)
    np.testing.assert_allclose(volume.geometry.spacing_xyz, (1, 2, 3), rtol=1e-6)


def test_a_time_axis_of_one_point_is_a_volume(tmp_path):
    assert_as_simpleitk_reads(write(tmp_path / "image.nii", ARRAY_XYZ[..., None]), 1e-5)
    assert_refused(write(tmp_path / "image.nii", ARRAY_XYZ[..., None, :2]), "not a volume")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_both_orders_of_bytes(tmp_path, order, kind):
    array = ARRAY_XYZ.astype(f"{order}{kind}")
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(array.dtype)
    nibabel.save(nibabel.Nifti1Image(array, affine(), header), tmp_path / "image.nii")
    assert_as_simpleitk_reads(tmp_path / "image.nii", 1e-5)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 0.0), (0.5, 1.0), (1.0, 3.0), (-1.5, 0.1)])
def test_scaled_pixels(tmp_path, kind, slope, intercept):
    array = ARRAY_XYZ.astype(kind)
    path = write(tmp_path / "image.nii.gz", array, scl_slope=slope, scl_inter=intercept)
    volume = read_image(path)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert volume.array_zyx.dtype == expected.dtype
    np.testing.assert_allclose(volume.array_zyx, expected, rtol=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.0, 0.0), (np.nan, np.nan)])
def test_pixels_that_are_not_scaled_keep_their_type(tmp_path, slope, intercept):
    path = write(tmp_path / "image.nii", scl_slope=slope, scl_inter=intercept)
    assert read_image(path).array_zyx.dtype == np.int16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [{}, {"scl_slope": 2.0}, {"scl_slope": 1.0, "scl_inter": 1.0}])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_values_that_are_not_numbers(tmp_path, value, scale, kind):
    """ITK turns them into 0 where the header scales the pixels."""
    array = ARRAY_XYZ.astype(kind)
    array[1, 2, 1] = value
    assert_refused(write(tmp_path / "image.nii", array, **scale), "NaN or infinite")


def test_a_scaling_that_overflows(tmp_path):
    path = write(tmp_path / "image.nii", scl_slope=3e38)
    assert_refused(path, "NaN or infinite")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"vox_offset": 0}, "cannot begin at byte 0"),
        ({"vox_offset": 348}, "cannot begin at byte 348"),
        ({"vox_offset": 352.5}, "cannot begin at byte"),
        ({"vox_offset": -352}, "cannot begin at byte"),
        ({"vox_offset": np.nan}, "cannot begin at byte nan"),
        ({"vox_offset": np.inf}, "cannot begin at byte inf"),
        ({"vox_offset": 1e30}, "cannot begin at byte"),
        ({"vox_offset": 356}, "bytes of pixels are there|bytes are there|more than"),
        ({"scl_slope": np.inf}, "scaled by"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "scaled by"),
        ({"scl_slope": 0, "scl_inter": 5}, "intercept without a slope"),
        ({"dim0": 0}, "not NIfTI|0 dimensions"),
        ({"dim0": 8}, "not NIfTI|dimensions"),
        ({"dim1": 0}, "a size of 0×4×3"),
        ({"dim1": -5}, "a size of -5×4×3"),
        ({"dim0": 4, "dim4": 0}, "a size of 5×4×3×0"),
        ({"datatype": 999}, "data type 999"),
        ({"datatype": 4, "bitpix": 8}, "does not have 8 bits"),
        ({"pixdim1": 0}, "voxel sizes"),
        ({"pixdim1": -1}, "voxel sizes"),
        ({"pixdim1": np.nan}, "voxel sizes"),
        ({"pixdim1": 1e30}, "by its affine map"),
        ({"pixdim1": 7}, "7×2×3 large by pixdim and 1×2×3 by its affine map"),
        ({"srow_x0": np.nan}, "affine map"),
        ({"srow_x3": np.inf}, "NaN or infinite"),
        ({"srow_x3": 1e30}, "origin"),
        ({"srow_x1": 0.0}, "affine map|right angles"),
        ({"qform_code": 0, "sform_code": 0}, "how the image lies in the patient"),
        ({"sform_code": 0, "quatern_b": 5}, "quaternion"),
        ({"sform_code": 0, "quatern_b": np.nan}, "quaternion|affine map|NaN"),
        ({"sform_code": 0, "qoffset_x": np.nan}, "NaN or infinite"),
        ({"xyzt_units": 7}, "unit of length"),
        ({"magic": b"ni1\0"}, "not NIfTI-1 in one file"),
        ({"sizeof_hdr": 540}, "not NIfTI-1 in one file"),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_no_image_has(tmp_path, fields, match, ending):
    assert_refused(write(tmp_path / f"image{ending}", **fields), match)


def sheared(by):
    matrix = affine()
    matrix[:3, 1] += by * matrix[:3, 0]
    return matrix


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (sheared(0.3), "right angles|affine map"),
        (np.diag([1e-12, 1.0, 1.0, 1.0]), "mm apart|affine map"),
        (np.diag([1e30, 1.0, 1.0, 1.0]), "mm apart"),
        (np.ones((4, 4)), "right angles"),
        (np.zeros((4, 4)), "voxel sizes|affine map"),
    ],
    ids=["sheared", "thin", "thick", "singular", "zero"],
)
def test_a_grid_that_no_scanner_makes(tmp_path, matrix, match):
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    path = write(tmp_path / "image.nii", matrix=matrix, qform=np.eye(4), codes=(0, 1))
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 80, *sizes)
    path.write_bytes(content)
    assert_refused(path, match)


def test_a_shear_within_the_tolerance_is_rounding(tmp_path):
    path = write(tmp_path / "image.nii", matrix=sheared(1e-4), codes=(0, 1))
    assert read_image(path).geometry.size_xyz == (5, 4, 3)


@pytest.mark.parametrize("kept", [0, 1, 100, 347, 348, 352, 400, -1])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_that_ends_early(tmp_path, kept, ending):
    path = write(tmp_path / f"image{ending}")
    content = path.read_bytes()
    path.write_bytes(content[: min(kept, len(content) - 1)])
    assert_refused(path, "cannot be read|is empty")
    if ending == ".nii.gz":
        path.write_bytes(gzip.compress(gzip.decompress(content)[:kept]))
        assert_refused(path, "cannot be read")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_that_goes_on(tmp_path, ending):
    path = write(tmp_path / f"image{ending}")
    content = path.read_bytes()
    if ending == ".nii":
        path.write_bytes(content + b"\0")
    else:
        path.write_bytes(gzip.compress(gzip.decompress(content) + bytes(10_000_000)))
    assert_refused(path, "cannot be read")


def test_compression_is_seen_in_the_content(tmp_path):
    path = write(tmp_path / "image.nii.gz")
    plain = write(tmp_path / "plain.nii")
    expected = read_image(path).array_zyx
    assert np.array_equal(read_image(path.rename(tmp_path / "zipped.nii")).array_zyx, expected)
    assert np.array_equal(read_image(plain.rename(tmp_path / "p.nii.gz")).array_zyx, expected)


def test_an_extension_between_header_and_pixels_is_skipped(tmp_path):
    image = nibabel.Nifti1Image(ARRAY_XYZ, affine())
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a note" * 100))
    nibabel.save(image, tmp_path / "image.nii.gz")
    assert np.array_equal(read_image(tmp_path / "image.nii.gz").array_zyx, ARRAY_XYZ.T)


@pytest.mark.parametrize("kind", ["c8", [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=str)
def test_several_values_per_voxel(tmp_path, kind):
    array = np.zeros((3, 3, 3), kind)
    nibabel.save(nibabel.Nifti1Image(array, affine()), tmp_path / "image.nii")
    assert_refused(tmp_path / "image.nii", "several values per voxel")


def test_nifti_2_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti2Image(ARRAY_XYZ, affine()), tmp_path / "image.nii")
    assert_refused(tmp_path / "image.nii", "not NIfTI-1 in one file")
