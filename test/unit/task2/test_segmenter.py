import itertools
from dataclasses import replace
from types import SimpleNamespace

import gc_panther_task2.segmenter as module
import numpy as np
import pytest
from gc_panther_task2.localizer import SPACING_XYZ, Pancreas

from gc_panther.case import Case, Geometry, Volume
from gc_panther.imaging.orientation import from_lps, lps_geometry, to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.panther import tumour
from gc_panther.panther.options import PantherOptions
from gc_panther.task import RunContext, Runtime

ORDERS = [
    np.eye(3)[:, order] * signs
    for order in itertools.permutations(range(3))
    for signs in [(1, 1, 1), (-1, 1, -1)]
]


class FakeLocalizer:
    """Sees the pancreas where the image is brighter than 50."""

    def __init__(self, runtime):
        pass

    def find(self, volume_lps, run):
        searched = resample(volume_lps, SPACING_XYZ)
        return Pancreas(Volume(searched.array_zyx > 50, searched.geometry), {"folds": [0]})


class FakeEnsemble:
    """Sees the tumour where the image is brighter than 90."""

    def __init__(self, model, *, device, options):
        self.model, self.seen = model, []

    def predict(self, volume_lps, run, *, label):
        self.seen.append(volume_lps)
        return SimpleNamespace(
            labels_zyx=(volume_lps.array_zyx > 90).astype(np.uint8),
            probability_zyx=lambda label: volume_lps.array_zyx / 100,
            facts={"folds": [0, 1, 2]},
        )


@pytest.fixture
def load(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "open_model_folder", lambda path, folds: folds)
    monkeypatch.setattr(module, "Ensemble", FakeEnsemble)
    monkeypatch.setattr(module, "Localizer", FakeLocalizer)
    monkeypatch.setattr(tumour, "tumour_label", lambda model: 1)

    def load(**options):
        options = PantherOptions(**{"never_empty": True, **options})
        runtime = Runtime("cpu", options, {"task2": tmp_path}, tmp_path)
        return module.Task2Segmenter(runtime)

    return load


def image_of(direction, *, pancreas=60.0, tumour=100.0):
    """An image with a block of pancreas and a tumour in it, stored in any order."""
    lps = np.zeros((40, 90, 80), np.float32)
    lps[12:24, 45:60, 36:48] = pancreas
    lps[14:18, 47:52, 38:42] = tumour
    sizes, spacings = np.array(lps.shape[::-1]), np.array((1.0, 1.0, 2.0))
    stored = np.abs(direction).argmax(axis=0)  # LPS axis behind each stored axis
    geometry = Geometry(
        tuple(sizes[stored].tolist()),
        tuple(spacings[stored].tolist()),
        (3.0, -4.0, 5.0),
        tuple(direction.ravel()),
    )
    assert lps_geometry(geometry).shape_zyx == lps.shape
    return Volume(from_lps(lps, geometry), geometry)


def segment(segmenter, image):
    return segmenter.predict(Case("a case", {"abdominal-t2-mri": image}), RunContext())


@pytest.mark.parametrize("direction", ORDERS)
def test_the_tumour_is_put_back_and_the_region_is_in_the_input_s_indices(load, direction):
    segmenter = load()
    image = image_of(direction)
    segmentation = segment(segmenter, image)
    assert segmentation.mask.geometry == image.geometry
    assert np.array_equal(segmentation.mask.array_zyx, (image.array_zyx > 90).astype(np.uint8))
    roi = segmentation.details["roi"]
    cut = image.array_zyx[
        tuple(slice(*ends) for ends in zip(roi["start_xyz"], roi["stop_xyz"], strict=True))[::-1]
    ]
    (seen,) = segmenter._ensemble.seen
    cut_geometry = replace(image.geometry, size_xyz=cut.shape[::-1])
    assert np.array_equal(to_lps(Volume(cut, cut_geometry)).array_zyx, seen.array_zyx)
    assert seen.array_zyx.size < image.array_zyx.size
    assert segmentation.details["localizer"] == {"folds": [0], "found": True}
    assert segmentation.notes == ()
    assert segmentation.warnings == ()


def test_without_a_pancreas_the_whole_image_is_segmented_with_a_warning(load):
    segmenter = load()
    image = image_of(ORDERS[3], pancreas=10.0, tumour=45.0)
    segmentation = segment(segmenter, image)
    assert segmentation.details["roi"] == {
        "start_xyz": [0, 0, 0],
        "stop_xyz": list(image.geometry.size_xyz),
    }
    assert not segmentation.details["localizer"]["found"]
    first, second = segmentation.warnings
    assert first == "No pancreas was found; the whole image was segmented"
    assert "found no tumour" in second
    # and the rule against empty masks holds there, too
    assert np.array_equal(segmentation.mask.array_zyx > 0, image.array_zyx > 10)


def test_an_empty_region_stays_empty_on_request(load):
    segmentation = segment(load(never_empty=False), image_of(ORDERS[0], tumour=60.0))
    assert not segmentation.mask.array_zyx.any()
    assert segmentation.details["empty_mask"] == "kept empty"
    assert segmentation.warnings == ("The networks found no tumour: the mask is empty",)
