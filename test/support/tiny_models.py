"""Model folders with random weights, and training data, both as small as they can be."""

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from gc_panther.json_files import write_json
from gc_panther.nnunet.training.models.plans import CONFIGURATION, make_plans
from gc_panther.nnunet.training.recipe import Network, Schedule

LABELS = {"background": 0, "tumour": 1, "pancreas": 2}
SCHEDULE = Schedule(
    epochs=1,
    learning_rate=0.01,
    iterations_per_epoch=1,
    validation_iterations=1,
    optimizer="adamw",
    augmentation="none",
)
NETWORK = Network(
    spacing_zyx=(3, 1, 1),
    patch_zyx=(16, 16, 16),
    features=(2, 4, 4),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    blocks=(1, 1, 1),
    decoder_convs=(1, 1),
)
FINGERPRINT = {
    "spacings": [[3.0, 1.0, 1.0]],
    "shapes_after_crop": [[16, 16, 16]],
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 90.0, "std": 30.0, "percentile_00_5": 10.0, "percentile_99_5": 200.0}
    },
}


def network_of(network, labels=LABELS):
    """The torch module of a recipe's network, with random weights."""
    plans = make_plans("Dataset101_Tiny", network, SCHEDULE, FINGERPRINT, {})
    architecture = plans["configurations"][CONFIGURATION]["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(labels),
        deep_supervision=True,
    )


def write_model(
    folder,
    network=NETWORK,
    *,
    labels=LABELS,
    weights=None,
    change=lambda _: None,
    configuration=CONFIGURATION,
    seed=0,
):
    """Write a model folder of one fold.

    Args:
        folder: is made.
        network: of the plans' configuration.
        labels: values by name.
        weights: of the checkpoint; random ones of the network by default.
        change: is given the plans before they are written.
        configuration: name that the checkpoint gives.
        seed: of the random weights.
    """
    plans = make_plans("Dataset101_Tiny", network, SCHEDULE, FINGERPRINT, {})
    change(plans)
    torch.manual_seed(seed)
    weights = network_of(network, labels).state_dict() if weights is None else weights
    write_json(folder / "plans.json", plans)
    dataset = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".mha"}
    write_json(folder / "dataset.json", dataset)
    checkpoint = {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    (folder / "fold_0").mkdir()
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def write_image(path, array_zyx, spacing_xyz=(1.0, 1.0, 1.0)):
    """Write an array as an image; its folder is made."""
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(spacing_xyz)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def add_case(folder, name, *, seed=0, labelled=True):
    """Add a case of 16×16×16 voxels to a folder in PANTHER's layout."""
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:12, 4:12, 4:12] = 2
    label[6:10, 6:10, 6:10] = 1
    noise = np.random.default_rng(seed).normal(0, 5, label.shape)
    part = "ImagesTr" if labelled else "ImagesTr_unlabeled"
    write_image(folder / part / f"{name}_0000.mha", (100 + 20 * label + noise).astype(np.int16))
    if labelled:
        write_image(folder / "LabelsTr" / f"{name}.mha", label)
