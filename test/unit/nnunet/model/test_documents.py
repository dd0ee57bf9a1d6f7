"""Plans, dataset.json and checkpoints with a wrong field are refused by the field's name."""

import copy
import json
from pathlib import Path

import pytest
import torch

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.documents import check_plans, resolved_configuration
from gc_panther.nnunet.model.folder import open_model_folder

HERE = Path("model")
BUNDLED = Path(__file__).resolve().parents[4] / "resources"
REMOVED = object()


def changed(document, field, value):
    """A copy of a document with another value in a field, given by its path."""
    document = copy.deepcopy(document)
    *above, last = field.split(".")
    place = document
    for key in above:
        place = place[key]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize("name", ["task1", "task2", "mrsegmentator"])
def test_the_bundled_plans_are_sound(name):
    check_plans(json.loads((BUNDLED / name / "plans.json").read_text()), "3d_fullres", HERE)


C = "configurations.3d_fullres"
A = f"{C}.architecture"
K = f"{A}.arch_kwargs"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("configurations", []),
        (C, None),
        (f"{C}.spacing", [1.0, 1.0]),
        (f"{C}.spacing", [1.0, 1.0, 0.0]),
        (f"{C}.spacing", [1.0, 1.0, float("nan")]),
        (f"{C}.spacing", [1.0, 1.0, "1"]),
        (f"{C}.spacing", REMOVED),
        (f"{C}.patch_size", [16, 32]),
        (f"{C}.patch_size", [16, 32, 32.5]),
        (f"{C}.patch_size", [16, 32, True]),
        (f"{C}.patch_size", [16, 32, -32]),
        (f"{C}.patch_size", [2048, 2048, 2048]),
        (f"{C}.patch_size", [16, 32, 33]),
        (f"{C}.preprocessor_name", "OtherPreprocessor"),
        (f"{C}.normalization_schemes", ["ZScoreNormalization"] * 2),
        (f"{C}.normalization_schemes", ["os.system"]),
        (f"{C}.use_mask_for_norm", [1]),
        (f"{C}.resampling_fn_data", "resample_torch_simple"),
        (f"{C}.resampling_fn_data_kwargs", {"order": 9}),
        (f"{C}.resampling_fn_probabilities_kwargs", {"surprise": 1}),
        (A, REMOVED),
        (f"{A}._kw_requires_import", ["conv_op", "block"]),
        (f"{A}.network_class_name", "os.system"),
        (f"{K}.n_stages", 1 << 40),
        (f"{K}.n_stages", 3),
        (f"{K}.features_per_stage", [4, 1 << 40]),
        (f"{K}.kernel_sizes", [[3, 3, 3], [3, 3, 2]]),
        (f"{K}.kernel_sizes", [[3, 3, 3], [3, 3]]),
        (f"{K}.strides", [[2, 2, 2], [2, 2, 2]]),
        (f"{K}.n_blocks_per_stage", [1, 10**6]),
        (f"{K}.conv_op", "torch.nn.Conv2d"),
        (f"{K}.nonlin", "subprocess.Popen"),
        (f"{K}.nonlin_kwargs", {"inplace": "yes"}),
        (f"{K}.norm_op_kwargs", {"eps": -1.0}),
        (f"{K}.input_channels", 3),
        ("transpose_forward", [0, 1, 1]),
        ("transpose_forward", [0, 1, 3]),
        ("transpose_backward", [1, 2, 0]),
        ("foreground_intensity_properties_per_channel", REMOVED),
        ("foreground_intensity_properties_per_channel", {"1": {}}),
        ("foreground_intensity_properties_per_channel", {"0": {"mean": "high"}}),
    ],
)
def test_a_wrong_field_of_the_plans_is_named(field, value, tiny_plans):
    check_plans(tiny_plans(), "3d_fullres", HERE)
    with pytest.raises(WeightsError) as caught:
        check_plans(changed(tiny_plans(), field, value), "3d_fullres", HERE)
    message = str(caught.value)
    named = "patch_size" if field.endswith("patch_size") else field.rpartition(".")[2]
    assert named in message
    assert message.startswith("plans.json cannot be used: ")
    assert "model" in message
    assert len(message) < 500


def test_ct_needs_the_intensities_of_its_training_images(tiny_plans):
    plans = changed(tiny_plans(), f"{C}.normalization_schemes", ["CTNormalization"])
    check_plans(plans, "3d_fullres", HERE)
    for value in (REMOVED, None, float("nan")):
        field = "foreground_intensity_properties_per_channel.0.std"
        with pytest.raises(WeightsError, match="CTNormalization needs"):
            check_plans(changed(plans, field, value), "3d_fullres", HERE)


def test_one_value_may_stand_for_all_stages_and_axes(tiny_plans):
    plans = tiny_plans()
    for field, value in (("kernel_sizes", [3, 3]), ("n_blocks_per_stage", 1), ("strides", [1, 2])):
        plans = changed(plans, f"{K}.{field}", value)
    check_plans(plans, "3d_fullres", HERE)


def test_old_plans_have_other_fields(tiny_plans):
    plans = tiny_plans()
    configuration = plans["configurations"]["3d_fullres"]
    del configuration["architecture"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "num_pool_per_axis": [1, 1, 1],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
        "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    }
    check_plans(plans, "3d_fullres", HERE)
    with pytest.raises(WeightsError, match="UNet_base_num_features"):
        check_plans(changed(plans, f"{C}.UNet_base_num_features", 1 << 40), "3d_fullres", HERE)


def test_configurations_inherit(tiny_plans):
    plans = tiny_plans()
    plans["configurations"]["large"] = {"inherits_from": "3d_fullres", "batch_size": 8}
    resolved = resolved_configuration(plans, "large", HERE)
    assert resolved["batch_size"] == 8
    assert resolved["spacing"] == plans["configurations"]["3d_fullres"]["spacing"]
    check_plans(plans, "large", HERE)


@pytest.mark.parametrize("parent", ["large", "3d_lowres", 3])
def test_configurations_that_inherit_from_nothing(parent, tiny_plans):
    plans = tiny_plans()
    plans["configurations"]["large"] = {"inherits_from": parent}
    with pytest.raises(WeightsError, match="from which large could inherit"):
        check_plans(plans, "large", HERE)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"inference_allowed_mirroring_axes": tuple(range(30))}, "mirroring_axes"),
        ({"inference_allowed_mirroring_axes": (0, 0)}, "mirroring_axes"),
        ({"inference_allowed_mirroring_axes": (3,)}, "mirroring_axes"),
        ({"inference_allowed_mirroring_axes": 1}, "mirroring_axes"),
        ({"trainer_name": 3}, "trainer_name"),
        ({"init_args": {"configuration": 3}}, "init_args.configuration"),
        ({"init_args": []}, "init_args"),
    ],
)
def test_a_wrong_field_of_a_checkpoint_is_named(values, field, tiny_model_folder):
    folder = tiny_model_folder(folds=(0,))
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=True), **values}, path)
    with pytest.raises(WeightsError, match=field) as caught:
        open_model_folder(folder)
    assert str(caught.value).startswith("the checkpoint cannot be used: ")
    assert str(path) in str(caught.value)


def test_checkpoints_that_disagree_about_mirroring_are_refused(tiny_model_folder):
    folder = tiny_model_folder(folds=(0, 1))
    path = folder / "fold_1" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "inference_allowed_mirroring_axes": (0,)}, path)
    with pytest.raises(WeightsError, match="different mirroring axes"):
        open_model_folder(folder)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"labels": ["background"]}, "labels"),
        ({"labels": {"background": 0, "tumour": "1"}}, "labels.tumour"),
        ({"labels": {"background": 0, "tumour": True}}, "labels.tumour"),
        ({"labels": {"background": 0, **{f"l{n}": n for n in range(1, 300)}}}, "255 in all"),
        ({"channel_names": ["MR"]}, "channel_names"),
    ],
)
def test_a_wrong_field_of_dataset_json_is_named(values, field, tiny_model_folder):
    folder = tiny_model_folder(folds=(0,))
    document = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**document, **values}))
    with pytest.raises(WeightsError, match=field) as caught:
        open_model_folder(folder)
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "\udcff"])
def test_a_file_that_holds_no_object_is_refused(text, tiny_model_folder):
    folder = tiny_model_folder(folds=(0,))
    (folder / "plans.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError, match=r"plans\.json"):
        open_model_folder(folder)
