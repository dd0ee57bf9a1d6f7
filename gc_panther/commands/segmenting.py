"""``gc-panther run``, ``serve``, ``predict``, ``cohort`` and ``submit``: what segments images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gc_panther import interruption
from gc_panther.console import say
from gc_panther.errors import UserError
from gc_panther.options import GivenOptions, inference_options
from gc_panther.settings import VARIABLES, Settings, read_settings
from gc_panther.text import count

if TYPE_CHECKING:
    import pluggy

    from gc_panther.task import Task

TaskOption = Annotated[
    str | None, typer.Option("--task", help="The task.", show_default="$GC_PANTHER_TASK")
]
InputOption = Annotated[
    Path | None, typer.Option("--input", help="Input folder.", show_default="/input")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", help="Output folder.", show_default="/output")
]
ReportOption = Annotated[Path | None, typer.Option(help="Write the run report (JSON).")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (run, serve, predict, cohort):
        app.command()(interruption.stopping_at_safe_points(command))
    app.command()(submit)


@inference_options
def run(
    task: TaskOption = None,
    input_path: InputOption = None,
    output_path: OutputOption = None,
    report: ReportOption = None,
    *,
    given: GivenOptions,
) -> None:
    """Segment one case as on the platform: from the input folder to the output folder."""
    from gc_panther.commands.run import run as run_case
    from gc_panther.plugins import create_plugin_manager

    settings = read_settings()
    manager = create_plugin_manager()
    choices = given.choices(settings, never_empty=True)
    result = run_case(
        _chosen_task(manager, task, settings),
        manager,
        settings,
        choices,
        input_path=input_path or settings.input,
        output_path=output_path or settings.output,
        report_path=report,
    )
    _print_volumes(result)


@inference_options
def serve(
    task: TaskOption = None,
    input_path: InputOption = None,
    output_path: OutputOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 4743,
    *,
    given: GivenOptions,
) -> None:
    """Load the networks once and segment a case at each POST /invoke, as the platform sends it."""
    from gc_panther.commands.serve import serve as serve_cases
    from gc_panther.plugins import create_plugin_manager

    settings = read_settings()
    manager = create_plugin_manager()
    choices = given.choices(settings, never_empty=True)
    serve_cases(
        _chosen_task(manager, task, settings),
        manager,
        settings,
        choices,
        input_path=input_path or settings.input,
        output_path=output_path or settings.output,
        host=host,
        port=port,
    )


@inference_options
def predict(
    task: Annotated[str, typer.Argument(help="The task.")],
    image: Annotated[Path, typer.Argument(help="The image, such as scan.nii.gz or scan.mha.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The mask to write.")],
    report: ReportOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a picture of the mask over the image (PNG).")
    ] = None,
    *,
    given: GivenOptions,
) -> None:
    """Segment an image file."""
    from gc_panther.commands.predict import predict as predict_file
    from gc_panther.plugins import create_plugin_manager, find_task

    settings = read_settings()
    manager = create_plugin_manager()
    choices = given.choices(settings, never_empty=False)
    result = predict_file(
        find_task(manager, task),
        manager,
        settings,
        choices,
        image_path=image,
        mask_path=output,
        report_path=report,
        picture_path=picture,
    )
    _print_volumes(result)
    say(f"mask: {output}")


@inference_options
def cohort(
    task: Annotated[str, typer.Argument(help="The task.")],
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
            help="Make all masks anew; each replaces the earlier one when it is complete.",
        ),
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also write pictures of the masks (PNG).")
    ] = False,
    *,
    given: GivenOptions,
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
    settings = read_settings()
    manager = create_plugin_manager()
    choices = given.choices(settings, never_empty=False)
    outcomes = segment_cohort(
        find_task(manager, task),
        manager,
        settings,
        choices,
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


def _chosen_task(manager: pluggy.PluginManager, name: str | None, settings: Settings) -> Task:
    """The task of ``--task`` or of its variable."""
    from gc_panther.plugins import find_task

    variable, _ = VARIABLES["task"]
    if name:
        return find_task(manager, name)
    if not settings.task:
        raise UserError("no task was chosen", fix=f"Give --task or set {variable}")
    return find_task(manager, settings.task, where=variable)


def _print_volumes(report: dict[str, Any]) -> None:
    for label, size in report["labels"].items():
        say(f"{label}: {size['volume_ml']:.2f} mL ({count(size['voxels'], 'voxel')})")
