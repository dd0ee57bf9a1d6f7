import typer
from typer.testing import CliRunner

from gc_panther.errors import PluginError
from gc_panther.training import cli


def app():
    application = typer.Typer()
    cli.register(application)
    application.command("other")(lambda: None)
    return application


def test_an_unknown_task_is_refused_and_the_known_ones_are_named(tmp_path):
    arguments = ["train", "task9", "--work", str(tmp_path / "w"), "--export", str(tmp_path / "e")]
    result = CliRunner().invoke(app(), arguments)
    assert isinstance(result.exception, PluginError)
    assert "Known: task1, task2" in str(result.exception)


def test_the_help_names_the_options():
    text = CliRunner().invoke(app(), ["train", "--help"], env={"COLUMNS": "200"}).stdout
    for option in ("--preset", "--data", "--from", "--device", "--jobs", "--work", "--export"):
        assert option in text
