"""Both tasks on a real abdominal MRI: unchanged, oblique, and stored flipped.

The image is not part of the project: give one with GC_PANTHER_TEST_MRI.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther import cli
from gc_panther.imaging.images import read_image

ROOT = Path(__file__).resolve().parents[2]
IMAGE = Path(
    os.environ.get("GC_PANTHER_TEST_MRI", ROOT.parent / "shared" / "real" / "abdominal-mr.mha")
)
# Nobody's scan may be redistributed with the project, so elsewhere there is nothing to test with.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IMAGE.is_file(), reason="no real MRI (GC_PANTHER_TEST_MRI)"),
]
TURN = np.radians(9.0)
OBLIQUE = (np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0, 0, 0, 1)


def predict(task: str, image: Path, out: Path) -> np.ndarray:
    """The mask through the command line; its grid has to be the image's."""
    # Never empty, so that there is something to compare: demonstration weights find little here.
    options = ["--never-empty", "--device", "cpu"]
    assert cli.invoke(["predict", task, str(image), "-o", str(out), *options]) == 0
    mask, given = read_image(out), read_image(image)
    assert mask.geometry.size_xyz == given.geometry.size_xyz
    for what in ("spacing_xyz", "origin_xyz", "direction"):
        assert np.allclose(getattr(mask.geometry, what), getattr(given.geometry, what), atol=1e-5)
    assert set(np.unique(mask.array_zyx)) == {0, 1}
    return mask.array_zyx


@pytest.mark.parametrize("task", ["task1", "task2"])
def test_a_real_mri(task, tmp_path):
    image = sitk.ReadImage(str(IMAGE))
    as_it_is = predict(task, IMAGE, tmp_path / "mask.mha")

    flipped = tmp_path / "flipped.nrrd"
    sitk.WriteImage(image[::-1, ::-1, :], str(flipped))
    assert np.array_equal(predict(task, flipped, tmp_path / "f.nrrd")[:, ::-1, ::-1], as_it_is)

    image.SetDirection(OBLIQUE)
    oblique = tmp_path / "oblique.nii.gz"
    sitk.WriteImage(image, str(oblique))
    # The same voxels: only their position in space differs.
    assert np.array_equal(predict(task, oblique, tmp_path / "o.nii.gz"), as_it_is)


def test_the_pancreas_is_found_and_most_of_the_image_left_out(tmp_path):
    """The place itself has no reference here: only that the box is a part of the image."""
    report = tmp_path / "report.json"
    arguments = ["predict", "task2", str(IMAGE), "-o", str(tmp_path / "mask.mha")]
    options = ["--report", str(report), "--folds", "0", "--no-mirroring", "--device", "cpu"]
    assert cli.invoke([*arguments, *options]) == 0
    document = json.loads(report.read_text())
    assert not any("pancreas" in warning for warning in document["warnings"])
    box = np.subtract(document["roi"]["stop_xyz"], document["roi"]["start_xyz"])
    size = read_image(IMAGE).geometry.size_xyz
    assert 0.05 <= np.prod(box) / np.prod(size) <= 2 / 3
