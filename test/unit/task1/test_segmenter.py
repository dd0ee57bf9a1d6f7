import itertools
from types import SimpleNamespace

import gc_panther_task1.segmenter as module
import numpy as np
import pytest

from gc_panther.case import Case, Geometry, Volume
from gc_panther.imaging.orientation import from_lps, lps_geometry
from gc_panther.panther import tumour
from gc_panther.panther.options import PantherOptions
from gc_panther.task import RunContext, Runtime

SIZE_XYZ = (6, 5, 4)
SPACING_XYZ = (1.2, 1.1, 3.0)


class FakeEnsemble:
    """Sees a tumour in a fixed place of the LPS grid, and notes what it was given."""

    def __init__(self, model, *, device, options):
        self.model = model
        self.device, self.options, self.seen = device, options, []

    def predict(self, volume_lps, run, *, label):
        self.seen.append(volume_lps)
        labels = np.zeros(volume_lps.geometry.shape_zyx, np.uint8)
        if volume_lps.array_zyx.any():
            labels[0, 1, 2] = 1
        probability = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape)
        return SimpleNamespace(
            labels_zyx=labels, probability_zyx=lambda label: probability, facts={"folds": [0]}
        )


@pytest.fixture
def load(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(module, "open_model_folder", lambda *given: opened.append(given) or given)
    monkeypatch.setattr(module, "Ensemble", FakeEnsemble)
    monkeypatch.setattr(tumour, "tumour_label", lambda model: 1)

    def load(**options):
        runtime = Runtime("cpu", PantherOptions(**options), {"task1": tmp_path}, tmp_path)
        return module.Task1Segmenter(runtime), opened

    return load


def case_of(volume):
    return Case("a case", {"abdominal-t1-mri": volume})


def test_the_required_folds_are_loaded(load, tmp_path):
    assert load()[1] == [(tmp_path, (0, 1, 2, 3, 4))]


def test_the_user_s_folds_are_loaded(load, tmp_path):
    assert load(folds=(1, 3))[1] == [(tmp_path, (1, 3))]


@pytest.mark.parametrize(
    "direction",
    [
        np.eye(3)[:, order] * signs
        for order in itertools.permutations(range(3))
        for signs in [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)]
    ],
)
def test_the_mask_lies_where_the_network_put_it(load, direction):
    segmenter, _ = load()
    geometry = Geometry(SIZE_XYZ, SPACING_XYZ, (3.0, -4.0, 5.0), tuple(direction.ravel()))
    image = Volume(np.ones(geometry.shape_zyx, np.int16), geometry)
    result = segmenter.predict(case_of(image), RunContext())
    expected = np.zeros(lps_geometry(geometry).shape_zyx, np.uint8)
    expected[0, 1, 2] = 1
    assert result.mask.geometry == geometry
    assert result.mask.array_zyx.dtype == np.uint8
    assert np.array_equal(result.mask.array_zyx, from_lps(expected, geometry))
    (seen,) = segmenter._ensemble.seen
    assert np.allclose(seen.geometry.direction, np.eye(3).ravel())


@pytest.mark.parametrize("never_empty", [True, False])
def test_an_empty_mask_is_filled_if_asked_for(load, never_empty):
    segmenter, _ = load(never_empty=never_empty)
    geometry = Geometry(SIZE_XYZ, SPACING_XYZ)
    image = Volume(np.zeros(geometry.shape_zyx, np.int16), geometry)
    result = segmenter.predict(case_of(image), RunContext())
    assert result.mask.array_zyx.any() == never_empty
    (warning,) = result.warnings
    assert "found no tumour" in warning
