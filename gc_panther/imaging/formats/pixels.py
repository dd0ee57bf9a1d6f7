"""From stored bytes to pixels: exactly as many as the header promises, or none."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO, Literal

import numpy as np

from gc_panther.imaging.formats.header import FormatError

_GZIP_TRAILER = 8


def stored_bytes(file: BinaryIO) -> int:
    """How many bytes follow in a file."""
    return os.fstat(file.fileno()).st_size - file.tell()


def read_raw(file: BinaryIO, count: int, dtype: np.dtype) -> np.ndarray:
    """The rest of a file as pixels.

    Args:
        file: stands at the first of them.
        count: of pixels.
        dtype: as stored.

    Returns:
        One-dimensional, in this machine's byte order.

    Raises:
        FormatError: there are fewer bytes, or more.
    """
    expected, there = count * dtype.itemsize, stored_bytes(file)
    if there != expected:
        raise FormatError(f"{there} bytes of pixels are there, its header promises {expected}")
    pixels = np.empty(count, dtype)
    if file.readinto(pixels.view(np.uint8).data) != expected:  # type: ignore[attr-defined]
        raise FormatError("it changed while it was read")
    return native(pixels)


def read_compressed(
    file: BinaryIO, count: int, dtype: np.dtype, kind: Literal["zlib", "gzip"]
) -> np.ndarray:
    """The compressed rest of a file as pixels; like :func:`read_raw` otherwise.

    Raises:
        FormatError: a checksum is wrong, or it holds fewer or more bytes than the pixels have.
    """
    pixels = np.empty(count, dtype)
    inflate(file.read(), pixels.view(np.uint8).data, kind)
    return native(pixels)


def inflate(data: bytes, into: memoryview, kind: Literal["zlib", "gzip"]) -> None:
    """Decompress data that has to fill an buffer exactly; no other memory is taken.

    Args:
        data: one zlib stream, or a gzip file.
        into: of bytes.
        kind: which.

    Raises:
        FormatError: the data is damaged, or longer or shorter than the buffer.
    """
    import imagecodecs

    # libdeflate: a third of zlib's time. It stops at the stream's end, whatever follows.
    decode = imagecodecs.deflate_decode if kind == "zlib" else imagecodecs.gzip_decode
    try:
        filled = len(decode(data, out=into))
    # The stream is damaged; or, as a ValueError, gzip's header.
    except (RuntimeError, ValueError):
        filled = -1
    if filled == len(into) and _ends_with_checksum(data, into, kind):
        return
    if kind == "gzip":
        # It may have several members, as block-wise compressors write them.
        _inflate_members(data, into)
    else:
        raise FormatError("its compressed pixels are damaged, or more or fewer than promised")


def _ends_with_checksum(data: bytes, inflated: memoryview, kind: Literal["zlib", "gzip"]) -> bool:
    """Whether the data ends with what follows a stream of this content, and with nothing else."""
    if kind == "zlib":
        return data[-4:] == zlib.adler32(inflated).to_bytes(4, "big")
    checksum = zlib.crc32(inflated).to_bytes(4, "little")
    return data[-_GZIP_TRAILER:] == checksum + (len(inflated) % 2**32).to_bytes(4, "little")


def _inflate_members(data: bytes, into: memoryview) -> None:
    filled = 0
    while data:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            # One byte more than there is place for shows that there are more.
            try:
                part = member.decompress(data, min(len(into) - filled + 1, 1 << 20))
            except zlib.error as error:
                raise FormatError("its compressed data is damaged") from error
            data = member.unconsumed_tail
            if not part and not data and not member.eof:
                raise FormatError("its compressed data ends early")
            if filled + len(part) > len(into):
                raise FormatError("it holds more than its header promises")
            into[filled : filled + len(part)] = part
            filled += len(part)
        data = member.unused_data
    if filled != len(into):
        raise FormatError(f"{filled} of {len(into)} bytes are there")


def native(pixels: np.ndarray) -> np.ndarray:
    """The same values in this machine's byte order, in the same memory."""
    if pixels.dtype.isnative:
        return pixels
    return pixels.byteswap(inplace=True).view(pixels.dtype.newbyteorder("="))
