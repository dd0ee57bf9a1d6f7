"""How the command line ends: messages, exit codes, and an output that cannot be written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest
import typer
from rich.text import Text

from gc_panther import hookspecs
from gc_panther.cli import build_app
from gc_panther.plugins import create_plugin_manager


def gc_panther(*arguments, **options):
    """Run the installed entry point."""
    program = Path(sys.executable).with_name("gc-panther")
    options = {"stdout": subprocess.PIPE, **options}
    return subprocess.run(
        [program, *arguments], stderr=subprocess.PIPE, text=True, check=False, **options
    )


@pytest.mark.parametrize(
    ("variable", "text"), [("GC_PANTHER_TIME_LIMIT", "soon"), ("GC_PANTHER_MIRRORING", "perhaps")]
)
def test_a_wrong_variable_ends_the_installed_command_in_one_line(variable, text):
    done = gc_panther("tasks", env={**os.environ, variable: text})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {variable} is {text!r}")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_in_one_line(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    try:
        done = gc_panther("tasks", stdout=writer, env=environment)
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert done.stderr.startswith("error: what is printed cannot be written")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_under_stdout_ends_in_one_line():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = gc_panther("info", "--json", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the disk is full")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "a command is missing. `gc-panther --help` shows how"),
        (["dataset"], "a command is missing. `gc-panther dataset --help` shows how"),
        (
            ["predikt"],
            "No such command 'predikt'. Did you mean 'predict'? `gc-panther --help` shows how",
        ),
        (["predict"], "Missing argument 'task'. `gc-panther predict --help` shows how"),
    ],
)
def test_a_usage_error_names_the_help_of_its_command(arguments, line, toy_command_line, capfd):
    assert toy_command_line(arguments) == 2
    assert capfd.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    "code",
    [
        "import gc_panther",
        "from gc_panther.cli import invoke; assert invoke(['--help']) == 0",
        "from gc_panther.cli import invoke; assert invoke(['run', '--help']) == 0",
        "from gc_panther.cli import invoke; assert invoke(['pack', '--help']) == 0",
        "from gc_panther.cli import invoke; assert invoke(['phantom', '--help']) == 0",
    ],
)
def test_help_imports_nothing_heavy(code):
    heavy = "{'torch', 'SimpleITK', 'numpy', 'nnunetv2', 'matplotlib'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; sys.exit(str({heavy} & set(sys.modules)))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "set()\n"


def test_built_in_layers_are_plugins_and_add_their_commands():
    plugins = dict(create_plugin_manager().list_name_plugin())
    assert plugins["nnunet"].__name__ == "gc_panther.nnunet.plugin"
    assert plugins["panther"].__name__ == "gc_panther.panther.plugin"
    without_plugins = pluggy.PluginManager(hookspecs.PROJECT)
    without_plugins.add_hookspecs(hookspecs)
    core = set(typer.main.get_command(build_app(without_plugins)).commands)
    everything = set(typer.main.get_command(build_app(create_plugin_manager())).commands)
    assert {"pack", "train", "dataset", "phantom", "evaluate"} <= everything - core


def all_commands(command):
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from all_commands(child)


def test_no_help_text_loses_its_brackets():
    for command in all_commands(typer.main.get_command(build_app(create_plugin_manager()))):
        texts = [command.help, *(getattr(one, "help", None) for one in command.params)]
        for text in filter(None, texts):
            assert Text.from_markup(text).plain == text, command.name


def commands_of_the_readme():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for line in re.findall(r"^gc-panther .*|`gc-panther [^`\n]*`", text, re.MULTILINE):
        yield line.strip("`").partition("#")[0].split()[1:]


def test_the_readme_names_commands_and_options_that_exist():
    root = typer.main.get_command(build_app(create_plugin_manager()))
    lines = list(commands_of_the_readme())
    assert len(lines) > 8
    for words in lines:
        command, rest = root, list(words)
        while hasattr(command, "commands"):
            assert rest, words
            command = command.commands[rest.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        given = {word for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= known, words


def test_a_task_is_listed_with_the_brackets_of_its_title(
    toy_plugin, toy_command_line, monkeypatch, capfd
):
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "title", "Toy [sic]")
    assert toy_command_line(["tasks"]) == 0
    assert "Toy [sic]" in capfd.readouterr().out


def test_a_package_that_is_not_installed_is_named(
    toy_plugin, toy_command_line, write_volume, tmp_path, monkeypatch, capfd
):
    def change(mask):
        from mrsegmentator import config

        return config

    monkeypatch.setitem(sys.modules, "mrsegmentator", None)
    toy_plugin.change = change
    image = write_volume(tmp_path / "scan.mha")
    mask = tmp_path / "mask.mha"
    arguments = ["predict", "toy", str(image), "-o", str(mask), "--device", "cpu"]
    assert toy_command_line(arguments) == 2
    stderr = capfd.readouterr().err
    assert stderr.startswith("error: the Python package 'mrsegmentator' is not installed. Install")


def test_a_missing_output_folder_is_the_users_to_make(
    toy_command_line, write_volume, tmp_path, capfd
):
    image = write_volume(tmp_path / "scan.mha")
    mask = tmp_path / "nowhere" / "mask.mha"
    assert toy_command_line(["predict", "toy", str(image), "-o", str(mask)]) == 2
    assert "the folder does not exist" in capfd.readouterr().err


def test_volumes_are_printed_in_the_singular_too(
    toy_plugin, toy_command_line, write_volume, tmp_path, capfd
):
    import numpy as np

    array = np.zeros((5, 6, 7), np.int16)
    array[2, 3, 4] = 300
    image = write_volume(tmp_path / "scan.mha", array)
    mask = tmp_path / "mask.mha"
    arguments = ["predict", "toy", str(image), "-o", str(mask), "--device", "cpu"]
    assert toy_command_line(arguments) == 0
    assert "foreground: 0.01 mL (1 voxel)" in capfd.readouterr().out
