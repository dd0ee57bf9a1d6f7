"""nnU-Net plans: written from a recipe, by nnU-Net's own planner, or taken from another model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.documents import resolved_configuration
from gc_panther.nnunet.training.pipeline import ResEnc
from gc_panther.nnunet.training.recipe import PLANS_KEY, Network, Schedule

CONFIGURATION = "3d_fullres"
PLANS_NAME = "nnUNetPlans"
_ARCHITECTURE = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
_RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def make_plans(
    dataset_name: str,
    network: Network,
    schedule: Schedule,
    fingerprint: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Plans for one 3-D configuration, in the format of nnU-Net 2.8.

    Args:
        dataset_name: nnU-Net's, ``Dataset123_Name``.
        network: grid and architecture.
        schedule: kept in the plans for the trainer, and for whoever opens a checkpoint.
        fingerprint: nnU-Net's ``dataset_fingerprint.json``.
        facts: JSON-compatible facts about the recipe, kept in the plans.
    """
    import numpy as np

    return {
        "dataset_name": dataset_name,
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": np.median(fingerprint["spacings"], 0).tolist(),
        "original_median_shape_after_transp": [
            round(v) for v in np.median(fingerprint["shapes_after_crop"], 0).tolist()
        ],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: network_configuration(network)},
        "experiment_planner_used": "gc_panther recipe",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": dict(
            fingerprint["foreground_intensity_properties_per_channel"]
        ),
        PLANS_KEY: {"schedule": schedule.model_dump(mode="json"), **facts},
    }


def follow_plans(
    plans: Mapping[str, Any], dataset_name: str, schedule: Schedule, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Plans that exist, for another data set or another schedule; their network stays the same.

    Args:
        plans: of nnU-Net's planner, or made here.
        dataset_name: nnU-Net's, ``Dataset123_Name``.
        schedule: takes the place of the one they have.
        facts: JSON-compatible facts about the recipe.

    Raises:
        WeightsError: they have no 3-D configuration.
    """
    if CONFIGURATION not in plans.get("configurations", {}):
        raise WeightsError(
            f"the plans have no {CONFIGURATION} configuration",
            fix="Volumes are needed, not single slices",
        )
    configuration = {
        **plans["configurations"][CONFIGURATION],
        "data_identifier": f"{PLANS_NAME}_{CONFIGURATION}",
    }
    return {
        **plans,
        "dataset_name": dataset_name,
        "plans_name": PLANS_NAME,
        "configurations": {CONFIGURATION: configuration},
        PLANS_KEY: {"schedule": schedule.model_dump(mode="json"), **facts},
    }


def plan_residual_encoder(dataset_name: str, size: ResEnc) -> dict[str, Any]:
    """Let nnU-Net plan a residual encoder U-Net for a data set whose fingerprint is there.

    Args:
        dataset_name: nnU-Net's, ``Dataset123_Name``; its folders come by environment.
        size: of the GPU it is planned for: ``M`` 8 GB, ``L`` 24 GB, ``XL`` 40 GB.

    Returns:
        nnU-Net's plans, as read back from its file.
    """
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as planners,
    )
    from nnunetv2.paths import nnUNet_preprocessed

    planner = getattr(planners, f"nnUNetPlannerResEnc{size}")
    identifier = f"nnUNetResEncUNet{size}Plans"
    planner(dataset_name, plans_name=identifier).plan_experiment()
    path = Path(nnUNet_preprocessed) / dataset_name / f"{identifier}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def network_configuration(network: Network) -> dict[str, Any]:
    """The configuration of nnU-Net's plans for a network that a recipe writes out."""
    resampling = "resample_data_or_seg_to_shape"
    return {
        "data_identifier": f"{PLANS_NAME}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": network.batch_size,
        "patch_size": list(network.patch_zyx),
        "median_image_size_in_voxels": list(network.patch_zyx),
        "spacing": list(network.spacing_zyx),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": {**_RESAMPLING},
        "resampling_fn_seg_kwargs": {**_RESAMPLING, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": {**_RESAMPLING, "order": 1},
        "architecture": {
            "network_class_name": _ARCHITECTURE,
            "arch_kwargs": {
                "n_stages": len(network.features),
                "features_per_stage": list(network.features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [list(kernel) for kernel in network.kernels],
                "strides": [list(stride) for stride in network.strides],
                "n_blocks_per_stage": list(network.blocks),
                "n_conv_per_stage_decoder": list(network.decoder_convs),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": network.batch_dice,
    }


def network_of_plans(plans: Mapping[str, Any], name: str = CONFIGURATION) -> Network:
    """The grid and architecture of a trained model, to fine-tune it.

    Args:
        plans: of the model.
        name: of the configuration that it was trained with.

    Raises:
        WeightsError: the plans have no such configuration of a residual encoder U-Net.
    """
    configuration = resolved_configuration(plans, name, Path("plans.json"))
    architecture = configuration.get("architecture", {})
    if architecture.get("network_class_name") != _ARCHITECTURE:
        raise WeightsError(
            f"the plans have no {name} configuration of a ResidualEncoderUNet",
            fix="Start from a model that `gc-panther train task1` made, or the baseline's",
        )
    try:
        return _network(configuration)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise WeightsError(
            f"the {name} configuration of the plans cannot be used ({reason})",
            fix="Start from a model that `gc-panther train task1` made, or the baseline's",
        ) from error


def _network(configuration: Mapping[str, Any]) -> Network:
    kwargs = configuration["architecture"]["arch_kwargs"]
    return Network.model_validate(
        {
            "spacing_zyx": configuration["spacing"],
            "patch_zyx": configuration["patch_size"],
            "batch_size": configuration["batch_size"],
            "features": kwargs["features_per_stage"],
            "strides": kwargs["strides"],
            "kernels": kwargs["kernel_sizes"],
            "blocks": kwargs["n_blocks_per_stage"],
            "decoder_convs": kwargs["n_conv_per_stage_decoder"],
            "batch_dice": configuration["batch_dice"],
        }
    )
