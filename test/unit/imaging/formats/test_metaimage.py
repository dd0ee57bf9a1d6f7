import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import SECRET, assert_as_simpleitk_reads, assert_refused, images, metaimage

from gc_panther.imaging.images import read_image

NUMBERS = bytes(range(250)) * 4


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@settings(max_examples=30)
@given(images(), st.booleans(), st.sampled_from(["image.mha", "image.mhd"]))
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(
    tmp_path_factory, image, compress, name
):
    path = tmp_path_factory.mktemp("image") / name
    sitk.WriteImage(image, str(path), useCompression=compress)
    assert_as_simpleitk_reads(path, tolerance=1e-12)


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
        "",
    ],
)
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_pixels_from_elsewhere_are_not_read(tmp_path, secret, data, ending):
    data = data.format(secret=secret, folder=tmp_path.name)
    pixels = b"elsewhere/secret\n" * 10 if ending == ".mha" else b""
    path = metaimage(tmp_path / f"image{ending}", data=data, pixels=pixels)
    assert_refused(path, "refers to pixels elsewhere|is not KEY = VALUE")


def test_a_list_of_files_is_not_a_file_of_that_name(tmp_path):
    (tmp_path / "LIST").write_bytes(NUMBERS)
    path = metaimage(tmp_path / "image.mhd", data="LIST")
    assert_refused(path, "refers to pixels elsewhere, 'LIST'")


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("Offset = 0 0 0", "Position = 1 2 3"),
        ("Offset = 0 0 0", "Origin = 1 2 3"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "Rotation = 0 1 0 1 0 0 0 0 1"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "Orientation = 0 1 0 1 0 0 0 0 1"),
        ("BinaryDataByteOrderMSB = False", "ElementByteOrderMSB = True"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", ""),
        ("Offset = 0 0 0\n", ""),
    ],
)
def test_other_names_of_keys_and_what_may_be_left_out(tmp_path, key, other):
    path = metaimage(tmp_path / "image.mha", kind="MET_SHORT", pixels=NUMBERS * 2)
    path.write_bytes(path.read_bytes().replace(key.encode(), other.encode()))
    assert_as_simpleitk_reads(path)


def test_a_link_beside_the_header_leads_elsewhere_too(tmp_path, secret):
    (tmp_path / "image.raw").symlink_to(secret)
    path = metaimage(tmp_path / "image.mhd", data="image.raw")
    assert_refused(path, "refers to pixels elsewhere")


def test_pixels_beside_the_header_are_read_where_the_ending_announces_it(tmp_path):
    (tmp_path / "my image.raw").write_bytes(bytes(range(100)) * 10)
    path = metaimage(tmp_path / "image.mhd", data="my image.raw")
    assert read_image(path).array_zyx[3, 2, 1] == 21
    assert_refused(path.rename(tmp_path / "image.mha"), "refers to pixels elsewhere")


@pytest.mark.parametrize(
    "line",
    [
        "Offset = 0 0",  # MetaIO reads on in the next line
        "Foo",
        "ElementDataFile = LOCAL",
        "ElementDataFile = {secret}",
        "Comment = a\rElementDataFile = {secret}",
        "Comment = a\0b",
    ],
)
def test_a_line_that_readers_understand_differently(tmp_path, secret, line):
    """By the first two, MetaIO took the second place of the pixels, which may be any file."""
    path = metaimage(
        tmp_path / "image.mha",
        extra=f"{line.format(secret=secret)}\nElementDataFile = LOCAL\n",
        data=f"ElementDataFile = {secret}",
    )
    assert_refused(path, "cannot be read")


@pytest.mark.parametrize(
    "line", ["NDims = 3", "DimSize = 10 10 10", "Position = 1 2 3", "Orientation = 1 0 0"]
)
def test_a_key_has_one_value_under_all_of_its_names(tmp_path, line):
    path = metaimage(tmp_path / "image.mha", extra=f"{line}\n", pixels=NUMBERS)
    assert_refused(path, "twice")


@pytest.mark.parametrize(
    "line",
    [
        "HeaderSize = -1",
        "HeaderSize = 10",
        "ElementToIntensityFunctionSlope = 2",
        "DistanceUnits = cm",
        "CompressedData = maybe",
        "ElementNumberOfChannels = 1e0",
        "ObjectType = Tube",
    ],
)
def test_what_would_change_the_pixels_is_not_passed_over(tmp_path, line):
    path = metaimage(tmp_path / "image.mha", extra=f"{line}\n", pixels=NUMBERS)
    if line.startswith("ObjectType"):
        path.write_bytes(path.read_bytes().replace(b"ObjectType = Image\n", b""))
    assert_refused(path, f"{line.split()[0]}.* is not read|{line.split()[0]} is ")


@pytest.mark.parametrize("key", ["NDims", "DimSize", "ElementType", "ElementSpacing"])
def test_a_missing_key(tmp_path, key):
    path = metaimage(tmp_path / "image.mha", pixels=NUMBERS)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(key.encode())))
    assert_refused(path, f"its header lacks {key}")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_either_line_end_is_understood(tmp_path, line_end):
    path = metaimage(tmp_path / "image.mha")
    path.write_bytes(path.read_bytes().replace(b"\n", line_end.encode()) + NUMBERS)
    assert read_image(path).array_zyx[0, 0, 7] == 7


@pytest.mark.parametrize(
    ("size", "match"),
    [
        ("5000 5000 2000", "too large .* at most 268 million"),
        ("4294967297 4294967297 9", "too large .* at most 268 million"),
        ("-10 20 20", "DimSize is not understood"),
        ("0 20 20", "not a volume"),
        ("1e1 10 10", "DimSize is not understood"),
        ("10 10 10 10", "DimSize has 4 numbers"),
        ("1 " * 1000, "DimSize is not understood"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_size_that_no_scan_has(tmp_path, size, match, compressed):
    pixels = zlib.compress(bytes(1000))
    extra = f"CompressedData = True\nCompressedDataSize = {len(pixels)}\n" if compressed else ""
    path = metaimage(tmp_path / "image.mha", size=size, extra=extra, pixels=pixels)
    assert_refused(path, match)


@pytest.mark.parametrize("axes", ["1000", str(2**31), "1e308", "-1", "60", "2", ""])
def test_a_number_of_dimensions_that_crashed_metaio(tmp_path, axes):
    path = metaimage(tmp_path / "image.mha", pixels=NUMBERS)
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", f"NDims = {axes}".encode()))
    assert_refused(path, "NDims")


def test_a_matrix_of_sixty_axes(tmp_path):
    path = metaimage(tmp_path / "image.mha", pixels=NUMBERS)
    matrix = " ".join(["1"] * 3600)
    path.write_bytes(path.read_bytes().replace(b"1 0 0 0 1 0 0 0 1", matrix.encode()))
    assert_refused(path, "TransformMatrix is not 9 numbers")


@pytest.mark.parametrize("number", ["nan", "inf", "1e308", "1e-12", "-1", "0", "0x10", "1,5"])
@pytest.mark.parametrize("key", ["ElementSpacing = 1 1 1", "TransformMatrix = 1 0 0 0 1 0 0 0 1"])
def test_a_number_that_no_grid_has(tmp_path, number, key):
    path = metaimage(tmp_path / "image.mha", pixels=NUMBERS)
    name, values = key.split(" = ")
    changed = f"{name} = {number}{values[1:]}"
    path.write_bytes(path.read_bytes().replace(key.encode(), changed.encode()))
    if (name, number) == ("TransformMatrix", "-1"):
        assert read_image(path).geometry.direction[0] == -1
    else:
        assert_refused(path, "numbers?: |mm apart|right angles")


def compressed(tmp_path, *, pixels=None, size=None):
    pixels = zlib.compress(NUMBERS) if pixels is None else pixels
    size = len(pixels) if size is None else size
    extra = f"CompressedData = True\nCompressedDataSize = {size}\n"
    return metaimage(tmp_path / "image.mha", extra=extra, pixels=pixels)


@pytest.mark.parametrize("size", [0, 1, 10, 10**15])
def test_a_wrong_size_of_the_compressed_pixels(tmp_path, size):
    assert_refused(compressed(tmp_path, size=size), f"promises {size} bytes of pixels")


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_of_compressed_pixels_can_flip_unnoticed(tmp_path, bit):
    noise = np.random.default_rng(bit).integers(0, 256, 1000, np.uint8).tobytes()
    pixels = bytearray(zlib.compress(noise))
    good = compressed(tmp_path, pixels=bytes(pixels))
    assert read_image(good).array_zyx.tobytes() == noise
    for place in range(3, len(pixels), 37):
        pixels[place] ^= 1 << bit
        assert_refused(compressed(tmp_path, pixels=bytes(pixels)), "damaged")
        pixels[place] ^= 1 << bit


@pytest.mark.parametrize(
    "pixels",
    [
        zlib.compress(NUMBERS[:-1]),
        zlib.compress(NUMBERS + b"x"),
        zlib.compress(NUMBERS) + b"x",
        zlib.compress(NUMBERS)[:-1],
        zlib.compress(bytes(10**8)),
        b"",
    ],
    ids=["short", "long", "more follows", "cut", "a bomb", "nothing"],
)
def test_compressed_pixels_fill_the_image_exactly(tmp_path, pixels):
    assert_refused(compressed(tmp_path, pixels=pixels), "cannot be read")


@pytest.mark.parametrize("pixels", [NUMBERS[:-1], NUMBERS + b"\n"], ids=["short", "long"])
def test_raw_pixels_fill_the_image_exactly(tmp_path, pixels):
    path = metaimage(tmp_path / "image.mha", pixels=pixels)
    assert_refused(path, f"{len(pixels)} bytes of pixels are there, its header promises 1000")


def test_both_orders_of_bytes(tmp_path):
    values = np.arange(1000, dtype=">i2")
    path = metaimage(tmp_path / "image.mha", kind="MET_SHORT", pixels=values.tobytes())
    path.write_bytes(path.read_bytes().replace(b"OrderMSB = False", b"OrderMSB = True"))
    volume = assert_as_simpleitk_reads(path)
    assert volume.array_zyx.dtype == np.int16
    assert volume.array_zyx[9, 9, 9] == 999


def test_an_endless_header(tmp_path):
    path = tmp_path / "image.mha"
    path.write_bytes(b"NDims = 3\n" + b"".join(b"Key%d = nothing\n" % n for n in range(100_000)))
    assert_refused(path, "its header has no end")
    path.write_bytes(b"NDims = 3\n" + b"Comment" * 200_000)
    assert_refused(path, "its header has no end")


def test_a_header_that_says_no_place(tmp_path):
    path = tmp_path / "image.mha"
    path.write_bytes(b"NDims = 3\n")
    assert_refused(path, "does not say where the pixels are")


def test_keys_of_a_conversion_are_passed_over(tmp_path):
    path = metaimage(
        tmp_path / "image.mha",
        extra="0010|0010 = M\xfcller^Anna = x\nITK_note =\nCenterOfRotation = 0 0 0\n",
        pixels=NUMBERS,
    )
    assert read_image(path).array_zyx[0, 0, 7] == 7


def test_a_file_of_another_format_under_this_ending(tmp_path):
    path = tmp_path / "image.mha"
    path.write_bytes(gzip.compress(NUMBERS))
    assert_refused(path, "control characters|KEY = VALUE")
