import typer
from typer.testing import CliRunner

from gc_panther.errors import PluginError, UserError
from gc_panther.nnunet.training import cli
from gc_panther.nnunet.training.jobs.lock import locked
from gc_panther.nnunet.training.pipeline import TrainingRequest


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


def requested(arguments, monkeypatch):
    """What a command line asks the task's pipeline for."""
    requests = []

    class Pipeline:
        def train(self, request):
            requests.append(request)
            return ()

    monkeypatch.setattr("gc_panther.nnunet.training.pipeline.find_pipeline", lambda *_: Pipeline())
    result = CliRunner().invoke(app(), ["train", "task1", *arguments])
    assert result.exit_code == 0, result.exception
    return requests.pop()


def test_every_option_reaches_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = "--work w --export e --data d --splits s.json --from m"
    others = "--preset panther --device cuda:1 --jobs 3 --engine ray --resenc L --classes 3"
    arguments = [*folders.split(), *others.split(), "--labelled-only", "--from-scratch"]
    assert requested(arguments, monkeypatch) == TrainingRequest(
        preset="panther",
        work=tmp_path / "w",
        export=tmp_path / "e",
        data=tmp_path / "d",
        splits=tmp_path / "s.json",
        start_from=tmp_path / "m",
        device="cuda:1",
        jobs=3,
        engine="ray",
        resenc="L",
        labelled_only=True,
        classes=3,
        from_scratch=True,
    )


def test_by_default_the_demonstration_is_trained_on_this_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert requested(["--work", "w", "--export", "e"], monkeypatch) == TrainingRequest(
        "demo", tmp_path / "w", tmp_path / "e"
    )
