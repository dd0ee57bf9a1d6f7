"""The options of the commands that segment: the core's, and those of the installed tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from gc_panther import cli, plugins
from gc_panther.commands import segmenting
from gc_panther.errors import UserError
from gc_panther.hookspecs import hookimpl
from gc_panther.options import Option, Options, RunOptions, declared, merged_options
from gc_panther.panther.options import PantherOptions
from gc_panther.settings import Settings
from gc_panther.task import Interface, Socket, Task

COMMANDS = ("run", "serve", "predict", "cohort")


class BrightOptions(Options):
    percentile: Annotated[float, Field(gt=0, lt=100, description="What is brighter is marked.")] = (
        99.0
    )
    smooth: Annotated[bool, Option(platform_default=True)] = False


class Bright(Task):
    name = "bright"
    title = "Bright voxels"
    interfaces = (Interface((Socket("a", "images/a"),), (Socket("b", "images/b"),)),)
    models = ()
    Options = BrightOptions

    def load(self, runtime: Any) -> Any:
        raise AssertionError("nothing is loaded here")


class Plain(Bright):
    """A task without options of its own."""

    name = "plain"
    Options = Options


def plugin_of(*tasks: type[Task]) -> Any:
    class Plugin:
        @hookimpl
        def gc_panther_tasks(self) -> list[Task]:
            return [task() for task in tasks]

    return Plugin()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install tasks besides those of this repository."""
    create = plugins.create_plugin_manager

    def install(*tasks: type[Task]) -> None:
        monkeypatch.setattr(
            plugins,
            "create_plugin_manager",
            lambda **options: create([plugin_of(*tasks)], **options),
        )

    return install


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, install: Callable[..., None]) -> Callable[..., Any]:
    """What a command hands on: ``chosen(command, task, *arguments)``."""
    from gc_panther.commands import cohort, predict, run, serve

    install(Bright, Plain)
    seen: list[tuple[Settings, Any]] = []

    def stop(task: Any, manager: Any, settings: Settings, choices: Any, **_: Any) -> None:
        seen.append((settings, choices))
        raise UserError("enough")

    for module, name in ((run, "run"), (serve, "serve"), (predict, "predict"), (cohort, "cohort")):
        monkeypatch.setattr(module, name, stop)

    def choose(command: str, task: str, *arguments: str) -> Any:
        which = {
            "predict": [task, "scan.mha", "-o", "mask.mha"],
            "cohort": [task, "scans", "-o", "masks"],
        }.get(command, ["--task", task])
        assert cli.invoke([command, *which, *arguments]) == 2
        return seen.pop()

    return choose


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_flags_of_every_installed_task(
    command: str, install: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    install(Bright, Plain)
    assert cli.invoke([command, "--help"]) == 0
    text = capfd.readouterr().out
    groups = [RunOptions, PantherOptions, BrightOptions]
    flags = [
        flag
        for one in merged_options((group.__name__, group) for group in groups).values()
        for flag in one.flags
    ]
    assert "--percentile" in flags
    assert [flag for flag in flags if flag not in text] == []
    assert ("--input" in text) is (command in ("run", "serve"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stranger_s_task_gets_its_options(
    command: str, chosen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_platform = command in ("run", "serve")
    _, choices = chosen(command, "bright")
    assert choices.options == BrightOptions(smooth=on_platform)
    monkeypatch.setenv("GC_PANTHER_PERCENTILE", "90")
    monkeypatch.setenv("GC_PANTHER_DEVICE", "cpu")
    _, choices = chosen(command, "bright")
    assert choices.options == BrightOptions(percentile=90, smooth=on_platform)
    assert choices.run.device == "cpu"
    flags = ("--percentile", "95", "--smooth", "--device", "cuda:1", "--time-limit", "5")
    _, choices = chosen(command, "bright", *flags)
    assert choices.options == BrightOptions(percentile=95, smooth=True)
    assert (choices.run.device, choices.run.time_limit) == ("cuda:1", 5)
    assert chosen(command, "bright", "--no-smooth")[1].options.smooth is False


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("task", "flag", "owners"),
    [
        ("plain", "--mirroring", "task1 or task2"),
        ("plain", "--keep-empty", "task1 or task2"),
        ("bright", "--no-mirroring", "task1 or task2"),
        ("plain", "--no-smooth", "bright"),
    ],
)
def test_a_flag_that_the_task_does_not_have_is_refused(
    command: str,
    task: str,
    flag: str,
    owners: str,
    chosen: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(IndexError):
        chosen(command, task, flag)
    assert capfd.readouterr().err == (
        f"error: the task {task} has no option {flag}. Leave it out; it is an option of {owners}\n"
    )


def test_a_variable_that_the_task_does_not_have_is_ignored(
    chosen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GC_PANTHER_MIRRORING", "0")
    monkeypatch.setenv("GC_PANTHER_PERCENTILE", "90")
    assert chosen("run", "plain")[1].options == Options()
    assert chosen("run", "bright")[1].options == BrightOptions(percentile=90, smooth=True)


def test_the_platform_s_folders_and_task_come_from_flag_or_variable(
    chosen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GC_PANTHER_TASK", "nope")
    monkeypatch.setenv("GC_PANTHER_INPUT", "/there")
    settings, _ = chosen("run", "bright", "--output", "/here")
    assert (settings.task, settings.input, settings.output) == (
        "bright",
        Path("/there"),
        Path("/here"),
    )


def test_without_a_task_the_error_names_both_ways_to_choose_one(
    install: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    install(Bright)
    assert cli.invoke(["run"]) == 2
    said = "error: no task was chosen. Give --task or set GC_PANTHER_TASK\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("command", ["tasks", "info"])
@pytest.mark.parametrize("variable", ["GC_PANTHER_PERCENTILE", "GC_PANTHER_STEP_SIZE"])
def test_a_variable_that_is_not_valid_ends_every_command(
    command: str,
    variable: str,
    install: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    install(Bright)
    monkeypatch.setenv(variable, "much")
    assert cli.invoke([command]) == 2
    assert capfd.readouterr().err.startswith(f"error: {variable} is 'much', which is not valid. G")


class Backends(Options):
    backend: str = "abacus"


class Conflicting(Bright):
    name = "conflicting"
    Options = Backends


class Covering(Options):
    report: str = ""


class CoveringTask(Bright):
    name = "covering"
    Options = Covering


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Conflicting, "declare different options 'backend'"),
        (CoveringTask, "the command run has something of its own called 'report'"),
    ],
)
def test_a_task_with_unusable_options_stops_what_segments_and_nothing_else(
    task: type[Task], said: str, install: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    install(task)
    assert cli.invoke(["tasks"]) == 0
    assert task.name in capfd.readouterr().out
    for arguments in (["run", "--folds", "0"], ["predict", "task1", "a.mha", "-o", "b.mha"]):
        assert cli.invoke(arguments) == 2
        error = capfd.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert cli.invoke(["cohort", "--help"]) == 0


def test_no_command_declares_what_an_option_declares() -> None:
    """The flags of a command's own arguments and those of the declared options differ."""
    names = {name for group in (RunOptions, PantherOptions) for name in declared(group)}
    for command in (segmenting.run, segmenting.serve, segmenting.predict, segmenting.cohort):
        assert not names & set(command.__annotations__)
