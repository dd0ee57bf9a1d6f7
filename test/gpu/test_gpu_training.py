"""A training on a GPU, from phantoms to a model folder that predicts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gc_panther_task1.training import Task1Recipe

from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.training.recipe import Network, Schedule
from gc_panther.panther.training.recipe import PhantomCases

pytestmark = pytest.mark.gpu

DRIVER = Path(__file__).parents[1] / "tiny_training.py"
SPACING = (9.0, 9.0, 9.0)


def recipe(optimizer):
    return Task1Recipe(
        folds=2,
        schedule=Schedule(
            epochs=3,
            learning_rate=0.01,
            iterations_per_epoch=4,
            validation_iterations=2,
            oversample_foreground=1.0,
            optimizer=optimizer,
            augmentation="light" if optimizer == "adamw" else "full",
            save_every=1,
        ),
        network=Network(
            spacing_zyx=SPACING,
            patch_zyx=(16, 16, 16),
            features=(4, 8, 8),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
            kernels=((3, 3, 3),) * 3,
            blocks=(1, 1, 1),
            decoder_convs=(1, 1),
        ),
        phantoms=PhantomCases(task="task1", cases=4, seed=7, spacing_xyz=SPACING),
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_runs_on_the_gpu(optimizer, tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(recipe(optimizer).model_dump_json())
    command = [sys.executable, str(DRIVER), str(file), "train", "task1", "--device", "cuda"]
    command += ["--jobs", "2", "--work", str(tmp_path / "work"), "--export", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    model = open_model_folder(tmp_path / "m" / "task1")
    assert sorted(model.checkpoints) == [0, 1]
    assert all(torch.isfinite(value).all() for value in model.read_weights(1).values())
    assert "cuda" in (tmp_path / "m" / "task1" / "MODEL_CARD.md").read_text()
    assert json.loads((tmp_path / "m" / "task1" / "plans.json").read_text())
