"""The command line: parses, calls, prints. Whatever is heavy is imported by the command itself."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gc_panther import __version__, interruption
from gc_panther.commands import info as info_cli
from gc_panther.console import drop_stdout, say
from gc_panther.errors import (
    EXIT_OK,
    EXIT_USER,
    GCPantherError,
    UserError,
    describe,
    error_line,
)
from gc_panther.log import start_log
from gc_panther.nnunet.training import cli as training_cli
from gc_panther.options import FoldsOption, GivenOptions, inference_options
from gc_panther.panther.data import cli as data_cli
from gc_panther.panther.evaluation import cli as evaluation_cli
from gc_panther.panther.phantom import cli as phantom_cli
from gc_panther.settings import VARIABLES, Settings, parse_folds, read_settings
from gc_panther.text import count

if TYPE_CHECKING:
    import pluggy

    from gc_panther.task import Task


PROGRAM = "gc-panther"
EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_INTERRUPTED = 128 + signal.SIGINT

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


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"gc_panther {__version__}")
        raise typer.Exit


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


def pack(
    model_folder: Annotated[Path, typer.Argument(help="nnU-Net's folder of the trained folds.")],
    out: Annotated[Path, typer.Argument(help="The pack to make.")],
    half: Annotated[
        bool, typer.Option("--half", help="Half precision, for deployment on GPUs.")
    ] = False,
    folds: FoldsOption = None,
    kind: Annotated[
        str | None, typer.Option(help="demonstration (trained on synthetic images) or trained.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the model is, in one line.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights, such as Apache-2.0.")] = None,
) -> None:
    """Pack a model for inference: weights only, stored once, with a checked manifest."""
    from gc_panther.model_identity import changed_identity
    from gc_panther.nnunet.model.deploy import pack_model
    from gc_panther.nnunet.model.folder import open_model_folder
    from gc_panther.nnunet.model.pack import sizes

    model = open_model_folder(model_folder, parse_folds(folds, "--folds") if folds else None)
    identity = changed_identity(model.identity, kind=kind, title=title, licence=licence)
    manifest = pack_model(model, out, half=half, identity=identity)
    size = sizes(model, manifest)
    print(
        f"{count(len(manifest.folds), 'fold')}, {size['checkpoints'] / 1e6:.1f} MB of checkpoints, "
        f"{size['pack'] / 1e6:.1f} MB in the pack (1/{size['checkpoints'] / size['pack']:.2f})"
    )
    print(f"pack: {out}")


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


def build_app(manager: pluggy.PluginManager) -> typer.Typer:
    """The whole command line, with the commands that plugins add."""
    app = typer.Typer(
        name="gc-panther",
        help="Grand Challenge algorithm containers with plug-in segmentation tasks.",
        no_args_is_help=True,
        add_completion=False,
    )
    app.callback(invoke_without_command=True)(_root)
    for command in (run, serve, predict, cohort):
        app.command()(interruption.stopping_at_safe_points(command))
    info_cli.register(app)
    for command in (pack, submit):
        app.command()(command)
    app.add_typer(phantom_cli.app, name="phantom", help="Make digital abdominal MR phantoms.")
    app.add_typer(data_cli.app, name="dataset", help="Check and import training data.")
    training_cli.register(app)
    evaluation_cli.register(app)
    manager.hook.gc_panther_commands(app=app)
    return app


def main() -> NoReturn:
    """Run the command line; every failure ends in one line on stderr and an exit code."""
    # Threads that spin while they wait take the cores from those of another process that have work
    # to do. Before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        start_log(read_settings().log_level)
    except UserError as error:
        sys.exit(_fail(*describe(error)))
    sys.exit(_printed(invoke(sys.argv[1:])))


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        from gc_panther.plugins import create_plugin_manager

        # Each command says itself what it makes of a plugin that cannot be loaded.
        app = build_app(create_plugin_manager(broken={}))
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except interruption.Interrupted as stop:
        return _fail(str(stop), stop.exit_code)
    except (GCPantherError, KeyboardInterrupt, MemoryError, BrokenPipeError) as error:
        return _fail(*describe(error))
    except SystemExit as end:
        # Rich ends the process without a word where the reader of the output has gone.
        if isinstance(end.__context__, BrokenPipeError):
            return _fail(*describe(end.__context__))
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: say it and exit
        # Typer's own usage errors; its exception classes are not public.
        if hasattr(error, "format_message"):
            return _fail(_usage_message(error), EXIT_USER)
        say(traceback.format_exc())
        return _fail(*describe(error))
    if code == EXIT_INTERRUPTED:
        # Typer takes Ctrl-C for an end without a word.
        return _fail(describe(KeyboardInterrupt())[0], code)
    return code if isinstance(code, int) else EXIT_OK


def _usage_message(error: Any) -> str:
    """One line for a usage error of Typer's, which names the help of the command it concerns."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else PROGRAM
    message = error.format_message().strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        # Typer has printed the help; or the message is the help, where Rich is switched off.
        if message:
            print(message)
        message = "a command is missing"
    stop = "" if message.endswith((".", "?", "!")) else "."
    return f"{message}{stop} `{command} --help` shows how"


def _printed(code: int) -> int:
    """Write out the rest of stdout, and return the exit code: 1 where that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        return code or _fail(*describe(error))
    return code


def _fail(message: str, code: int) -> int:
    print(error_line(message), file=sys.stderr, flush=True)
    return code


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave through every ``finally`` block, so that nothing half-written stays."""
    print("error: terminated by the platform or a person", file=sys.stderr, flush=True)
    sys.exit(EXIT_TERMINATED)


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
