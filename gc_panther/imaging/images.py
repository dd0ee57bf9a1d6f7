"""Image files and SimpleITK images as :class:`~gc_panther.case.Volume`, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError, OutputError, UserError
from gc_panther.files import whole_file
from gc_panther.imaging.checks import check_geometry, check_header, check_kind
from gc_panther.imaging.formats.header import FormatError, Header
from gc_panther.imaging.formats.metaimage import read_metaimage
from gc_panther.imaging.formats.nifti import read_nifti
from gc_panther.imaging.formats.nrrd import read_nrrd
from gc_panther.imaging.formats.tiff import read_tiff
from gc_panther.imaging.geometry import physical_points
from gc_panther.imaging.names import image_ending

_Reader = Callable[[Path, Callable[[Header], Geometry]], Volume]
#: What is read, by the files' endings.
READERS: Mapping[str, _Reader] = {
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".tif": read_tiff,
    ".tiff": read_tiff,
}
#: Formats whose pixels lie in a second file.
TWO_FILE_ENDINGS = (".mhd", ".nhdr")
#: What masks are written as: formats of one file that hold an image's grid.
MASK_ENDINGS = (".mha", ".nii.gz", ".nii", ".nrrd")
#: How far a voxel of a mask may lie from the image's, mm.
_PLACE_TOLERANCE_MM = 1e-3


def read_image(path: Path) -> Volume:
    """Read a three-dimensional image with one value per voxel.

    The file may come from anywhere. Its header is parsed once and strictly
    (:mod:`gc_panther.imaging.formats`), and checked before memory is taken for the pixels
    (:mod:`gc_panther.imaging.checks`).

    Args:
        path: a ``.mha``, ``.mhd``, ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr`` or ``.tif`` file.

    Returns:
        The pixels as stored (type and order unchanged, but for the byte order and NIfTI's scaling)
        with their geometry.

    Raises:
        InputError: the file is missing, empty, damaged or of another format, too large, takes its
            pixels from elsewhere, or holds something else than a 3-D image of finite real numbers
            on a scanner's grid.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError("there is no such image file", where=path, fix="Check the path")
        length = path.stat().st_size
        if length == 0:
            raise InputError("the image file is empty", where=path, fix="Copy or export it again")
        reader = READERS.get(image_ending(path))
        if reader is None:
            raise InputError(
                f"images are not read from {path.suffix or 'files without an ending'}",
                where=path,
                fix=f"Convert it to one of {', '.join(READERS)}",
            )
        volume = reader(path, lambda header: check_header(header, where=path, stored=length))
    except FormatError as error:
        raise InputError(
            f"the image file is damaged, incomplete or cannot be read ({error})",
            where=path,
            fix="Copy it again, or export it as .mha or .nii.gz",
        ) from error
    except OSError as error:
        raise InputError(
            f"the image file cannot be read ({error.strerror or error})",
            where=path,
            fix="Check the path and the permissions",
        ) from error
    _check_finite(volume.array_zyx, where=path)
    return volume


def from_sitk(image: sitk.Image, *, where: str | Path = "image") -> Volume:
    """Take the pixels and the geometry out of a SimpleITK image.

    Args:
        image: the image; its pixels are copied.
        where: what the error message calls it.

    Raises:
        InputError: it is not three-dimensional, has no voxels, several values per voxel, complex
            values, NaN or infinity among its values, or a grid that no scanner makes.
    """
    array_zyx = sitk.GetArrayFromImage(image)
    check_kind(image.GetSize(), image.GetNumberOfComponentsPerPixel(), array_zyx.dtype, where=where)
    _check_finite(array_zyx, where=where)
    geometry = Geometry(
        size_xyz=image.GetSize(),
        spacing_xyz=image.GetSpacing(),
        origin_xyz=image.GetOrigin(),
        direction=image.GetDirection(),
    )
    check_geometry(geometry, where=where)
    return Volume(array_zyx, geometry)


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


def write_image(volume: Volume, path: Path, *, compress: bool = True, level: int = -1) -> None:
    """Write an image so that ``path`` either holds all of it or is left as it was.

    Args:
        volume: what to write.
        path: the file; its ending chooses one of :data:`MASK_ENDINGS`.
        compress: compress the pixels where the format can.
        level: of compression, from 1 (fast) to 9 (small); SimpleITK's own by default.

    Raises:
        OutputError: the format is another one, or the file cannot be written.
    """
    path = Path(path)
    ending = image_ending(path)
    if ending not in MASK_ENDINGS:
        raise OutputError(
            f"images are not written as {path.suffix or 'files without an ending'}",
            where=path,
            fix=f"Choose one of {', '.join(MASK_ENDINGS)}",
        )
    content = encode_image(volume, ending, compress=compress, level=level)
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(None, "there is no such folder")
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise OutputError(
            f"the image cannot be written ({error.strerror or error})",
            where=path,
            fix="Check the folder and the free space",
        ) from error


def encode_image(
    volume: Volume,
    ending: str,
    *,
    compress: bool = True,
    level: int = -1,
    scratch: Path | None = None,
) -> bytes:
    """What a file with the image holds.

    Args:
        volume: the image.
        ending: one of :data:`MASK_ENDINGS`.
        compress: compress the pixels where the format can.
        level: as for :func:`write_image`.
        scratch: a folder for temporary files; the system's where none is given.

    Raises:
        UserError: there is no such folder for temporary files.
        OutputError: that folder is full, or the format cannot hold the image.
    """
    with _temporary_folder(scratch) as folder:
        # Under a name of its own: SimpleITK ends the process over names that are not UTF-8.
        path = folder / f"image{ending}"
        try:
            sitk.WriteImage(
                to_sitk(volume), str(path), useCompression=compress, compressionLevel=level
            )
        except RuntimeError as error:
            raise OutputError(
                f"the image cannot be written as {ending}{_reason(error)}",
                where=folder,
                fix="Check the free space there, or choose .mha",
            ) from error
        return path.read_bytes()


@contextmanager
def _temporary_folder(scratch: Path | None) -> Iterator[Path]:
    where = scratch or tempfile.gettempdir()
    try:
        made = tempfile.TemporaryDirectory(prefix="gc_panther-", dir=scratch)
    except OSError as error:
        raise UserError(
            f"no folder for temporary files can be made{_reason(error)}",
            where=where,
            fix="Set GC_PANTHER_SCRATCH to a folder that can be written",
        ) from error
    try:
        with made as folder:
            yield Path(folder)
    except OSError as error:
        raise OutputError(
            f"the folder for temporary files cannot be written{_reason(error)}",
            where=where,
            fix="Check its free space, or name another one (GC_PANTHER_SCRATCH, TMPDIR)",
        ) from error


def check_mask_format(path: Path, geometry: Geometry, scratch: Path | None = None) -> None:
    """Refuse a file for a mask that would not lie where the image does, before any work.

    A blank mask on the image's grid is written and read back.

    Args:
        path: the mask's file; nothing is written there.
        geometry: the image's.
        scratch: a folder for temporary files; the system's where none is given.

    Raises:
        OutputError: the folder for temporary files is full.
        UserError: the format is not one of :data:`MASK_ENDINGS`, or cannot hold the grid, or there
            is no such folder for temporary files.
    """
    check_mask_ending(path)
    ending = image_ending(path)
    blank = Volume(np.zeros(geometry.shape_zyx, np.uint8), geometry)
    with _temporary_folder(scratch) as folder:
        trial = folder / f"blank{ending}"
        trial.write_bytes(encode_image(blank, ending, scratch=scratch))
        try:
            off_mm = farthest_mm(geometry, read_image(trial).geometry)
            reason = f"a voxel would lie {off_mm:.3g} mm away"
        except InputError as error:
            off_mm, reason = float("inf"), error.what
    if off_mm > _PLACE_TOLERANCE_MM:
        raise UserError(
            f"{ending} cannot hold the image's grid ({reason})",
            where=path,
            fix="Choose .mha for the mask",
        )


def check_mask_ending(path: Path) -> None:
    """Refuse a file for a mask whose ending is not one of :data:`MASK_ENDINGS`.

    Raises:
        UserError: it is another one.
    """
    if image_ending(path) not in MASK_ENDINGS:
        raise UserError(
            f"masks are not written as {path.suffix or 'files without an ending'}",
            where=path,
            fix=f"Choose one of {', '.join(MASK_ENDINGS)}",
        )


def farthest_mm(one: Geometry, other: Geometry) -> float:
    """How far a voxel of one grid is from the same voxel of another, at most, mm.

    It is at one of the corners; infinite where the grids differ in size.
    """
    if one.size_xyz != other.size_xyz:
        return float("inf")
    ends = [(0, n - 1) for n in one.size_xyz]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1).T
    apart = physical_points(one, corners) - physical_points(other, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def _check_finite(array_zyx: np.ndarray, *, where: str | Path) -> None:
    if array_zyx.dtype.kind == "f" and not np.isfinite(array_zyx).all():
        raise InputError(
            "the image holds NaN or infinite values",
            where=where,
            fix="Replace them by finite numbers, or export the image again",
        )


def _reason(error: Exception) -> str:
    """Why a file could not be handled, in parentheses, as far as the error says it for people.

    ITK's own errors name classes and addresses, and the last system error, which is about
    something else.
    """
    text = (getattr(error, "strerror", None) or str(error)).strip()
    return "" if "ITK ERROR" in text or not text else f" ({text.splitlines()[-1]})"
