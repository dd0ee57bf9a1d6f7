"""Every hook: documented, and called."""

from __future__ import annotations

import inspect
import json
import types
from pathlib import Path
from typing import Any

import pytest

from gc_panther import cli, hookspecs, plugins
from gc_panther.errors import PluginError
from gc_panther.hookspecs import hookimpl, hookspec
from gc_panther.nnunet import hookspecs as nnunet_hookspecs
from gc_panther.plugins import create_plugin_manager, find_task, registered_tasks

HOOKS = {
    name: function
    for module in (hookspecs, nnunet_hookspecs)
    for name, function in vars(module).items()
    if name.startswith("gc_panther_") and callable(function)
}
PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_signature(name: str) -> None:
    signature = str(inspect.signature(HOOKS[name])).replace("'", "")
    assert f"### `{name}{signature}`" in PAGE
    page = " ".join(PAGE.replace("`", "``").split())
    assert HOOKS[name].__doc__.split(".")[0].split(";")[0] in page


def test_every_hook_is_called(
    toy_command_line: Any, write_volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = set()
    create = plugins.create_plugin_manager

    def watched(**options: Any) -> Any:
        manager = create(**options)
        manager.add_hookcall_monitoring(lambda name, *_: called.add(name), lambda *_: None)
        return manager

    monkeypatch.setattr(plugins, "create_plugin_manager", watched)
    mask = str(tmp_path / "mask.mha")
    image = str(write_volume(tmp_path / "scan.mha"))
    training = ["--work", str(tmp_path / "work"), "--export", str(tmp_path / "models")]
    assert toy_command_line(["predict", "toy", image, "-o", mask, "--device", "cpu"]) == 0
    assert toy_command_line(["predict", "toy", str(tmp_path / "no.mha"), "-o", mask]) == 2
    # The toy task has no training.
    assert toy_command_line(["train", "toy", *training]) == 2
    # Without a usable device no networks are tried.
    assert toy_command_line(["doctor", "--device", "cuda:99"]) == 1
    # Called while the manager is made, before anything watches it.
    assert called == set(HOOKS) - {"gc_panther_hookspecs"}


def test_the_installed_tasks_are_found_through_entry_points() -> None:
    assert {"task1", "task2"} <= set(registered_tasks(create_plugin_manager()))


def test_an_unknown_task_is_refused_with_the_known_ones(toy_plugin: Any) -> None:
    with pytest.raises(PluginError, match=r"no task 'nope' \(known: .*toy"):
        find_task(create_plugin_manager([toy_plugin.hooks]), "nope")


def test_two_tasks_of_one_name_are_refused(toy_plugin: Any) -> None:
    manager = create_plugin_manager([toy_plugin.hooks])
    manager.register(type("Twin", (type(toy_plugin.hooks),), {})())
    with pytest.raises(PluginError, match="two plugins provide a task named 'toy'"):
        registered_tasks(manager)


def test_a_plugin_with_an_unknown_hook_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def gc_panther_taskz(self) -> list[Any]:
            return []

    with pytest.raises(PluginError, match="cannot be loaded"):
        create_plugin_manager([Misspelt()])


def test_a_plugin_can_declare_hooks_for_others() -> None:
    class Declared:
        @hookspec
        def gc_panther_beads(self) -> int:
            """Return the number of beads."""
            raise NotImplementedError

    class Declares:
        @hookimpl
        def gc_panther_hookspecs(self) -> list[object]:
            return [Declared]

    class Implements:
        @hookimpl
        def gc_panther_beads(self) -> int:
            return 7

    with pytest.raises(PluginError, match="gc_panther_beads"):
        create_plugin_manager([Implements()])
    assert create_plugin_manager([Implements(), Declares()]).hook.gc_panther_beads() == [7]


def test_an_installed_plugin_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # No weights: doctor tries no networks.
    monkeypatch.setenv("GC_PANTHER_RESOURCES", str(tmp_path))
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no such organ')")
    distribution = tmp_path / "broken-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[gc_panther]\nabacus = broken_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = r"plugin 'abacus' cannot be loaded \(RuntimeError: no such organ\)"
    with pytest.raises(PluginError, match=said):
        create_plugin_manager()
    broken: dict[str, PluginError] = {}
    others = registered_tasks(create_plugin_manager(broken=broken))
    assert {"task1", "task2"} <= set(others)
    assert "no such organ" in str(broken["abacus"])
    # What segments does not go without a plugin's checks; what lists says what is missing.
    assert cli.invoke(["run", "--task", "task1"]) == PluginError.exit_code
    assert "plugin 'abacus' cannot be loaded" in capfd.readouterr().err
    assert cli.invoke(["tasks"]) == 0
    assert "abacus" in capfd.readouterr().out
    assert cli.invoke(["doctor", "--json", "--device", "cpu"]) == 1
    rows = {row["check"]: row for row in json.loads(capfd.readouterr().out)}
    assert rows["plugin abacus"]["verdict"] == "fail"
    assert rows["scratch"]["verdict"] == "ok"


def test_training_pipelines_are_found_by_task() -> None:
    from gc_panther.nnunet.training.pipeline import find_pipeline

    class Trains:
        @hookimpl
        def gc_panther_training(self) -> Any:
            return [types.SimpleNamespace(task="toy")]

    manager = create_plugin_manager([Trains()])
    assert find_pipeline(manager, "toy").task == "toy"
    with pytest.raises(PluginError, match="no plugin can train 'nope'"):
        find_pipeline(manager, "nope")
