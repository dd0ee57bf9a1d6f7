"""A case's files appear together or not at all, and plugins hear of every failure."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signals import deliver

from gc_panther import interruption
from gc_panther.errors import ProcessingError
from gc_panther.hookspecs import hookimpl
from gc_panther.task import Interface, Socket

CommandLine = Callable[[list[str]], int]
MASK = "output/images/toy-mask/0f0e.mha"


@pytest.fixture
def notified(toy_plugin: Any) -> list[Any]:
    """The errors that the plugin was notified of, with the names of their cases."""
    errors: list[Any] = []

    @hookimpl
    def gc_panther_on_error(task: Any, error: BaseException, case: Any) -> None:
        errors.append((error, case and case.name))

    toy_plugin.hooks.gc_panther_on_error = gc_panther_on_error
    return errors


@pytest.fixture
def commands(
    toy_input: Path, tmp_path: Path, write_volume: Any, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[str]]:
    """Command lines that write all the files that they can."""
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / "scans/scan.mha")
    device = ["--device", "cpu"]
    return {
        "run": ["run", "--task", "toy", "--input", "input", "--output", "output"]
        + ["--report", "report.json", *device],
        "predict": ["predict", "toy", "scans/scan.mha", "-o", "mask.mha"]
        + ["--report", "report.json", "--picture", "mask.png", *device],
        "cohort": ["cohort", "toy", "scans", "-o", "masks", "--pictures", *device],
    }


def written(folder: Path) -> set[str]:
    """All files but the inputs and a cohort's own books."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {
        name
        for name in files
        if not name.startswith(("input/", "scans/"))
        and not (name.startswith("masks/") and Path(name).suffix not in (".mha", ".png", ".json"))
    }


def fail_after_case(plugin: Any, error: BaseException) -> None:
    @hookimpl
    def gc_panther_after_case(task: Any, case: Any) -> None:
        raise error

    plugin.hooks.gc_panther_after_case = gc_panther_after_case


RESULTS = {
    "run": {MASK, "output/results.json", "report.json"},
    "predict": {"mask.mha", "mask.png", "report.json"},
}


@pytest.mark.parametrize("command", RESULTS)
def test_all_files_are_there_in_the_end(
    command: str, commands: Any, toy_command_line: CommandLine, tmp_path: Path
) -> None:
    assert toy_command_line(commands[command]) == 0
    assert written(tmp_path) == RESULTS[command]


@pytest.mark.parametrize("command", ["run", "predict"])
def test_a_plugin_that_fails_after_a_case_keeps_it_from_being_published(
    command: str,
    commands: Any,
    toy_command_line: CommandLine,
    toy_plugin: Any,
    notified: list[Any],
    tmp_path: Path,
    capfd: Any,
) -> None:
    error = ProcessingError("the register is closed")
    fail_after_case(toy_plugin, error)
    assert toy_command_line(commands[command]) == 1
    assert capfd.readouterr().err == "error: the register is closed\n"
    assert written(tmp_path) == set()
    assert notified == [(error, {"run": "patient one", "predict": "scan"}[command])]


def test_a_failing_prediction_leaves_the_files_of_an_earlier_one(
    commands: Any, toy_command_line: CommandLine, toy_plugin: Any, tmp_path: Path
) -> None:
    for name in RESULTS["predict"]:
        (tmp_path / name).write_text(f"earlier {name}")
    fail_after_case(toy_plugin, ProcessingError("the register is closed"))
    assert toy_command_line(commands["predict"]) == 1
    for name in RESULTS["predict"]:
        assert (tmp_path / name).read_text() == f"earlier {name}"


@pytest.mark.parametrize("command", RESULTS)
def test_a_disk_that_is_full_for_the_last_file_leaves_none(
    command: str,
    commands: Any,
    toy_command_line: CommandLine,
    notified: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    from gc_panther import files

    staged = files._staged

    def full(path: Path, content: bytes) -> Any:
        if path.name == "report.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return staged(path, content)

    monkeypatch.setattr(files, "_staged", full)
    assert toy_command_line(commands[command]) == 1
    assert "cannot be written (No space left on device): report.json" in capfd.readouterr().err
    assert written(tmp_path) == set()
    assert len(notified) == 1


@pytest.mark.parametrize("command", ["run", "predict", "cohort"])
def test_plugins_are_notified_when_loading_fails(
    command: str,
    commands: Any,
    toy_command_line: CommandLine,
    toy_plugin: Any,
    notified: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Any:
        raise ProcessingError("no network today")

    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "load", fail)
    # The class is made again at each fixture; the plugin gives instances of this one.
    assert toy_command_line(commands[command]) == 1
    ((error, case),) = notified
    assert str(error) == "no network today"
    # A cohort loads the networks before it reads the first image.
    assert case == {"run": "patient one", "predict": "scan", "cohort": None}[command]
    assert written(tmp_path) == set()


def test_a_plugin_that_fails_when_notified_does_not_hide_the_first_error(
    commands: Any, toy_command_line: CommandLine, toy_plugin: Any, capfd: Any
) -> None:
    @hookimpl
    def gc_panther_on_error(task: Any) -> None:
        raise ZeroDivisionError

    toy_plugin.hooks.gc_panther_on_error = gc_panther_on_error
    fail_after_case(toy_plugin, ProcessingError("the register is closed"))
    assert toy_command_line(commands["predict"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "error: the register is closed"


@pytest.mark.parametrize("command", ["run", "predict", "cohort"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_work_at_the_next_pass_and_nothing_is_written(
    number: int,
    command: str,
    commands: Any,
    toy_command_line: CommandLine,
    toy_plugin: Any,
    notified: list[Any],
    tmp_path: Path,
    capfd: Any,
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    passes = []

    def signalled(mask: Any) -> Any:
        progress = toy_plugin.runs[-1].progress
        progress.start("toy", 2)
        deliver(number)
        for number_of_pass in (1, 2):
            passes.append(number_of_pass)
            progress.advance()
        return mask

    toy_plugin.change = signalled
    try:
        assert toy_command_line(commands[command]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, before)
    assert passes == [1]
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated by the platform or a person"}
    assert capfd.readouterr().err.splitlines()[-1] == f"error: {said[number]}"  # type: ignore[index]
    assert written(tmp_path) == set()
    ((error, _),) = notified
    assert isinstance(error, interruption.Interrupted)


@pytest.mark.parametrize("command", ["run", "predict", "cohort"])
def test_a_signal_between_two_stages_stops_the_work(
    command: str,
    commands: Any,
    toy_command_line: CommandLine,
    toy_plugin: Any,
    tmp_path: Path,
) -> None:
    """A task without passes: the last safe point is before the files appear."""

    def signalled(mask: Any) -> Any:
        deliver(signal.SIGTERM)
        return mask

    toy_plugin.change = signalled
    assert toy_command_line(commands[command]) == 143
    assert written(tmp_path) == set()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--report", "folder"], "is a folder"),
        (["--report", "output/results.json"], "the report would replace results.json"),
        (["--report", MASK], "the report would replace the mask"),
        (["--report", "input/images/toy-folder/0f0e.mha"], "would replace the image toy-mri"),
        (["--output", "file"], "Not a directory"),
        (["--output", "/proc"], "cannot be written"),
        (["--output", "d/" * 3000], "File name too long"),
        (["--input", "n" * 256], "File name too long"),
        (["--input", "loop"], "no input folder"),
    ],
)
def test_run_refuses_before_it_works(
    more: list[str],
    said: str,
    commands: Any,
    toy_command_line: CommandLine,
    toy_plugin: Any,
    tmp_path: Path,
    capfd: Any,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert toy_command_line([*commands["run"], *more]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert not toy_plugin.runs
    assert written(tmp_path) == {"file"}


@pytest.mark.parametrize("command", ["run", "predict", "cohort"])
def test_a_folder_for_temporary_files_that_cannot_be_written_is_named(
    command: str,
    commands: Any,
    toy_command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    # Permission bits do not bind root; /proc takes no folders from anybody.
    monkeypatch.setenv("GC_PANTHER_SCRATCH", "/proc")
    assert toy_command_line(commands[command]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "no folder for temporary files" in line
    assert "/proc" in line


@pytest.mark.parametrize("image", ["n" * 252 + ".mha", "d/" * 3000 + "i.mha", "loop/i.mha"])
def test_an_image_path_that_no_file_system_has_is_one_line(
    image: str, commands: Any, toy_command_line: CommandLine, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert toy_command_line(["predict", "toy", image, "-o", "m.mha", "--device", "cpu"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "internal error" not in line


def test_names_as_long_as_a_file_system_takes(
    commands: Any, toy_command_line: CommandLine, tmp_path: Path
) -> None:
    """No temporary name is longer than the file's own."""
    name = "n" * 251
    (tmp_path / "scans/scan.mha").rename(tmp_path / f"scans/{name[:250]}.mha")
    assert toy_command_line(commands["cohort"]) == 0
    assert (tmp_path / f"masks/{name[:250]}.mha").exists()
    image = f"scans/{name[:250]}.mha"
    command = ["predict", "toy", image, "-o", f"{name}.mha", "--device", "cpu"]
    assert toy_command_line(command) == 0
    (tmp_path / "input/images/toy-folder/0f0e.mha").rename(
        tmp_path / f"input/images/toy-folder/{name}.mha"
    )
    assert toy_command_line(commands["run"]) == 0
    assert (tmp_path / f"output/images/toy-mask/{name}.mha").exists()


RISK = Socket("toy-risk", "toy-risk.json", "Value")


@pytest.fixture
def unserved(toy_plugin: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give the toy task a JSON value among its inputs or its outputs."""
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    (interface,) = task.interfaces
    sockets = {"inputs": interface.inputs, "outputs": interface.outputs}

    def add(side: str) -> None:
        changed = Interface(**{**sockets, side: (*sockets[side], RISK)})
        monkeypatch.setattr(type(task), "interfaces", (changed,))

    return add


@pytest.mark.parametrize("command", ["run", "predict", "cohort", "serve"])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_task_whose_sockets_are_not_served_is_refused_when_it_is_used(
    side: str,
    command: str,
    commands: Any,
    unserved: Callable[[str], None],
    toy_command_line: CommandLine,
    tmp_path: Path,
    capfd: Any,
) -> None:
    unserved(side)
    commands["serve"] = ["serve", "--task", "toy", "--port", "0", "--device", "cpu"]
    assert toy_command_line(commands[command]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "the task toy cannot be used" in line
    assert f"{side[:-1]} toy-risk is a Value" in line
    assert "plugin" in line
    assert written(tmp_path) == set()


def test_tasks_and_doctor_say_which_sockets_are_not_served(
    unserved: Callable[[str], None],
    toy_command_line: CommandLine,
    tmp_path: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unserved("inputs")
    monkeypatch.setenv("COLUMNS", "300")
    assert toy_command_line(["tasks"]) == 0
    listed = capfd.readouterr().out
    assert "not served: " in listed
    assert "task1" in listed
    monkeypatch.setenv("GC_PANTHER_RESOURCES", str(tmp_path))
    assert toy_command_line(["doctor", "--json", "--device", "cpu"]) == 1
    findings = {one["check"]: one for one in json.loads(capfd.readouterr().out)}
    assert findings["sockets toy"]["verdict"] == "fail"
    assert "toy-risk is a Value" in findings["sockets toy"]["found"]
    assert "sockets task1" not in findings


def test_stdout_that_is_full_is_one_line() -> None:
    program = Path(sys.executable).with_name("gc-panther")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program, "tasks"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "internal error" not in line


TOY = """
import sys
import numpy as np
from gc_panther import cli, plugins
from gc_panther.case import Result, Volume
from gc_panther.hookspecs import hookimpl
from gc_panther.task import Interface, Socket, Task

MRI, MASK = Socket("mri", "images/mri"), Socket("mask", "images/mask")

class Predictor:
    def predict(self, case, run):
        volume = case[MRI]
        return Result({MASK: Volume((volume.array_zyx > 250).astype(np.uint8), volume.geometry)})

class Toy(Task):
    name, title, models = "toy", "Toy", ()
    interfaces = (Interface((MRI,), (MASK,)),)

    def load(self, runtime):
        return Predictor()

class Hooks:
    @hookimpl
    def gc_panther_tasks(self):
        return [Toy()]

create = plugins.create_plugin_manager
plugins.create_plugin_manager = lambda **options: create([Hooks()], **options)
cli.main()
"""


@pytest.mark.slow
def test_a_mask_is_worth_no_less_where_stdout_is_full(commands: Any, tmp_path: Path) -> None:
    """Through the program's own entry point, which sets up the log."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TOY, *commands["predict"]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert written(tmp_path) == RESULTS["predict"]
