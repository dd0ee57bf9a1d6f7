from pathlib import Path

import numpy as np
import pytest

from gc_panther.case import Case, Geometry, Volume
from gc_panther.imaging.images import read_image
from gc_panther.plugins import create_plugin_manager, find_task


@pytest.fixture(scope="module")
def task():
    return find_task(create_plugin_manager(), "task2")


def test_the_interface_is_panther_s(task):
    (interface,) = task.interfaces
    assert interface.key == ("abdominal-t2-mri",)
    assert interface.inputs[0].relative_path == "images/abdominal-t2-mri"
    (output,) = interface.outputs
    assert output.slug == "pancreatic-tumor-segmentation"
    assert output.relative_path == "images/pancreatic-tumor-segmentation"


def test_three_folds_and_any_of_the_localizer_s_are_needed(task):
    assert task.mask_values == (0, 1)
    assert {model.name: model.folds for model in task.models} == {
        "task2": (0, 1, 2),
        "mrsegmentator": (),
    }


@pytest.fixture(scope="module")
def hooks():
    """Call the check or the warn hook with an image of this task; returns all sentences."""
    manager = create_plugin_manager()

    def call(name, image):
        case = Case("a case", {"abdominal-t2-mri": image})
        task = find_task(manager, "task2")
        found = getattr(manager.hook, f"gc_panther_{name}_case")(task=task, case=case)
        return [sentence for group in found for sentence in group]

    return call


def test_the_bundled_case_is_neither_refused_nor_warned_about(hooks):
    (path,) = Path("test/cases/task2/input/images").rglob("*.mha")
    image = read_image(path)
    assert hooks("check", image) == []
    assert hooks("warn", image) == []


def test_noise_is_refused_and_ct_is_warned_about(hooks):
    noise = np.random.default_rng(0).normal(300, 100, (30, 80, 90)).astype(np.int16)
    geometry = Geometry((90, 80, 30), (4.0, 4.0, 5.0))
    assert "noise" in hooks("check", Volume(noise, geometry))[0]
    ct = Volume(np.sort(noise.ravel()).reshape(noise.shape) - 1000, geometry)
    assert hooks("check", ct) == []
    (warning,) = hooks("warn", ct)
    assert "T2-weighted" in warning


def test_another_task_s_cases_are_left_to_its_own_plugin(toy_plugin):
    manager = create_plugin_manager([toy_plugin.hooks])
    toy = find_task(manager, "toy")
    blank = Volume(np.zeros((3, 4, 5), np.int16), Geometry((5, 4, 3), (1.0, 1.0, 1.0)))
    case = Case("a case", {"toy-mri": blank})
    for hook in (manager.hook.gc_panther_check_case, manager.hook.gc_panther_warn_case):
        assert [sentence for group in hook(task=toy, case=case) for sentence in group] == []
