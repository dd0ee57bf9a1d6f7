from pathlib import Path

import gc_panther_task2
import numpy as np
import pytest
import SimpleITK as sitk
from gc_panther_task2.localizer import PANCREAS_LABEL, SPACING_XYZ
from gc_panther_task2.training import Task2Recipe, Task2Training, _cropped

from gc_panther.errors import UserError
from gc_panther.training.dataset import LabelledCase
from gc_panther.training.pipeline import TrainingRequest
from gc_panther.training.recipe import load_preset


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
    from gc_panther.phantom.labels import ORGANS

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
    made = _cropped(case, tmp_path / "raw", margin, np.random.default_rng(3), [0, 1])
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
    made = _cropped(case, tmp_path / "raw", (5, 9), np.random.default_rng(3), [0, 1, 2])
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(made.label)))
    assert np.bincount(array.ravel())[1:].tolist() == [1, np.count_nonzero(label == 2)]


def test_an_empty_label_map_is_refused(tmp_path):
    case = write_case(tmp_path, np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(UserError, match="empty"):
        _cropped(case, tmp_path / "raw", (30, 30), np.random.default_rng(0), [0, 1])


def test_without_a_task_1_model_the_error_says_how_to_get_one(tmp_path):
    request = TrainingRequest("panther", tmp_path / "work", tmp_path / "out")
    with pytest.raises(UserError, match="Train task 1"):
        Task2Training().train(request)
