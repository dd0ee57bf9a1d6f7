"""What nnU-Net's layer answers to the core's hooks."""

import pytest

from gc_panther.nnunet import plugin
from gc_panther.task import Task


class Computed(Task):
    """A task that says what computes it."""

    name = "computed"
    title = "Computed"
    interfaces = ()
    models = ()

    def __init__(self, libraries):
        self.libraries = libraries

    def load(self, runtime):
        raise AssertionError("nothing is loaded")


@pytest.mark.parametrize(
    ("libraries", "installed", "checked"),
    [
        (("torch",), True, True),
        (("onnxruntime", "torch"), True, True),
        (("onnxruntime",), True, False),
        ((), True, False),
        (None, True, True),
        (None, False, False),
    ],
)
def test_torch_is_asked_for_tasks_that_compute_with_it(monkeypatch, libraries, installed, checked):
    monkeypatch.setattr(plugin, "find_spec", lambda name: object() if installed else None)
    answer = plugin.gc_panther_device_check(Computed(libraries), "cpu", None)
    assert (answer is not None) is checked


def test_a_task_that_needs_torch_where_it_is_missing_says_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match="torch"):
        plugin.gc_panther_device_check(Computed(("torch",)), "cpu", None)
