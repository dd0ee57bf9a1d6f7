import subprocess
import sys

import pytest

from gc_panther.plugins import create_plugin_manager, find_task

HEAVY = ("torch", "nnunetv2", "mrsegmentator", "SimpleITK", "pandas", "scipy")


@pytest.fixture(scope="module")
def task():
    return find_task(create_plugin_manager(), "task1")


def test_the_interface_is_panther_s(task):
    (interface,) = task.interfaces
    assert interface.key == ("abdominal-t1-mri",)
    assert interface.inputs[0].relative_path == "images/abdominal-t1-mri"
    (output,) = interface.outputs
    assert output.slug == "pancreatic-tumor-segmentation"
    assert output.relative_path == "images/pancreatic-tumor-segmentation"


def test_the_mask_is_binary_and_five_folds_are_needed(task):
    assert task.mask_values == (0, 1)
    assert set(task.labels) == {0, 1}
    assert {model.name: model.folds for model in task.models} == {"task1": (0, 1, 2, 3, 4)}
    assert "15211865" in task.models[0].source


@pytest.mark.parametrize("module", ["gc_panther_task1.plugin", "gc_panther_task2.plugin"])
def test_listing_a_task_imports_nothing_heavy(module):
    code = (
        f"import sys, {module} as plugin\n"
        "[task.describe() for task in plugin.gc_panther_tasks()]\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
