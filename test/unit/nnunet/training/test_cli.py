import typer
from typer.testing import CliRunner

from gc_panther.errors import PluginError, UserError
from gc_panther.nnunet.training import cli
from gc_panther.nnunet.training.jobs.lock import locked


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


def test_a_work_folder_in_which_another_training_is_at_work_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "LOCK_WAIT", 0.1)
    work = tmp_path / "w"
    arguments = ["train", "task1", "--work", str(work), "--export", str(tmp_path / "e")]
    with locked(work / "lock", "a training"):
        result = CliRunner().invoke(app(), arguments)
    assert isinstance(result.exception, UserError)
    assert "another training is already running here" in str(result.exception)
    assert [path.name for path in work.iterdir()] == ["lock"]


def test_the_help_names_the_options():
    text = CliRunner().invoke(app(), ["train", "--help"], env={"COLUMNS": "200"}).stdout
    options = "--preset --data --from --device --jobs --engine --work --export"
    for option in options.split():
        assert option in text
