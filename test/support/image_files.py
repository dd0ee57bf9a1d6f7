"""Image files as tests need them: good ones by SimpleITK, and headers written by hand."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st

from gc_panther.case import Volume
from gc_panther.errors import InputError
from gc_panther.imaging.images import read_image

#: A file that no image may show.
SECRET = b"root:x:0:0:the content of a file that is none of an image's business" * 20
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def metaimage(
    path: Path,
    *,
    size: str = "10 10 10",
    kind: str = "MET_UCHAR",
    data: str = "LOCAL",
    pixels: bytes = b"",
    extra: str = "",
    spacing: str = "1 1 1",
) -> Path:
    """A MetaImage whose header is written by hand."""
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"{extra}TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        f"ElementSpacing = {spacing}\nDimSize = {size}\nElementType = {kind}\n"
    )
    line = data if data.startswith("ElementDataFile") else f"ElementDataFile = {data}"
    path.write_bytes(f"{header}{line}\n".encode() + pixels)
    return path


def assert_refused(path: Path, match: str) -> None:
    """The image is refused in one line that names it."""
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def assert_as_simpleitk_reads(path: Path, tolerance: float = 0.0) -> Volume:
    """The image is what SimpleITK reads from the same file; the geometry within a tolerance."""
    expected = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(expected)
    volume = read_image(path)
    assert volume.array_zyx.dtype == array.dtype
    assert np.array_equal(volume.array_zyx, array)
    geometry = volume.geometry
    assert geometry.size_xyz == expected.GetSize()
    for mine, other in (
        (geometry.spacing_xyz, expected.GetSpacing()),
        (geometry.origin_xyz, expected.GetOrigin()),
        (geometry.direction, expected.GetDirection()),
    ):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
    return volume


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """The rotation of a quaternion, 3×3."""
    a, b, c, d = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )


@st.composite
def images(draw: st.DrawFn) -> sitk.Image:
    """Small images of any type on any grid, also mirrored ones."""
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    return random_image(np.random.default_rng(seed), dtype)


def random_image(rng: np.random.Generator, dtype: np.dtype) -> sitk.Image:
    """A small image of one type on any grid, also a mirrored one."""
    shape = rng.integers(1, 8, 3)
    if dtype.kind == "f":
        array = (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 6)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        array = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((10.0 ** rng.uniform(-1, 1, 3)).tolist())
    image.SetOrigin(rng.uniform(-500, 500, 3).tolist())
    axes = rotation(rng.normal(size=4)) if rng.random() < 0.7 else np.eye(3)
    axes = axes[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    image.SetDirection(axes.ravel().tolist())
    return image
