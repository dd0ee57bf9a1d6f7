"""``gc-panther run``, ``serve``, ``predict``, ``cohort`` and ``submit``: what segments images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gc_panther import interruption
from gc_panther.console import say
from gc_panther.errors import UserError
from gc_panther.flags import Given, with_options
from gc_panther.options import Options, RunOptions, declared, merged_options, read_options
from gc_panther.settings import Settings
from gc_panther.text import alternatives, count

if TYPE_CHECKING:
    import pluggy

    from gc_panther.session import Choices
    from gc_panther.task import Task

TaskArgument = Annotated[str, typer.Argument(help="The task.")]
ReportOption = Annotated[Path | None, typer.Option(help="Write the run report (JSON).")]

#: Started by a person, and by the platform.
BY_HAND, ON_PLATFORM = (RunOptions,), (Settings, RunOptions)


def register(app: typer.Typer, manager: pluggy.PluginManager) -> None:
    """Add the commands to ``app``, with the options of the installed tasks."""
    on_platform, by_hand = (run, serve), (predict, cohort)
    try:
        of_tasks = task_options(manager).values()
        with_flags = [
            *(with_options(*ON_PLATFORM, *of_tasks, on_platform=True)(one) for one in on_platform),
            *(with_options(*BY_HAND, *of_tasks)(one) for one in by_hand),
        ]
    except Exception as error:  # noqa: BLE001 - a plugin's fault; other commands work without it
        for command in (*on_platform, *by_hand):
            _register_failing(app, command, error)
    else:
        for command in with_flags:
            app.command()(interruption.stopping_at_safe_points(command))
    app.command()(submit)


def check_environment(manager: pluggy.PluginManager) -> None:
    """Refuse a variable that is not valid, whatever the command: it would be so for the next.

    Raises:
        UserError: the message names the variable.
    """
    groups: list[type[Options]] = [*ON_PLATFORM]
    # What is wrong with a plugin is said by the commands that need it.
    with suppress(Exception):
        groups += task_options(manager).values()
    for group in groups:
        read_options(group)


def task_options(manager: pluggy.PluginManager) -> dict[str, type[Options]]:
    """The options of each installed task, by its name.

    Raises:
        PluginError: a plugin's tasks or options cannot be used together with the others.
    """
    from gc_panther.plugins import registered_tasks

    of_tasks = {name: task.Options for name, task in registered_tasks(manager).items()}
    core = [("gc-panther", group) for group in ON_PLATFORM]
    merged_options([*core, *((f"the task {name}", group) for name, group in of_tasks.items())])
    return of_tasks


def _register_failing(app: typer.Typer, command: Callable[..., None], error: Exception) -> None:
    """Add a command that ends in an error, whatever it is given."""

    def fail() -> None:
        raise error

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command(command.__name__, help=command.__doc__, context_settings=anything)(fail)


def run(given: Given, report: ReportOption = None) -> None:
    """Segment one case as on the platform: from the input folder to the output folder."""
    from gc_panther.commands.run import run as run_case
    from gc_panther.plugins import create_plugin_manager

    settings = given.read(Settings)
    manager = create_plugin_manager()
    task = _platform_task(manager, given, settings)
    result = run_case(
        task,
        manager,
        settings,
        _choices(given, task, manager),
        input_path=settings.input,
        output_path=settings.output,
        report_path=report,
    )
    _print_volumes(result)


def serve(
    given: Given,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 4743,
) -> None:
    """Load the networks once and segment a case at each POST /invoke, as the platform sends it."""
    from gc_panther.commands.serve import serve as serve_cases
    from gc_panther.plugins import create_plugin_manager

    settings = given.read(Settings)
    manager = create_plugin_manager()
    task = _platform_task(manager, given, settings)
    serve_cases(
        task,
        manager,
        settings,
        _choices(given, task, manager),
        input_path=settings.input,
        output_path=settings.output,
        host=host,
        port=port,
    )


def predict(
    task: TaskArgument,
    image: Annotated[Path, typer.Argument(help="The image, such as scan.nii.gz or scan.mha.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The mask to write.")],
    report: ReportOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a picture of the mask over the image (PNG).")
    ] = None,
    *,
    given: Given,
) -> None:
    """Segment an image file."""
    from gc_panther.commands.predict import predict as predict_file
    from gc_panther.plugins import create_plugin_manager, find_task

    manager = create_plugin_manager()
    chosen = find_task(manager, task)
    result = predict_file(
        chosen,
        manager,
        given.read(Settings),
        _choices(given, chosen, manager),
        image_path=image,
        mask_path=output,
        report_path=report,
        picture_path=picture,
    )
    _print_volumes(result)
    say(f"mask: {output}")


def cohort(
    task: TaskArgument,
    images: Annotated[Path, typer.Argument(help="A folder, searched with its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the masks.")],
    keep: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Keep the results that are complete and were made of the same image by the same "
            "task, options and weights; make the others.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Make all masks again; each replaces the earlier one when it is complete.",
        ),
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also write pictures of the masks (PNG).")
    ] = False,
    *,
    given: Given,
) -> None:
    """Segment all images of a folder, with a table of what came out.

    An image that fails does not stop the others. Each mask's run report is written next to it. The
    table, cohort.csv, keeps its rows of other images. Only one run at a time uses a folder.
    """
    from gc_panther.commands.cohort import check_outcomes
    from gc_panther.commands.cohort import cohort as segment_cohort
    from gc_panther.commands.cohort_table import TABLE
    from gc_panther.plugins import create_plugin_manager, find_task

    if keep and overwrite:
        raise UserError("--continue and --overwrite exclude each other", fix="Give one of them")
    manager = create_plugin_manager()
    chosen = find_task(manager, task)
    outcomes = segment_cohort(
        chosen,
        manager,
        given.read(Settings),
        _choices(given, chosen, manager),
        image_folder=images,
        mask_folder=output,
        keep=keep,
        overwrite=overwrite,
        pictures=pictures,
    )
    say(f"masks: {sum(not one.error for one in outcomes)} in {output}")
    say(f"table: {output / TABLE}")
    check_outcomes(outcomes, output)


def submit(
    algorithm: Annotated[str, typer.Argument(help="Its slug: the last part of its address.")],
    image: Annotated[
        Path, typer.Argument(help="The image, in a format that the platform reads, too.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The mask to write.")],
    job: Annotated[
        str, typer.Option(help="Wait for a job that was started earlier for this image.")
    ] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the job.")] = 3600.0,
    url: Annotated[str, typer.Option(help="The platform's REST interface.")] = "",
) -> None:
    """Let an algorithm on Grand Challenge segment an image, and fetch the mask.

    The token is read from GRAND_CHALLENGE_AUTHORIZATION. Needs gc-panther's extra "submit".
    """
    from gc_panther.commands.submit import PLATFORM, Submission
    from gc_panther.commands.submit import submit as submit_image

    submission = Submission(algorithm, image, output, job, timeout, url or PLATFORM)
    print(f"mask: {submit_image(submission)}")


def _platform_task(manager: pluggy.PluginManager, given: Given, settings: Settings) -> Task:
    """The task of ``--task`` or of its variable."""
    from gc_panther.plugins import find_task

    option = declared(Settings)["task"]
    if not settings.task:
        raise UserError(
            "no task was chosen", fix=f"Give {option.flags[0]} or set {option.variable}"
        )
    where = "" if "task" in given.values else option.variable
    return find_task(manager, settings.task, where=where)


def _choices(given: Given, task: Task, manager: pluggy.PluginManager) -> Choices:
    """What the command line, the environment and the defaults choose for a task.

    Raises:
        UserError: a value is not valid, or the task has no such option.
    """
    from gc_panther.runtime.info import process_start
    from gc_panther.session import Choices

    for name, value in given.values.items():
        if not any(name in declared(group) for group in (*ON_PLATFORM, task.Options)):
            others = {
                other: declared(group)
                for other, group in task_options(manager).items()
                if name in declared(group)
            }
            flag = next(iter(others.values()))[name].flag_of(value)
            raise UserError(
                f"the task {task.name} has no option {flag}",
                fix=f"Leave it out; it is an option of {alternatives(others)}",
            )
    run = given.read(RunOptions)
    if run.model_dir and "model_dir" not in given.values and not run.model_dir.exists():
        raise UserError(
            f"{declared(RunOptions)['model_dir'].variable} names a folder that does not exist",
            where=run.model_dir,
        )
    return Choices(run, given.read(task.Options), started=process_start())


def _print_volumes(report: dict[str, Any]) -> None:
    for label, size in report["labels"].items():
        say(f"{label}: {size['volume_ml']:.2f} mL ({count(size['voxels'], 'voxel')})")
