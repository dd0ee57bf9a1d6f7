"""The localizer against the unmodified ``mrsegmentator.inference.infer``."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gc_panther_task2.localizer import PANCREAS_LABEL, SPACING_XYZ, Localizer
from scipy import ndimage
from stock import with_stock_trainer

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.imaging.roi import bounding_box
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.settings import bundled_resources
from gc_panther.task import RunContext, Runtime

LABELS = {
    "background": 0,
    **{"pancreas" if n == PANCREAS_LABEL else f"organ_{n}": n for n in range(1, 41)},
}

INFER = """
import sys
from mrsegmentator.inference import infer
if __name__ == "__main__":
    folds = [int(fold) for fold in sys.argv[3].split(",")]
    infer([sys.argv[1]], sys.argv[2], folds=folds, cpu_only=True, batchsize=1, nproc=1,
          nproc_export=1, allow_tqdm=False)
"""


def blobs(seed=0):
    """A smooth image with an oblique direction, air around it, and an unusual spacing."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(22, 60, 66)), 3)
    noise = 400 * (noise - noise.min()) / np.ptp(noise)
    noise[:, :6], noise[:, :, -5:] = 0, 0
    direction = (-0.96, 0.28, 0.0, -0.28, -0.96, 0.0, 0.0, 0.0, 1.0)
    return Volume(
        noise.astype(np.float32),
        Geometry((66, 60, 22), (1.4, 1.6, 3.5), (9.0, -7.0, 3.0), direction),
    )


def let_only_the_pancreas_compete(model):
    """Make a random network label about half of the image as pancreas, the rest as background."""
    for path in model.glob("fold_*/*.pth"):
        checkpoint = torch.load(path, weights_only=True)
        for name, head in checkpoint["network_weights"].items():
            if "seg_layers" in name:
                others = [n for n in range(len(LABELS)) if n != PANCREAS_LABEL]
                head[others] = 0.0
                if name.endswith("bias"):
                    head[PANCREAS_LABEL] = 0.0
        torch.save(checkpoint, path)


def box_by_infer(image, model, folds, folder):
    """The pancreas' box on the resampled image, and the labels, from MRSegmentator itself."""
    write_image(resample(to_lps(image), SPACING_XYZ), folder / "image.mha", compress=False)
    (folder / "infer.py").write_text(INFER)
    environment = {**os.environ, "MRSEG_WEIGHTS_PATH": str(model), "OMP_NUM_THREADS": "1"}
    arguments = [folder / "image.mha", folder / "out", ",".join(map(str, folds))]
    done = subprocess.run(
        [sys.executable, folder / "infer.py", *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    labels = read_image(folder / "out" / "image_seg.mha")
    return bounding_box(labels.array_zyx == PANCREAS_LABEL), labels.array_zyx


def assert_same_box(image, model, folds, tmp_path):
    own = with_stock_trainer(model, tmp_path / "mrsegmentator")
    expected, labels = box_by_infer(image, own, folds, tmp_path)
    assert expected is not None, "a parity test needs some pancreas"
    share = np.mean(labels == PANCREAS_LABEL)
    assert 0 < share < 0.9, "a parity test needs some background"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    runtime = Runtime("cpu", NnUNetOptions(), {"mrsegmentator": model}, scratch)
    pancreas = Localizer(runtime).find(to_lps(image), RunContext())
    assert bounding_box(pancreas.mask.array_zyx) == expected
    disagreement = np.mean(pancreas.mask.array_zyx != (labels == PANCREAS_LABEL))
    assert disagreement <= 1e-4
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_two_folds_of_a_small_model(tiny_model_folder, tmp_path):
    model = tiny_model_folder(labels=LABELS, folds=(0, 1), trainer_name="nnUNetTrainer")
    let_only_the_pancreas_compete(model)
    assert_same_box(blobs(), model, (0, 1), tmp_path)


@pytest.mark.slow
def test_the_bundled_model(tmp_path):
    model = bundled_resources() / "mrsegmentator"
    case = next(Path("test/cases/task2/input/images").rglob("*.mha"))
    folds = sorted(open_model_folder(model).checkpoints)
    assert_same_box(read_image(case), model, folds, tmp_path)
