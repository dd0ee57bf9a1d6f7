"""NIfTI-1 in one file, ``.nii`` and ``.nii.gz``; the header's numbers by nibabel.

https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h. Of the two affine maps that a header can
hold the one is taken that ITK takes, so that an image lies where it does for SimpleITK. Refused is
what readers understand differently: a file without either map, one whose map and voxel sizes
disagree, and pixels that begin within the header.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.formats.header import FormatError, Header
from gc_panther.imaging.formats.pixels import inflate, native, read_raw

_HEADER_BYTES = 348
#: Where pixels begin at the earliest: four bytes follow the header.
_FIRST_PIXEL = 352
#: Most bytes of extensions between header and pixels, which are skipped.
_MOST_EXTENSIONS = 1 << 26
_GZIP_MAGIC = b"\x1f\x8b"
_SCANNER = 1
#: How far the lengths of a map's columns may be from the voxel sizes, relative to these.
_SIZE_TOLERANCE = 1e-3
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def read_nifti(path: Path, check: Callable[[Header], Geometry]) -> Volume:
    """Read a file, compressed or not, whatever its ending says about that.

    Args:
        path: the file.
        check: refuses what the header says, or returns the image's grid; called before memory is
            taken for the pixels.

    Returns:
        The pixels as SimpleITK gives them: the stored type or, where the header scales them,
        float32 (float64 for float64).

    Raises:
        FormatError: the file breaks the format.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        start = _inflate_start(file) if zipped else file.read(_HEADER_BYTES)
        fields = _fields(start)
        scale = _scaling(fields)
        # NaN and infinity are refused, without numpy's warnings on the terminal.
        with np.errstate(all="ignore"):
            header = _header(fields, scaled=scale is not None)
        geometry = check(header)
        first = _first_pixel(fields)
        count = math.prod(geometry.size_xyz)
        if zipped:
            file.seek(0)
            whole = np.empty(first + count * header.dtype.itemsize, np.uint8)
            inflate(file.read(), whole.data, "gzip")
            pixels = whole[first:]
            if first % header.dtype.itemsize:
                pixels = pixels.copy()
            pixels = native(pixels.view(header.dtype))
        else:
            file.seek(first)
            pixels = read_raw(file, count, header.dtype)
    if scale is not None:
        pixels = _scaled(pixels, scale, header.result or header.dtype)
    return Volume(pixels.reshape(geometry.shape_zyx), geometry)


def _inflate_start(file: BinaryIO) -> bytes:
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    start = b""
    try:
        while len(start) < _HEADER_BYTES and (data := file.read(1 << 12)):
            start += stream.decompress(data, _HEADER_BYTES - len(start))
    except zlib.error as error:
        raise FormatError("its compressed data is damaged") from error
    return start


def _fields(start: bytes) -> Any:
    """The header's fields, by nibabel."""
    from nibabel.nifti1 import Nifti1Header

    if len(start) < _HEADER_BYTES:
        raise FormatError("its header ends early")
    # Without nibabel's own checks, which repair some faults with a warning.
    fields = Nifti1Header.from_fileobj(io.BytesIO(start), check=False)
    if int(fields["sizeof_hdr"]) != _HEADER_BYTES or bytes(start[344:348]) != b"n+1\0":
        raise FormatError("it is not NIfTI-1 in one file")
    return fields


def _header(fields: Any, *, scaled: bool) -> Header:
    axes = int(fields["dim"][0])
    if not 1 <= axes <= 7:
        raise FormatError(f"its header says {axes} dimensions")
    size = [int(n) for n in fields["dim"][1 : axes + 1]]
    if min(size) < 1:
        raise FormatError(f"its header says a size of {'×'.join(map(str, size))}")
    # A time axis of one point is a volume.
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    dtype = _dtype(fields)
    if len(size) != 3 or dtype.kind not in "iuf":
        # It will be refused for that, whatever its grid.
        return Header(tuple(size), dtype)
    spacing, affine = _grid(fields)
    to_lps = np.array([-1.0, -1.0, 1.0])
    direction = to_lps[:, None] * affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    origin = to_lps * affine[:3, 3]
    result = np.dtype("f8" if dtype.itemsize == 8 and dtype.kind == "f" else "f4")
    return Header(
        tuple(size),
        dtype,
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(value) for value in direction.ravel()),
        result=result if scaled else None,
    )


def _dtype(fields: Any) -> np.dtype:
    code = int(fields["datatype"])
    try:
        dtype = np.dtype(fields.get_data_dtype())
    except (KeyError, ValueError) as error:
        raise FormatError(f"its data type {code} is not read") from error
    if dtype.itemsize == 0 or dtype.itemsize * 8 != int(fields["bitpix"]):
        raise FormatError(f"its data type {code} does not have {int(fields['bitpix'])} bits")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise FormatError("its data type float128 is not read")
    return dtype


def _grid(fields: Any) -> tuple[np.ndarray, np.ndarray]:
    """The voxel sizes along x, y, z, mm, and the 4×4 map from voxels to RAS, mm."""
    from nibabel.spatialimages import HeaderDataError

    sform, qform = int(fields["sform_code"]), int(fields["qform_code"])
    if sform <= 0 and qform <= 0:
        raise FormatError(
            "it does not say how the image lies in the patient, its sform_code and qform_code are 0"
        )
    unit = int(fields["xyzt_units"]) & 7
    names = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
    if unit not in names:
        raise FormatError(f"its unit of length has the unknown code {unit}")
    sizes = np.asarray(fields["pixdim"][1:4], float)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise FormatError("its voxel sizes are not positive numbers")
    try:
        # ITK's choice; others prefer the sform, whatever its code.
        by_sform = sform == _SCANNER or qform <= 0
        affine = fields.get_sform() if by_sform else fields.get_qform()
    except (HeaderDataError, ValueError) as error:
        raise FormatError("its quaternion is not one") from error
    affine = np.asarray(affine, float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(lengths, sizes, rtol=_SIZE_TOLERANCE, atol=0.0):
        raise FormatError(
            f"its voxels are {'×'.join(f'{n:.6g}' for n in sizes)} large by pixdim and "
            f"{'×'.join(f'{n:.6g}' for n in lengths)} by its affine map"
        )
    millimetres = _MILLIMETRES[names[unit]]
    affine[:3] *= millimetres
    return sizes * millimetres, affine


def _first_pixel(fields: Any) -> int:
    first = float(fields["vox_offset"])
    if not (_FIRST_PIXEL <= first <= _MOST_EXTENSIONS and first.is_integer()):
        raise FormatError(f"its pixels cannot begin at byte {first:g}")
    return int(first)


def _scaling(fields: Any) -> tuple[float, float] | None:
    """Slope and intercept, or None where pixels are meant as stored."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or math.isnan(slope):
        if intercept != 0 and not math.isnan(intercept):
            raise FormatError("it has an intercept without a slope")
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise FormatError(f"its pixels are scaled by {slope:g} and {intercept:g}")
    return None if (slope, intercept) == (1.0, 0.0) else (slope, intercept)


def _scaled(pixels: np.ndarray, scale: tuple[float, float], dtype: np.dtype) -> np.ndarray:
    """Slope times pixel plus intercept, in double precision, a part at a time."""
    result = np.empty(pixels.shape, dtype)
    step = 1 << 20
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, pixels.size, step):
            part = pixels[start : start + step].astype(np.float64)
            result[start : start + step] = part * scale[0] + scale[1]
    return result
