"""What `gc-panther info` says of models and versions that are missing or damaged."""

import pytest

from gc_panther.runtime.info import information, installed_version
from gc_panther.task import ModelRequirement


def test_a_version_that_is_not_installed_is_none():
    assert installed_version("no-such-distribution") is None
    assert installed_version("numpy")


@pytest.mark.parametrize(
    ("manifest", "said"), [(None, "not found"), ("{", "JSON"), ('{"kind": 3}', "task")]
)
def test_a_model_that_is_missing_or_damaged_is_described(tmp_path, toy_plugin, manifest, said):
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    task.models = (ModelRequirement("task", folds=(), source="nowhere"),)
    if manifest is not None:
        folder = tmp_path / "task"
        folder.mkdir()
        (folder / "plans.json").write_text("{}")
        (folder / "pack.json").write_text(manifest)
    (found,) = information([task], [], {"GC_PANTHER_RESOURCES": str(tmp_path)})["tasks"]
    assert said in found["weights"]["task"]["description"]
