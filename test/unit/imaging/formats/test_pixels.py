import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.imaging.formats.header import FormatError
from gc_panther.imaging.formats.pixels import inflate, read_compressed, read_raw, stored_bytes

COMPRESS = {"zlib": zlib.compress, "gzip": gzip.compress}
KINDS = pytest.mark.parametrize("kind", COMPRESS)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f8", "u1"])
def test_the_rest_of_a_file_as_pixels(tmp_path, dtype):
    values = np.arange(6).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(b"head" + values.tobytes())
    with path.open("rb") as file:
        file.seek(4)
        assert stored_bytes(file) == values.nbytes
        pixels = read_raw(file, 6, np.dtype(dtype))
    assert pixels.dtype.isnative
    assert pixels.tolist() == [0, 1, 2, 3, 4, 5]
    with path.open("rb") as file, pytest.raises(FormatError, match="bytes of pixels are there"):
        read_raw(file, 6, np.dtype(dtype))


@pytest.mark.parametrize("kind", ["zlib", "gzip"])
def test_the_compressed_rest_of_a_file_as_pixels(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"head" + COMPRESS[kind](np.arange(6, dtype=">i2").tobytes()))
    with path.open("rb") as file:
        file.seek(4)
        pixels = read_compressed(file, 6, np.dtype(">i2"), kind)
    assert pixels.dtype.isnative
    assert pixels.tolist() == [0, 1, 2, 3, 4, 5]


@given(st.binary(min_size=1, max_size=2000), st.sampled_from(sorted(COMPRESS)))
def test_all_of_it_is_there(content, kind):
    into = bytearray(len(content))
    inflate(COMPRESS[kind](content), memoryview(into), kind)
    assert into == content


@given(st.binary(min_size=1, max_size=500), st.data(), st.sampled_from(sorted(COMPRESS)))
def test_a_damaged_stream_is_never_taken(content, data, kind):
    stream = bytearray(COMPRESS[kind](content))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    into = bytearray(len(content))
    try:
        inflate(bytes(stream), memoryview(into), kind)
    except FormatError:
        return
    # A bit without a meaning, such as zlib's note on its level, or gzip's time.
    assert into == content


@KINDS
@pytest.mark.parametrize("more", [-1, 1])
def test_fewer_or_more_bytes_than_expected(kind, more):
    with pytest.raises(FormatError):
        inflate(COMPRESS[kind](bytes(1000 + more)), memoryview(bytearray(1000)), kind)


@KINDS
def test_a_stream_that_grows_takes_no_memory(kind):
    stream = COMPRESS[kind](bytes(1 << 25))
    tracemalloc.start()
    with pytest.raises(FormatError):
        inflate(stream, memoryview(bytearray(1000)), kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


@KINDS
@pytest.mark.parametrize("stream", [b"", b"x", bytes(100), b"no stream" * 10, b"\x1f\x8b" * 9])
def test_what_is_no_stream(kind, stream):
    with pytest.raises(FormatError):
        inflate(stream, memoryview(bytearray(1000)), kind)


def test_a_gzip_file_of_several_members():
    into = bytearray(9)
    inflate(b"".join(map(gzip.compress, (b"abc", b"", b"def", b"ghi"))), memoryview(into), "gzip")
    assert into == b"abcdefghi"
    with pytest.raises(FormatError, match=r"ends early|damaged"):
        inflate(gzip.compress(b"abc") + gzip.compress(b"defghi")[:-9], memoryview(into), "gzip")
    with pytest.raises(FormatError, match="damaged"):
        inflate(gzip.compress(b"abcdefghi") + b"more", memoryview(into), "gzip")
