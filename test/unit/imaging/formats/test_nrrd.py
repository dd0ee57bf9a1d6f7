import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import SECRET, assert_as_simpleitk_reads, assert_refused, images

from gc_panther.imaging.images import read_image

PIXELS = np.arange(60, dtype="<i2")
RAW = PIXELS.tobytes()


def nrrd(
    path,
    *,
    start="NRRD0005\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\nencoding: raw\n",
    grid="space: LPS\nspace directions: (1.1,0,0) (0,2.2,0) (0,0,3.3)\nspace origin: (1,2,3)\n",
    extra="",
    pixels=RAW,
):
    path.write_bytes(f"{start}{grid}{extra}\n".encode("latin-1") + pixels)
    return path


@settings(max_examples=30)
@given(images(), st.booleans(), st.sampled_from(["image.nrrd", "image.nhdr"]))
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(
    tmp_path_factory, image, compress, name
):
    path = tmp_path_factory.mktemp("image") / name
    sitk.WriteImage(image, str(path), useCompression=compress)
    assert_as_simpleitk_reads(path, tolerance=1e-12)


@pytest.mark.parametrize(
    "space",
    ["LPS", "left-posterior-superior", "RAS", "right-anterior-superior", "LAS"]
    + ["left-anterior-superior"],
)
def test_spaces(tmp_path, space):
    grid = (
        f"space: {space}\nspace directions: (0,1.1,0) (2.2,0,0) (0,0,-3.3)\nspace origin: (1,2,3)\n"
    )
    assert_as_simpleitk_reads(nrrd(tmp_path / "image.nrrd", grid=grid), tolerance=1e-12)


@pytest.mark.parametrize(
    "grid",
    [
        "",
        "spacings: 1 2 3\n",
        "space dimension: 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n",
        "space: scanner-xyz\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n",
        "space: 3D-left-handed\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n",
        "space: LPS\n",
    ],
)
def test_a_file_that_does_not_say_how_it_lies_in_the_patient(tmp_path, grid):
    assert_refused(
        nrrd(tmp_path / "image.nrrd", grid=grid), "lies in the patient|line of its header"
    )


@pytest.mark.parametrize(
    "grid",
    [
        "space: LPS\nspace directions: (nan,0,0) (0,1,0) (0,0,1)\n",
        "space: LPS\nspace directions: (0,0,0) (0,1,0) (0,0,1)\n",
        "space: LPS\nspace directions: (1,0,0) (1,0,0) (0,0,1)\n",
        "space: LPS\nspace directions: (1,0,0) (0.3,1,0) (0,0,1)\n",
        "space: LPS\nspace directions: (1,0,0) none (0,0,1)\n",
        "space: LPS\nspace directions: (1,0,0) (0,1e308,0) (0,0,1)\n",
        "space: LPS\nspace directions: (1,0) (0,1) (0,0)\n",
        "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (inf,0,0)\n",
        "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (1,0)\n",
        "space: LPS\nspace directions:\n",
    ],
)
def test_a_grid_that_no_scanner_makes(tmp_path, grid):
    path = nrrd(tmp_path / "image.nrrd", grid=grid)
    assert_refused(path, "NaN|mm apart|right angles|three-dim|understood|line of its header")


@pytest.mark.parametrize(
    "line",
    [
        "data file: {secret}",
        "datafile: {secret}",
        "data file: LIST",
        "data file: elsewhere/secret",
        "data file: slice%03d.raw 1 3 1",
    ],
)
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
def test_no_pixels_from_elsewhere(tmp_path, line, ending):
    secret = tmp_path / "elsewhere" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(SECRET)
    extra = f"{line.format(secret=secret)}\n"
    pixels = PIXELS.tobytes() if ending == ".nrrd" else b""
    path = nrrd(tmp_path / f"image{ending}", extra=extra, pixels=pixels)
    assert_refused(path, "refers to pixels elsewhere")


def test_a_lone_carriage_return_is_no_line_end(tmp_path):
    """For teem it is one, and the file that followed it was read."""
    (tmp_path / "secret").write_bytes(SECRET)
    path = nrrd(tmp_path / "image.nrrd", extra=f"content: a\rdata file: {tmp_path / 'secret'}\n")
    assert_refused(path, "control characters")


@pytest.mark.parametrize(
    "extra",
    [
        "byte skip: 4\n",
        "line skip: 1\n",
        "byteskip: -1\n",
        "Data File: secret\n",
        "type: uchar\n",
        "sizes: 5 4 3\n",
        "no colon\n",
        "m\xfcller: x\n",
        "endian: big\n",
        "kinds: domain domain vector\n",
        "block size: 3\n",
    ],
)
def test_a_field_that_would_change_the_pixels(tmp_path, extra):
    path = nrrd(tmp_path / "image.nrrd", extra=extra)
    assert_refused(path, "cannot be read|not a volume|several values")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("type: short", "type: block"),
        ("type: short", "type: quadruple"),
        ("encoding: raw", "encoding: ascii"),
        ("encoding: raw", "encoding: bzip2"),
        ("encoding: raw", "encoding: hex"),
        ("endian: little", "endian: middle"),
        ("endian: little\n", ""),
        ("sizes: 5 4 3", "sizes: 5 4"),
        ("sizes: 5 4 3", "sizes: 5 -4 3"),
        ("sizes: 5 4 3", "sizes: nan 4 3"),
        ("sizes: 5 4 3", "sizes: 1e308 4 3"),
        ("sizes: 5 4 3", "sizes: 5 4 4"),
        ("sizes: 5 4 3", "sizes: 5 4 2"),
        ("dimension: 3", "dimension: 1000"),
        ("dimension: 3", "dimension: x"),
        ("NRRD0005", "NRRD0006"),
        ("NRRD0005", "NRRD"),
    ],
)
def test_a_header_that_is_not_read(tmp_path, old, new):
    path = nrrd(tmp_path / "image.nrrd")
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    assert_refused(path, "cannot be read|not a volume")


def test_a_size_that_no_scan_has(tmp_path):
    path = nrrd(tmp_path / "image.nrrd")
    path.write_bytes(path.read_bytes().replace(b"5 4 3", b"5000 5000 5000"))
    assert_refused(path, "too large")


def test_keys_and_comments_are_passed_over(tmp_path):
    extra = '# a comment\nkey:=data file: x\nlabels: "x" "y" "z"\n'
    assert_as_simpleitk_reads(nrrd(tmp_path / "image.nrrd", extra=extra), tolerance=1e-12)


@pytest.mark.parametrize(
    "line",
    [
        "content: an abdomen",
        "min: 0",
        "max: 59",
        "old min: 0",
        "oldmin: 0",
        "old max: 59",
        "oldmax: 59",
        "thicknesses: 1 1 1",
        "centers: cell cell cell",
        "centerings: cell cell cell",
        'units: "mm" "mm" "mm"',
        "number: 60",
        'space units: "mm" "mm" "mm"',
        "measurement frame: (1,0,0) (0,1,0) (0,0,1)",
        "sample units: ms",
        "sampleunits: ms",
        "kinds: domain domain domain",
        "kinds: space space space",
        "kinds: none ??? space",
    ],
)
def test_what_only_describes_the_pixels_is_passed_over(tmp_path, line):
    volume = read_image(nrrd(tmp_path / "image.nrrd", extra=f"{line}\n"))
    assert np.array_equal(volume.array_zyx.ravel(), PIXELS)
    assert volume.geometry.spacing_xyz == pytest.approx((1.1, 2.2, 3.3))
    assert volume.geometry.origin_xyz == (1.0, 2.0, 3.0)


def test_a_spacing_beside_the_directions_is_refused(tmp_path):
    path = nrrd(tmp_path / "image.nrrd", extra="spacings: 1 2 3\n")
    assert_refused(path, "says the spacing twice")


TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}


@pytest.mark.parametrize(
    ("dtype", "name"), [(kind, name) for kind, all_ in TYPES.items() for name in all_.split(", ")]
)
def test_every_name_of_a_type_is_read_as_simpleitk_reads_it(tmp_path, dtype, name):
    path = nrrd(tmp_path / "image.nrrd", pixels=PIXELS.astype(f"<{dtype}").tobytes())
    path.write_bytes(path.read_bytes().replace(b"type: short", f"type: {name}".encode()))
    assert assert_as_simpleitk_reads(path, tolerance=1e-12).array_zyx.dtype == dtype


def test_both_orders_of_bytes(tmp_path):
    path = nrrd(tmp_path / "image.nrrd", pixels=PIXELS.astype(">i2").tobytes())
    path.write_bytes(path.read_bytes().replace(b"endian: little", b"endian: big"))
    assert_as_simpleitk_reads(path, tolerance=1e-12)


def zipped(path, pixels):
    nrrd(path, pixels=b"")
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", b"encoding: gzip") + pixels)
    return path


def test_no_bit_of_compressed_pixels_can_flip_unnoticed(tmp_path):
    stream = bytearray(gzip.compress(PIXELS.tobytes()))
    path = zipped(tmp_path / "image.nrrd", bytes(stream))
    assert np.array_equal(read_image(path).array_zyx.ravel(), PIXELS)
    for place in range(10, len(stream)):
        stream[place] ^= 4
        assert_refused(zipped(path, bytes(stream)), "cannot be read")
        stream[place] ^= 4


@pytest.mark.parametrize("more", [-1, 1])
def test_pixels_fill_the_image_exactly(tmp_path, more):
    pixels = PIXELS.tobytes() + b"x" if more > 0 else PIXELS.tobytes()[:-1]
    assert_refused(nrrd(tmp_path / "image.nrrd", pixels=pixels), "its header promises 120")
    assert_refused(zipped(tmp_path / "image.nrrd", gzip.compress(pixels)), "more than|are there")


def test_colour(tmp_path):
    image = sitk.Image([4, 5, 6], sitk.sitkVectorUInt8, 3)
    sitk.WriteImage(image, str(tmp_path / "image.nrrd"))
    assert_refused(tmp_path / "image.nrrd", "several values per voxel")
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkUInt8), str(tmp_path / "image.nrrd"))
    assert_refused(tmp_path / "image.nrrd", "not a volume")
