from types import SimpleNamespace

import numpy as np
import pytest

from gc_panther.case import Geometry, Volume
from gc_panther.panther import tumour as module
from gc_panther.panther.tumour import segment_tumour
from gc_panther.task import RunContext

TUMOUR = 2


class FakeEnsemble:
    """Answers with given labels and tumour probabilities."""

    model = "a model"

    def __init__(self, labels_zyx, probability_zyx=None):
        self._prediction = SimpleNamespace(
            labels_zyx=labels_zyx,
            probability_zyx=lambda label: {TUMOUR: probability_zyx}[label],
            facts={"folds": [0, 1]},
        )

    def predict(self, volume_lps, run, *, label):
        assert label == TUMOUR
        return self._prediction


@pytest.fixture(autouse=True)
def tumour_is_two(monkeypatch):
    monkeypatch.setattr(module, "tumour_label", {"a model": TUMOUR}.__getitem__)


VOLUME = Volume(np.zeros((4, 8, 8), np.float32), Geometry((8, 8, 4), (1.0, 1.0, 1.0)))


def test_only_the_tumour_s_label_is_taken():
    labels = np.zeros((4, 8, 8), np.int16)
    labels[1, 2:4, 2:4], labels[2] = TUMOUR, 1
    tumour = segment_tumour(FakeEnsemble(labels), VOLUME, RunContext())
    assert tumour.mask_zyx.dtype == np.uint8
    assert np.array_equal(tumour.mask_zyx, labels == TUMOUR)
    assert tumour.details == {"folds": [0, 1], "empty_mask": "no"}
    assert tumour.notes == ()
    assert tumour.warnings == ()


@pytest.fixture
def no_tumour():
    probability = np.full((4, 8, 8), 0.01, np.float32)
    probability[1:3, 5:7, 5:7] = 0.4
    probability[0, 0, 0] = 0.2
    return FakeEnsemble(np.zeros((4, 8, 8), np.uint8), probability)


def test_an_empty_mask_becomes_the_most_probable_component(no_tumour):
    tumour = segment_tumour(no_tumour, VOLUME, RunContext())
    assert tumour.mask_zyx.dtype == np.uint8
    assert set(np.unique(tumour.mask_zyx)) == {0, 1}
    assert tumour.mask_zyx[1:3, 5:7, 5:7].all()
    assert not tumour.mask_zyx[0, 0, 0]
    assert tumour.details["empty_mask"] == "most probable component kept"
    (warning,) = tumour.warnings
    assert "found no tumour" in warning
    assert "(8 voxels, 0.008 mL)" in warning
    assert "--never-empty" in warning
    assert tumour.notes == ()


def test_a_single_invented_voxel_is_one_voxel():
    probability = np.full((4, 8, 8), 0.01, np.float32)
    probability[2, 3, 3] = 0.4
    empty = FakeEnsemble(np.zeros((4, 8, 8), np.uint8), probability)
    (warning,) = segment_tumour(empty, VOLUME, RunContext()).warnings
    assert "(1 voxel, 0.001 mL)" in warning


def test_an_empty_mask_is_kept_on_request(no_tumour):
    tumour = segment_tumour(no_tumour, VOLUME, RunContext(), keep_empty=True)
    assert not tumour.mask_zyx.any()
    assert tumour.details["empty_mask"] == "kept empty"
    assert tumour.warnings == ("The networks found no tumour: the mask is empty",)
