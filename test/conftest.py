"""Fixtures that several test modules share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

THREE_LABELS = {"background": 0, "tumour": 1, "pancreas": 2}


def plans_of(
    spacing_zyx: tuple[float, float, float], patch_zyx: tuple[int, int, int]
) -> dict[str, Any]:
    """nnU-Net plans, as its planner writes them, for a ResidualEncoderUNet of two stages."""
    resampling = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_zyx),
        "median_image_size_in_voxels": [2 * size for size in patch_zyx],
        "spacing": list(spacing_zyx),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **resampling},
        "batch_dice": False,
        "architecture": {
            "network_class_name": (
                "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
            ),
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_blocks_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing_zyx),
        "original_median_shape_after_transp": [2 * size for size in patch_zyx],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 900.0,
                "mean": 300.0,
                "median": 280.0,
                "min": 10.0,
                "percentile_00_5": 20.0,
                "percentile_99_5": 800.0,
                "std": 120.0,
            }
        },
    }


@pytest.fixture
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make nnU-Net model folders of tiny networks with random weights, the same ones each time.

    ``tiny_model_folder(folds=…, labels=…, spacing_zyx=…, patch_zyx=…, trainer_name=…)`` writes
    ``plans.json``, ``dataset.json`` and ``fold_k/checkpoint_final.pth``, and returns the folder,
    a new one at each call.
    """

    def make(
        folds: tuple[int, ...] = (0, 1, 2),
        labels: dict[str, int] | None = None,
        spacing_zyx: tuple[float, float, float] = (4.0, 2.0, 2.0),
        patch_zyx: tuple[int, int, int] = (16, 32, 32),
        trainer_name: str = "nnUNetTrainer_Student",
    ) -> Path:
        import torch
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        folder = tmp_path_factory.mktemp("model")
        labels = THREE_LABELS if labels is None else labels
        plans = plans_of(spacing_zyx, patch_zyx)
        dataset = {
            "channel_names": {"0": "MR"},
            "labels": labels,
            "numTraining": 2,
            "file_ending": ".mha",
        }
        (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
        (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        for fold in folds:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(1000 + fold)
                network = get_network_from_plans(
                    architecture["network_class_name"],
                    architecture["arch_kwargs"],
                    architecture["_kw_requires_import"],
                    1,
                    len(labels),
                    deep_supervision=True,
                )
            checkpoint = {
                "network_weights": network.state_dict(),
                "trainer_name": trainer_name,
                "init_args": {
                    "plans": plans,
                    "configuration": "3d_fullres",
                    "fold": fold,
                    "dataset_json": dataset,
                },
                "inference_allowed_mirroring_axes": (0, 1, 2),
            }
            path = folder / f"fold_{fold}" / "checkpoint_final.pth"
            path.parent.mkdir()
            torch.save(checkpoint, path)
        return folder

    return make
