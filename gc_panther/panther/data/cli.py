"""``gc-panther dataset``: look at training data, and bring them into nnU-Net's layout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gc_panther.findings import Finding
    from gc_panther.panther.data.checks import OnProgress
    from gc_panther.panther.data.layout import Content, DataLayout

app = typer.Typer(
    name="dataset", help="Training data in PANTHER's layout: check, import.", no_args_is_help=True
)

Data = Annotated[Path, typer.Argument(help="Folder with ImagesTr, LabelsTr, ImagesTr_unlabeled.")]
TaskName = Annotated[str, typer.Option(help="Whose names and labels are expected.")]


@app.command()
def check(data: Data, task: TaskName) -> None:
    """Look at every file and show all problems at once."""
    content, problems = _checked(data, _layout(task))
    _say(content, problems)


@app.command("import")
def import_(
    data: Data,
    out: Annotated[Path, typer.Argument(help="nnU-Net's raw folder, which gets DatasetNNN_Name.")],
    task: TaskName,
) -> None:
    """Check the data, and write an nnU-Net raw data set without copying where that is possible."""
    from gc_panther.panther.data.layout import import_data

    layout = _layout(task)
    content, problems = _checked(data, layout)
    folder, way = import_data(content, layout, out)
    _say(content, problems, f" in {folder} ({way})")


def _layout(task: str) -> DataLayout:
    """The layout that a task's training declares as its ``layout``.

    Raises:
        PluginError: it declares none, or nothing trains the task.
    """
    from gc_panther.errors import PluginError
    from gc_panther.nnunet.training.pipeline import find_pipeline
    from gc_panther.panther.data.layout import DataLayout
    from gc_panther.plugins import create_plugin_manager

    layout = getattr(find_pipeline(create_plugin_manager(), task), "layout", None)
    if not isinstance(layout, DataLayout):
        raise PluginError(
            f"the training data of {task!r} are not in PANTHER's layout", fix="Name another --task"
        )
    return layout


def _checked(data: Path, layout: DataLayout) -> tuple[Content, list[Finding]]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gc_panther.panther.data.checks import check_data, require_sound
    from gc_panther.panther.data.layout import list_content

    content, _ = list_content(data, layout)
    with _bar(content.files) as progress:
        content, problems = check_data(data, layout, progress)
    if problems:
        table = Table("", "file", "problem", "what to do")
        for problem in problems:
            kind = Text("error", "red") if problem.failed else Text("warning", "yellow")
            table.add_row(kind, problem.check, problem.found, problem.fix)
        Console(markup=False).print(table)
        if any(problem.failed for problem in problems):
            _say(content, problems)
    require_sound(data, problems)
    return content, problems


@contextmanager
def _bar(total: int) -> Iterator[OnProgress]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda path, part: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        bar_id = bar.add_task("files", total=total)

        def progress(path: Path, part: float) -> None:
            bar.update(bar_id, advance=part, description=path.name)

        yield progress


def _say(content: Content, problems: list[Finding], where: str = "") -> None:
    from gc_panther.panther.data.checks import case_counts, problem_counts

    print(f"{case_counts(content)}{where}{problem_counts(problems)}")
