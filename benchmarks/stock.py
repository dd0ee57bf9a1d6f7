"""nnU-Net's own predictor on our model folders, the peer of every comparison."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gc_panther.case import Volume
from gc_panther.nnunet.model.folder import open_model_folder


def with_stock_trainer(folder: Path, target: Path) -> Path:
    """Write a model folder or pack as checkpoints that name nnU-Net's plain trainer.

    The stock predictor builds the network through the trainer's class. To find a class of another
    name it imports all of nnU-Net's trainers, for which timm and torchvision would have to be
    there. The networks and weights stay the same.
    """
    model = open_model_folder(folder)
    for fold in model.checkpoints:
        file = target / f"fold_{fold}" / "checkpoint_final.pth"
        file.parent.mkdir(parents=True)
        torch.save(
            {
                "network_weights": model.read_weights(fold),
                "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": model.configuration},
                "inference_allowed_mirroring_axes": model.mirroring_axes or None,
            },
            file,
        )
    for name, document in (("plans.json", model.plans), ("dataset.json", model.dataset_json)):
        (target / name).write_text(json.dumps(document), encoding="utf-8")
    if (folder / "version.json").is_file():
        # MRSegmentator's own; it would fetch other weights without.
        shutil.copyfile(folder / "version.json", target / "version.json")
    return target


def stock_labels(
    folder: Path,
    folds: Sequence[int],
    volume: Volume,
    combine: Literal["logits", "probabilities"],
    device: str = "cpu",
) -> np.ndarray:
    """Labels (z, y, x) from nnU-Net's predictor and, for probabilities, its ensembling.

    Args:
        folder: a model folder from :func:`with_stock_trainer`.
        folds: the folds to combine.
        volume: an image in LPS order.
        combine: ``logits`` as ``nnUNetv2_predict -f 0 1 …`` does, ``probabilities`` as one
            ``nnUNetv2_predict --save_probabilities`` per fold and ``nnUNetv2_ensemble`` do.
        device: torch's name of the device.
    """
    from nnunetv2.ensembling.ensemble import average_probabilities
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device(device), allow_tqdm=False)

    def predict(some: Sequence[int], probabilities: bool) -> np.ndarray:
        predictor.initialize_from_trained_model_folder(str(folder), tuple(some))
        channels_zyx = volume.array_zyx[None].astype(np.float32)
        properties = {"spacing": list(volume.geometry.spacing_zyx)}
        found = predictor.predict_single_npy_array(
            channels_zyx, properties, None, None, probabilities
        )
        return found[1] if probabilities else found

    if combine == "logits":
        return predict(folds, probabilities=False)
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for fold in folds:
            files.append(f"{scratch}/{fold}.npz")
            np.savez(files[-1], probabilities=predict([fold], probabilities=True))
        average = average_probabilities(files)
    return predictor.label_manager.convert_probabilities_to_segmentation(average)
