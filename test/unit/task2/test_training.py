from dataclasses import replace
from pathlib import Path

import gc_panther_task2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from gc_panther_task2.crops import crop_to_reference
from gc_panther_task2.localizer import PANCREAS_LABEL, SPACING_XYZ
from gc_panther_task2.training import ALL_LABELS, LABELS, Task2Recipe, Task2Training
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from gc_panther.errors import UserError
from gc_panther.json_files import write_json
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.nnunet.training.models.plans import CONFIGURATION, make_plans, network_of_plans
from gc_panther.nnunet.training.models.transfer import HEADS
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Network, Schedule, load_preset


def test_presets_are_valid_and_the_published_numbers_are_in_them():
    package = Path(gc_panther_task2.__file__).parent
    assert set(Task2Training.presets) == {path.stem for path in package.glob("*.yaml")}
    for preset in Task2Training.presets:
        assert load_preset("gc_panther_task2", preset, Task2Recipe).folds == 3
    panther = load_preset("gc_panther_task2", "panther", Task2Recipe)
    assert (panther.schedule.epochs, panther.schedule.learning_rate) == (500, 0.001)
    assert panther.localizer is None
    demo = load_preset("gc_panther_task2", "demo", Task2Recipe)
    assert demo.localizer is not None
    assert demo.localizer.network.spacing_zyx == SPACING_XYZ[::-1]


def test_the_phantoms_organs_have_mrsegmentators_numbers():
    from gc_panther.panther.phantom.labels import ORGANS

    assert ORGANS["pancreas"] == PANCREAS_LABEL
    assert sorted(ORGANS.values()) == list(range(41))


def write_case(folder, label):
    image = sitk.GetImageFromArray(np.arange(label.size, dtype=np.int16).reshape(label.shape))
    mask = sitk.GetImageFromArray(label)
    for part in (image, mask):
        part.SetSpacing((2.0, 2.0, 4.0))
    case = LabelledCase("10303", folder / "image.mha", folder / "label.mha")
    sitk.WriteImage(image, str(case.image))
    sitk.WriteImage(mask, str(case.label))
    return case


@pytest.mark.parametrize("margin", [(30.0, 30.0), (20.0, 40.0)])
def test_crops_hold_the_tumour_and_forget_the_pancreas(tmp_path, margin):
    label = np.zeros((40, 60, 80), np.uint8)
    label[18:22, 25:35, 30:50] = 2
    label[19:21, 28:32, 48:55] = 1
    case = write_case(tmp_path, label)
    made = crop_to_reference(case, tmp_path / "raw", margin, np.random.default_rng(3), [0, 1])
    image, mask = (sitk.ReadImage(str(path)) for path in (made.image, made.label))
    array = sitk.GetArrayFromImage(mask)
    assert image.GetSize() == mask.GetSize()
    assert array.sum() == np.count_nonzero(label == 1)
    assert set(np.unique(array)) == {0, 1}
    if margin == (30.0, 30.0):
        # 30 mm: 8 voxels (rounded up) along z, 15 along y and x, clipped to the image
        assert array.shape == (20, 40, 55)
        assert mask.GetOrigin() == pytest.approx((30.0, 20.0, 40.0))


def test_the_warm_up_s_crops_keep_the_pancreas(tmp_path):
    label = np.zeros((10, 12, 14), np.uint8)
    label[3:6, 3:6, 3:9] = 2
    label[4, 4, 8] = 1
    case = write_case(tmp_path, label)
    made = crop_to_reference(case, tmp_path / "raw", (5, 9), np.random.default_rng(3), [0, 1, 2])
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(made.label)))
    assert np.bincount(array.ravel())[1:].tolist() == [1, np.count_nonzero(label == 2)]


def test_an_empty_label_map_is_refused(tmp_path):
    case = write_case(tmp_path, np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(UserError, match="empty"):
        crop_to_reference(case, tmp_path / "raw", (30, 30), np.random.default_rng(0), [0, 1])


def test_without_a_task_1_model_the_error_says_how_to_get_one(tmp_path):
    request = TrainingRequest("panther", tmp_path / "work", tmp_path / "out")
    with pytest.raises(UserError, match="Train task 1"):
        Task2Training().train(request)


def test_what_is_no_choice_of_task_2_is_refused(tmp_path):
    request = TrainingRequest("panther", tmp_path / "work", tmp_path / "out")
    with pytest.raises(UserError, match="2 or 3 classes, not 4"):
        Task2Training().train(replace(request, classes=4))
    with pytest.raises(UserError, match="from task 1"):
        Task2Training().train(replace(request, resenc="M"))


SCHEDULE = Schedule(
    epochs=1,
    learning_rate=1e-9,
    iterations_per_epoch=1,
    validation_iterations=1,
    optimizer="adamw",
    augmentation="none",
)
NETWORK = Network(
    spacing_zyx=(4, 2, 2),
    patch_zyx=(16, 16, 16),
    features=(4, 8, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    blocks=(1, 1, 1),
    decoder_convs=(1, 1),
)


@pytest.fixture(scope="module")
def task_1_model(tmp_path_factory):
    """A model folder of task 1 with random weights."""
    fingerprint = {
        "spacings": [[4.0, 2.0, 2.0]],
        "shapes_after_crop": [[16, 16, 16]],
        "foreground_intensity_properties_per_channel": {"0": {}},
    }
    plans = make_plans("Dataset101_Tiny", NETWORK, SCHEDULE, fingerprint, {})
    architecture = plans["configurations"][CONFIGURATION]["architecture"]
    torch.manual_seed(0)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(ALL_LABELS),
        deep_supervision=True,
    )
    folder = tmp_path_factory.mktemp("model") / "task1"
    dataset = {"channel_names": {"0": "MR"}, "labels": ALL_LABELS, "file_ending": ".mha"}
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", dataset)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    (folder / "fold_0").mkdir()
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two cases in PANTHER's layout."""
    folder = tmp_path_factory.mktemp("data")
    label = np.zeros((16, 24, 24), np.uint8)
    label[4:12, 6:18, 6:18] = 2
    label[6:10, 8:14, 8:14] = 1
    for part in ("ImagesTr", "LabelsTr"):
        (folder / part).mkdir()
    for number in (10303, 10304):
        case = write_case(folder, label)
        case.image.rename(folder / "ImagesTr" / f"{number}_0000.mha")
        case.label.rename(folder / "LabelsTr" / f"{number}.mha")
    return folder


def test_what_is_missing_is_reported_before_the_localizer_is_trained(tmp_path, task_1_model):
    request = TrainingRequest("demo", tmp_path / "work", tmp_path / "out")
    with pytest.raises(UserError, match="fine-tune from is not there") as refused:
        Task2Training().train(request)
    assert refused.value.where == str(tmp_path / "out" / "task1")
    recipe = load_preset("gc_panther_task2", "demo", Task2Recipe)
    recipe = recipe.model_copy(update={"phantoms": None})
    with pytest.raises(UserError, match="needs data"):
        Task2Training().train_recipe(recipe, replace(request, start_from=task_1_model))
    assert not (tmp_path / "work").exists()


# Trains two folds.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "labels", "transferred"),
    [
        ({}, LABELS, "all but the heads"),
        ({"classes": 3}, ALL_LABELS, "all"),
        ({"from_scratch": True}, LABELS, "nothing"),
    ],
)
def test_folds_start_from_task_1(
    data, task_1_model, tmp_path, choices, labels, transferred, engine_in_process
):
    recipe = Task2Recipe(folds=2, schedule=SCHEDULE, margin_mm=(4, 8))
    request = TrainingRequest(
        "tiny", tmp_path / "w", tmp_path, data=data, start_from=task_1_model, jobs=2, **choices
    )
    (folder,) = Task2Training().train_recipe(recipe, request)
    model = open_model_folder(folder)
    assert model.labels == labels
    assert network_of_plans(model.plans) == NETWORK
    before = open_model_folder(task_1_model).read_weights(0)
    for fold in model.checkpoints:
        after = model.read_weights(fold)
        heads = {name for name in after if HEADS in name}
        assert heads
        same = {
            name
            for name in after
            if before[name].shape == after[name].shape
            and torch.allclose(before[name], after[name], atol=1e-5)
        }
        # Some parameters, such as the scales of norms, start at the same values everywhere.
        learned = {name for name in after if after[name].ndim > 1}
        expected = {"all": learned, "all but the heads": learned - heads, "nothing": set()}
        assert same & learned == expected[transferred]
    assert len(model.checkpoints) == 2
