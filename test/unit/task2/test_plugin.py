import pytest

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
