"""What `gc-panther info` says of models and versions that are missing or damaged."""

import pytest

from gc_panther.hookspecs import hookimpl
from gc_panther.plugins import create_plugin_manager, installed_versions
from gc_panther.runtime.info import information
from gc_panther.task import ModelRequirement


class Listing:
    @hookimpl
    def gc_panther_distributions(self):
        return ["no-such-distribution", "numpy"]


def test_versions_are_listed_for_the_core_and_every_plugin():
    versions = installed_versions(create_plugin_manager([Listing()]))
    assert versions["no-such-distribution"] is None
    assert versions["numpy"]
    assert {"torch", "nnunetv2", "surface-distance", "mrsegmentator"} <= versions.keys()
    assert information([], create_plugin_manager([Listing()]), {})["versions"] == versions


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
    environ = {"GC_PANTHER_RESOURCES": str(tmp_path)}
    (found,) = information([task], create_plugin_manager(), environ)["tasks"]
    assert said in found["weights"]["task"]["description"]
