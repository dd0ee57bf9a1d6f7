"""The engine against nnU-Net's own predictor and ensembling, on the same model folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.ensembling.ensemble import average_probabilities
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy import ndimage
from stock import stock_labels, with_stock_trainer

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import read_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.roi import bounding_box, crop
from gc_panther.nnunet.inference import backends
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.panther.labels import tumour_label
from gc_panther.settings import bundled_resources
from gc_panther.task import RunContext

#: name -> (size, spacing) along x, y, z; the tiny model's spacing is 2 × 2 × 4 mm.
GEOMETRIES = {
    "both grids alike": ((24, 22, 12), (2.0, 2.0, 4.0)),
    "finer than the network": ((40, 42, 16), (1.19, 1.19, 3.0)),
    "thick slices, resampled by themselves": ((32, 28, 7), (1.5, 1.5, 6.5)),
    "sagittal slices": ((6, 28, 30), (6.6, 1.7, 1.9)),
    "smaller than a patch": ((12, 10, 4), (1.8, 2.1, 4.4)),
    "coarser than the network": ((16, 18, 10), (3.1, 2.9, 5.0)),
}


#: All of them in the second tier; those that differ most from each other in the first.
SOME = ("finer than the network", "thick slices, resampled by themselves", "smaller than a patch")
EACH_GEOMETRY = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SOME else pytest.mark.slow) for n in GEOMETRIES]
)


def image(name):
    size, spacing = GEOMETRIES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    smooth = ndimage.gaussian_filter(rng.normal(size=size[::-1]), 2)
    array = (900 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.int16) + 1
    array[2:3, 4:9, 4:8] = 0
    array[:1], array[:, :2], array[:, :, -1:] = 0, 0, 0
    return Volume(array, Geometry(size, spacing))


class Stock:
    """nnU-Net's answers to a volume."""

    def __init__(self, model, volume, **options):
        self.model, self.volume, self.options = model, volume, options

    def predict(self, folds, probabilities=False):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, **self.options)
        predictor.initialize_from_trained_model_folder(str(self.model.path), tuple(folds))
        array = self.volume.array_zyx[None].astype(np.float32)
        properties = {"spacing": list(self.volume.geometry.spacing_zyx)}
        return predictor.predict_single_npy_array(array, properties, None, None, probabilities)

    def logits(self):
        """``nnUNetv2_predict -f 0 1 2``."""
        return self.predict(self.model.checkpoints)

    def probabilities(self, folder):
        """``nnUNetv2_predict --save_probabilities`` per fold, ``nnUNetv2_ensemble``: the mean."""
        files = []
        for fold in self.model.checkpoints:
            files.append(str(folder / f"{fold}.npz"))
            np.savez(files[-1], probabilities=self.predict([fold], True)[1])
        return average_probabilities(files)

    def vote(self):
        """``nnUNetv2_predict`` per fold, majority; 255 where that is undecided."""
        labels = [self.predict([fold]) for fold in self.model.checkpoints]
        counts = np.stack([np.sum([own == n for own in labels], 0) for n in (0, 1, 2)])
        return np.where(np.sum(counts == counts.max(0), 0) > 1, 255, counts.argmax(0))


def ours(model, volume, **options):
    options = NnUNetOptions(**{"backend": "torch", **options})
    loaded = Ensemble(model, device="cpu", options=options)
    return loaded.predict(volume, RunContext())


@pytest.fixture
def folder(tiny_model_folder, monkeypatch):
    """Random weights, whose labels are nearly tied: only the same kernels give the same ones."""
    monkeypatch.setattr(backends, "batch_size", lambda device, patch: 1)
    return tiny_model_folder(trainer_name="nnUNetTrainer", patch_zyx=(8, 16, 16))


@pytest.fixture
def model(folder):
    """Two folds, which is enough for a mean."""
    return open_model_folder(folder, (0, 1))


@EACH_GEOMETRY
def test_mean_probabilities(name, model, tmp_path):
    volume = image(name)
    prediction = ours(model, volume, combine="probabilities")
    stock = Stock(model, volume).probabilities(tmp_path)
    assert np.array_equal(prediction.labels_zyx, stock.argmax(0))
    # Logits halfway between two numbers of half precision may be rounded to either.
    difference = np.abs(prediction.probabilities - stock)
    assert difference.max() <= 5e-4
    assert np.mean(difference > 1e-6) <= 1e-2
    assert len(np.unique(stock.argmax(0))) == 3, "a parity test needs all labels"


@EACH_GEOMETRY
def test_mean_logits(name, model):
    volume = image(name)
    prediction = ours(model, volume, combine="logits")
    assert np.array_equal(prediction.labels_zyx, Stock(model, volume).logits())
    assert np.allclose(prediction.probabilities.sum(0), 1.0, atol=1e-5)


def test_votes(folder):
    model = open_model_folder(folder)
    volume = image("finer than the network")
    labels, stock = ours(model, volume, combine="vote").labels_zyx, Stock(model, volume).vote()
    decided = stock != 255
    assert 0 < np.mean(decided) < 1, "some votes should be tied"
    assert np.array_equal(labels[decided], stock[decided])


@pytest.mark.parametrize(
    ("option", "stock"),
    [
        ({"mirroring": False}, {"use_mirroring": False}),
        ({"step_size": 0.8}, {"tile_step_size": 0.8}),
    ],
    ids=["no mirroring", "wider steps"],
)
def test_options_mean_what_they_mean_in_nnunet(option, stock, model):
    volume = image("coarser than the network")
    prediction = ours(model, volume, combine="logits", **option)
    assert np.array_equal(prediction.labels_zyx, Stock(model, volume, **stock).logits())


@pytest.mark.parametrize(("forward", "backward"), [([1, 0, 2], [1, 0, 2]), ([2, 0, 1], [1, 2, 0])])
def test_plans_that_turn_the_axes(forward, backward, folder):
    file = folder / "plans.json"
    plans = json.loads(file.read_text())
    file.write_text(
        json.dumps({**plans, "transpose_forward": forward, "transpose_backward": backward})
    )
    turned = open_model_folder(folder, (0,))
    volume = image("finer than the network")
    prediction = ours(turned, volume, combine="logits")
    assert np.array_equal(prediction.labels_zyx, Stock(turned, volume).logits())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("name", ["task1", "task2"])
def test_the_bundled_models(name, backend, tmp_path):
    """Two folds on the middle of the bundled case; benchmarks/parity.py takes all of it."""
    folder = bundled_resources() / name
    model = open_model_folder(folder, (0, 1))
    case = read_image(next(Path(f"test/cases/{name}/input/images").rglob("*.mha")))
    reference = read_image(next(Path(f"test/cases/{name}").glob("expected/reference.mha")))
    box = bounding_box(reference.array_zyx == 1)
    box = box.dilate_mm(40, case.geometry).clip(case.geometry.shape_zyx)
    volume = to_lps(crop(case, box))
    stock = stock_labels(
        with_stock_trainer(folder, tmp_path / name), (0, 1), volume, "probabilities"
    )
    labels, tumour = ours(model, volume, backend=backend).labels_zyx, tumour_label(model)
    # The crop is all organ: of a whole image, where nearly all is background, it is a small part.
    assert np.mean(labels != stock) <= {"torch": 1e-5, "openvino": 1e-4}[backend]
    a, b = labels == tumour, stock == tumour
    assert a.any()
    # The tumour has some hundred voxels here; OpenVINO may turn two of those that are all but tied.
    dice = 2 * np.sum(a & b) / (a.sum() + b.sum())
    assert dice >= {"torch": 0.9995, "openvino": 0.995}[backend]
