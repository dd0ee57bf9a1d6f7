"""Image files and SimpleITK images as :class:`~gc_panther.case.Volume`, and back."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError, OutputError
from gc_panther.imaging.headers import check_header, check_voxels

#: Endings of formats whose pixels lie in a second file, which cannot be replaced in one step.
TWO_FILE_ENDINGS = (".mhd", ".nhdr", ".hdr", ".img")


def read_image(path: Path) -> Volume:
    """Read a three-dimensional image with one value per voxel.

    The file may come from anywhere: what its header asks for is checked first
    (:mod:`gc_panther.imaging.headers`).

    Args:
        path: a file in any format that SimpleITK reads.

    Returns:
        The pixels as stored (type and order unchanged) with their geometry.

    Raises:
        InputError: the file is missing, empty or damaged, too large, takes its pixels from
            elsewhere, or holds something else than a 3-D image of finite real numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such image file", where=path, fix="Check the path")
    if path.stat().st_size == 0:
        raise InputError("the image file is empty", where=path, fix="Copy or export it again")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        check_header(path, reader.GetImageIOFromFileName(str(path)))
        # The header first: a wrong kind of image is refused before its pixels are loaded.
        reader.ReadImageInformation()
        _check_kind(
            reader.GetSize(), reader.GetNumberOfComponents(), reader.GetPixelID(), where=path
        )
        check_voxels(reader.GetSize(), where=path)
        _check_nifti_length(path, reader)
        image = reader.Execute()
    # SimpleITK raises nothing more specific; the others come from a damaged gzip stream.
    except (RuntimeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"the image file is damaged, incomplete or cannot be read{_reason(error)}",
            where=path,
            fix="Check that it is complete and of a type SimpleITK reads, such as .mha or .nii.gz",
        ) from error
    return from_sitk(image, where=path)


def from_sitk(image: sitk.Image, *, where: str | Path = "image") -> Volume:
    """Take the pixels and the geometry out of a SimpleITK image.

    Args:
        image: the image; its pixels are copied.
        where: what the error message calls it.

    Raises:
        InputError: it is not three-dimensional, has no voxels, several values per voxel, complex
            values, or NaN or infinity among its values.
    """
    _check_kind(
        image.GetSize(), image.GetNumberOfComponentsPerPixel(), image.GetPixelID(), where=where
    )
    array_zyx = sitk.GetArrayFromImage(image)
    if array_zyx.dtype.kind == "f" and not np.isfinite(array_zyx).all():
        raise InputError(
            "the image holds NaN or infinite values",
            where=where,
            fix="Replace them by finite numbers, or export the image again",
        )
    return Volume(
        array_zyx,
        Geometry(
            size_xyz=image.GetSize(),
            spacing_xyz=image.GetSpacing(),
            origin_xyz=image.GetOrigin(),
            direction=image.GetDirection(),
        ),
    )


def to_sitk(volume: Volume) -> sitk.Image:
    """Return the volume as a SimpleITK image; truth values become uint8."""
    array_zyx = volume.array_zyx
    if array_zyx.dtype == np.bool_:
        array_zyx = array_zyx.astype(np.uint8)
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(volume.geometry.spacing_xyz)
    image.SetOrigin(volume.geometry.origin_xyz)
    image.SetDirection(volume.geometry.direction)
    return image


def write_image(volume: Volume, path: Path, *, compress: bool = True) -> None:
    """Write an image so that ``path`` either holds all of it or is left as it was.

    Args:
        volume: what to write.
        path: the file; its ending chooses the format.
        compress: compress the pixels where the format can.

    Raises:
        OutputError: the format needs two files, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() in TWO_FILE_ENDINGS:
        raise OutputError(
            f"images are written as one file, and {path.suffix} needs two",
            where=path,
            fix="Choose .mha or .nii.gz",
        )
    # The ending stays last, because it chooses the format.
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        sitk.WriteImage(to_sitk(volume), str(partial), useCompression=compress)
        partial.replace(path)
    except (RuntimeError, OSError) as error:
        raise OutputError(
            f"the image cannot be written{_reason(error)}",
            where=path,
            fix="Check the folder, the free space and the file's ending (.mha, .nii.gz)",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _check_kind(
    size_xyz: tuple[int, ...], components: int, pixel_id: int, *, where: str | Path
) -> None:
    """Refuse what is not a scalar, real, non-empty 3-D image."""
    if len(size_xyz) != 3 or 0 in size_xyz:
        raise InputError(
            f"the image is not a volume (its size is {'×'.join(map(str, size_xyz))})",
            where=where,
            fix="Give one three-dimensional image",
        )
    if components != 1 or pixel_id in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(
            "the image has several values per voxel, as colour and complex images have",
            where=where,
            fix="Give a greyscale image",
        )


def _check_nifti_length(path: Path, reader: sitk.ImageFileReader) -> None:
    """Raise EOFError for a NIfTI file that ends early; ITK would fill in zeros without a word."""
    # Not by the header's keys alone: files converted from NIfTI may still carry them.
    if reader.GetImageIOFromFileName(str(path)) != "NiftiImageIO":
        return
    bits = math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix"))
    expected = int(float(reader.GetMetaData("vox_offset"))) + bits // 8
    with path.open("rb") as stored:
        zipped = stored.read(2) == b"\x1f\x8b"
    if not zipped:
        length = path.stat().st_size
    else:
        with gzip.open(path) as stream:
            length = 0
            # No further than the image goes: what follows may be endless.
            while length < expected and (data := stream.read(1 << 20)):
                length += len(data)
    if length < expected:
        raise EOFError(f"{length} of {expected} bytes are there")


def _reason(error: Exception) -> str:
    """Why a file could not be handled, in parentheses, as far as the error says it for people.

    ITK's own errors name classes and addresses, and the last system error, which is about
    something else.
    """
    text = str(error).strip()
    return "" if "ITK ERROR" in text or not text else f" ({text.splitlines()[-1]})"
