import numpy as np
import pytest
import torch

from gc_panther.nnunet.training import cross_validation
from gc_panther.nnunet.training.cross_validation import curves_of, draw_curves

CURVES = [
    {"train_losses": [1.0, 0.5, 0.2], "val_losses": [1.1, 0.7, 0.6], "pseudo_dice": [0, 0.3, 0.6]}
] * 2


def test_curves_are_nnunets(tmp_path):
    logged = {
        "train_losses": [np.float32(1.0), np.float32(0.5), np.float32(0.25)],
        "val_losses": [1.5, 1.0, 0.5],
        "dice_per_class_or_region": [[0.0, 0.2], [np.nan, 0.4], [np.nan, np.nan]],
    }
    logged = {name: np.asarray(values).tolist() for name, values in logged.items()}
    (tmp_path / "fold_0").mkdir()
    content = {"network_weights": {}, "logging": logged}
    torch.save(content, tmp_path / "fold_0" / "checkpoint_final.pth")
    (curves,) = curves_of(tmp_path, 1)
    assert curves == {
        "train_losses": [1.0, 0.5, 0.25],
        "val_losses": [1.5, 1.0, 0.5],
        "pseudo_dice": pytest.approx([0.1, 0.4, 0.0]),
    }


def test_every_fold_has_its_curves():
    losses, dice = draw_curves(CURVES).axes
    assert len(losses.lines) == 2 * len(CURVES)
    assert [line.get_ydata().tolist() for line in dice.lines] == [[0, 0.3, 0.6]] * 2


def test_a_label_map_older_than_its_network_is_forgotten(tmp_path):
    label, checkpoint = tmp_path / "label.mha", tmp_path / "checkpoint_final.pth"
    checkpoint.touch()
    label.touch()
    cross_validation._forget_older(label, checkpoint)
    assert label.is_file()
    checkpoint.write_bytes(b"trained again")
    cross_validation._forget_older(label, checkpoint)
    assert not label.is_file()
