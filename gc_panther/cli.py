"""The command line: parses, calls, prints. Whatever is heavy is imported by the command itself."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from gc_panther import __version__, interruption
from gc_panther.console import drop_stdout, say
from gc_panther.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USER,
    GCPantherError,
    UserError,
    describe,
    error_line,
)
from gc_panther.evaluation import cli as evaluation_cli
from gc_panther.harness.log import log_handler
from gc_panther.phantom import cli as phantom_cli
from gc_panther.settings import Settings, read_settings
from gc_panther.training import cli as training_cli
from gc_panther.training import data_cli

if TYPE_CHECKING:
    import pluggy

    from gc_panther.harness.engine import Choices
    from gc_panther.task import Backend, Combine, Mode

logger = logging.getLogger(__name__)

EXIT_TERMINATED = 128 + signal.SIGTERM
EXIT_INTERRUPTED = 128 + signal.SIGINT

DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")
]
RequireGpuOption = Annotated[
    bool, typer.Option("--require-gpu", help="Fail where no GPU can be used.")
]
ModelDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Weights, a folder or model.tar.gz, that go before /opt/ml/model and the bundled ones."
    ),
]
CombineOption = Annotated[
    str | None,
    typer.Option(help="probabilities, logits or vote.", show_default="probabilities"),
]
KeepEmptyOption = Annotated[bool, typer.Option("--keep-empty", help="Leave an empty mask empty.")]
FoldsOption = Annotated[
    str | None, typer.Option(help="Folds to use, such as 0,1,2.", show_default="all required")
]
NoMirroringOption = Annotated[
    bool, typer.Option("--no-mirroring", help="Do not average over mirrored copies.")
]
StepSizeOption = Annotated[
    float | None,
    typer.Option(help="Distance of windows as a part of the patch.", show_default="0.5"),
]
BackendOption = Annotated[
    str | None, typer.Option(help="auto, torch or openvino.", show_default="auto")
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        help="exact, or adaptive: fewer passes where they hardly matter, an approximation.",
        show_default="exact",
    ),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(
        help="Seconds until the mask is there: folds and mirrored copies that do not fit are "
        "left out.",
        show_default="none",
    ),
]
ReportOption = Annotated[Path | None, typer.Option(help="Write the run report (JSON).")]


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"gc_panther {__version__}")
        raise typer.Exit


def run(
    task: Annotated[
        str | None, typer.Option(help="The task.", show_default="$GC_PANTHER_TASK")
    ] = None,
    input_path: Annotated[
        Path | None, typer.Option("--input", help="Input folder.", show_default="/input")
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", help="Output folder.", show_default="/output")
    ] = None,
    report: ReportOption = None,
    model_dir: ModelDirOption = None,
    device: DeviceOption = None,
    require_gpu: RequireGpuOption = False,
    combine: CombineOption = None,
    keep_empty: KeepEmptyOption = False,
    folds: FoldsOption = None,
    no_mirroring: NoMirroringOption = False,
    step_size: StepSizeOption = None,
    backend: BackendOption = None,
    mode: ModeOption = None,
    time_limit: TimeLimitOption = None,
) -> None:
    """Segment one case as on the platform: from the input folder to the output folder."""
    from gc_panther.harness.run import run as run_case
    from gc_panther.plugins import create_plugin_manager, find_task

    settings = read_settings()
    name = _chosen_task(task, settings)
    manager = create_plugin_manager()
    choices = _choices(
        settings,
        model_dir=model_dir,
        device=device,
        require_gpu=require_gpu,
        combine=combine,
        keep_empty=keep_empty,
        folds=folds,
        no_mirroring=no_mirroring,
        step_size=step_size,
        backend=backend,
        mode=mode,
        time_limit=time_limit,
    )
    result = run_case(
        find_task(manager, name),
        manager,
        settings,
        choices,
        input_path=input_path or settings.input,
        output_path=output_path or settings.output,
        report_path=report,
    )
    _print_volumes(result)


def serve(
    task: Annotated[
        str | None, typer.Option(help="The task.", show_default="$GC_PANTHER_TASK")
    ] = None,
    input_path: Annotated[
        Path | None, typer.Option("--input", help="Input folder.", show_default="/input")
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", help="Output folder.", show_default="/output")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 4743,
    model_dir: ModelDirOption = None,
    device: DeviceOption = None,
    require_gpu: RequireGpuOption = False,
    combine: CombineOption = None,
    keep_empty: KeepEmptyOption = False,
    folds: FoldsOption = None,
    no_mirroring: NoMirroringOption = False,
    step_size: StepSizeOption = None,
    backend: BackendOption = None,
    mode: ModeOption = None,
    time_limit: TimeLimitOption = None,
) -> None:
    """Load the networks once and segment a case at each POST /invoke, as the platform sends it."""
    from gc_panther.harness.serve import serve as serve_cases
    from gc_panther.plugins import create_plugin_manager, find_task

    settings = read_settings()
    manager = create_plugin_manager()
    choices = _choices(
        settings,
        model_dir=model_dir,
        device=device,
        require_gpu=require_gpu,
        combine=combine,
        keep_empty=keep_empty,
        folds=folds,
        no_mirroring=no_mirroring,
        step_size=step_size,
        backend=backend,
        mode=mode,
        time_limit=time_limit,
    )
    serve_cases(
        find_task(manager, _chosen_task(task, settings)),
        manager,
        settings,
        choices,
        input_path=input_path or settings.input,
        output_path=output_path or settings.output,
        host=host,
        port=port,
    )


def predict(
    task: Annotated[str, typer.Argument(help="The task.")],
    image: Annotated[Path, typer.Argument(help="An image in any format SimpleITK reads.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The mask to write.")],
    report: ReportOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a picture of the mask over the image (PNG).")
    ] = None,
    model_dir: ModelDirOption = None,
    device: DeviceOption = None,
    require_gpu: RequireGpuOption = False,
    combine: CombineOption = None,
    keep_empty: KeepEmptyOption = False,
    folds: FoldsOption = None,
    no_mirroring: NoMirroringOption = False,
    step_size: StepSizeOption = None,
    backend: BackendOption = None,
    mode: ModeOption = None,
    time_limit: TimeLimitOption = None,
) -> None:
    """Segment an image file."""
    from gc_panther.harness.predict import predict as predict_file
    from gc_panther.plugins import create_plugin_manager, find_task

    settings = read_settings()
    manager = create_plugin_manager()
    choices = _choices(
        settings,
        model_dir=model_dir,
        device=device,
        require_gpu=require_gpu,
        combine=combine,
        keep_empty=keep_empty,
        folds=folds,
        no_mirroring=no_mirroring,
        step_size=step_size,
        backend=backend,
        mode=mode,
        time_limit=time_limit,
    )
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


def cohort(
    task: Annotated[str, typer.Argument(help="The task.")],
    images: Annotated[Path, typer.Argument(help="A folder; its folders are searched, too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the masks.")],
    keep: Annotated[
        bool, typer.Option("--continue", help="Leave out images whose masks are there.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the masks that are there, and start anew.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Also write pictures of the masks (PNG).")
    ] = False,
    model_dir: ModelDirOption = None,
    device: DeviceOption = None,
    require_gpu: RequireGpuOption = False,
    combine: CombineOption = None,
    keep_empty: KeepEmptyOption = False,
    folds: FoldsOption = None,
    no_mirroring: NoMirroringOption = False,
    step_size: StepSizeOption = None,
    backend: BackendOption = None,
    mode: ModeOption = None,
    time_limit: TimeLimitOption = None,
) -> None:
    """Segment all images of a folder, with a table of what came out.

    An image that fails does not stop the others. Beside each mask lies its run report.
    """
    from gc_panther.harness.cohort import TABLE, check_outcomes
    from gc_panther.harness.cohort import cohort as segment_cohort
    from gc_panther.plugins import create_plugin_manager, find_task

    if keep and overwrite:
        raise UserError("--continue and --overwrite exclude each other", fix="Give one of them")
    settings = read_settings()
    manager = create_plugin_manager()
    choices = _choices(
        settings,
        model_dir=model_dir,
        device=device,
        require_gpu=require_gpu,
        combine=combine,
        keep_empty=keep_empty,
        folds=folds,
        no_mirroring=no_mirroring,
        step_size=step_size,
        backend=backend,
        mode=mode,
        time_limit=time_limit,
    )
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


def tasks() -> None:
    """List the installed tasks."""
    from rich.console import Console
    from rich.table import Table

    from gc_panther.contract.sockets import unserved
    from gc_panther.plugins import create_plugin_manager, registered_tasks

    table = Table("task", "what it segments", "inputs", "models")
    for task in registered_tasks(create_plugin_manager()).values():
        table.add_row(
            task.name,
            "\n".join([task.title, *(f"not served: {problem}" for problem in unserved(task))]),
            "\n".join(" + ".join(interface.key) for interface in task.interfaces),
            "\n".join(model.name for model in task.models),
        )
    Console().print(table)


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, tasks, weights and settings."""
    from rich.console import Console
    from rich.table import Table

    from gc_panther.plugins import create_plugin_manager, registered_tasks
    from gc_panther.runtime.info import information

    manager = create_plugin_manager()
    plugins = [name for name, _ in manager.list_name_plugin()]
    facts = information(registered_tasks(manager).values(), read_settings(), plugins)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False)
    table.add_row("gc_panther", facts["gc_panther"])
    for name, version in facts["versions"].items():
        table.add_row(name, version or "not installed")
    for task in facts["tasks"]:
        for model, folder in task["weights"].items():
            table.add_row(f"{task['name']}: weights {model}", folder or "not found")
    for setting in facts["settings"].values():
        table.add_row(setting["variable"], str(setting["value"]))
    Console().print(table)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: DeviceOption = None,
) -> None:
    """Check that this machine can run the installed tasks; exit 1 if it cannot."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    # Nothing but JSON goes to stdout then, from what is imported here neither.
    with _only_errors_logged() if as_json else nullcontext():
        from gc_panther.harness.doctor import examine
        from gc_panther.plugins import create_plugin_manager, registered_tasks

        settings, manager = read_settings(), create_plugin_manager()
        chosen = registered_tasks(manager).values()
        findings = examine(chosen, manager, settings, device or settings.device)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        table = Table("check", "", "found", "what to do")
        for finding in findings:
            colour = colours[finding.verdict]
            verdict = f"[{colour}]{finding.verdict}[/{colour}]"
            table.add_row(finding.check, verdict, finding.found, finding.fix)
        Console().print(table)
    failed = [finding.check for finding in findings if finding.verdict == "fail"]
    if failed:
        raise GCPantherError(f"not ready: {', '.join(failed)}", fix="The table says what to do")


def pack(
    model_folder: Annotated[Path, typer.Argument(help="nnU-Net's folder of the trained folds.")],
    out: Annotated[Path, typer.Argument(help="The pack to make.")],
    half: Annotated[
        bool, typer.Option("--half", help="Half precision, for deployment on GPUs.")
    ] = False,
    folds: FoldsOption = None,
) -> None:
    """Pack a model for inference: weights only, stored once, with a checked manifest."""
    from gc_panther.nnunet.deploy import pack_model
    from gc_panther.nnunet.model_folder import open_model_folder
    from gc_panther.nnunet.pack import sizes

    model = open_model_folder(model_folder, _fold_list(folds or ""))
    manifest = pack_model(model, out, half=half)
    size = sizes(model, manifest)
    print(
        f"{len(manifest.folds)} folds, {size['checkpoints'] / 1e6:.1f} MB of checkpoints, "
        f"{size['pack'] / 1e6:.1f} MB in the pack (1/{size['checkpoints'] / size['pack']:.2f})"
    )
    print(f"pack: {out}")


def submit(
    algorithm: Annotated[str, typer.Argument(help="Its slug: the last part of its address.")],
    image: Annotated[Path, typer.Argument(help="Any format SimpleITK and the platform read.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The mask to write.")],
    job: Annotated[
        str, typer.Option(help="Wait for a job that was started earlier for this image.")
    ] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the job.")] = 3600.0,
    url: Annotated[str, typer.Option(help="The platform's REST interface.")] = "",
) -> None:
    """Let an algorithm on Grand Challenge segment an image, and fetch the mask.

    The token is read from GRAND_CHALLENGE_AUTHORIZATION. Needs gc-panther[submit].
    """
    from gc_panther.harness.submit import PLATFORM, Submission
    from gc_panther.harness.submit import submit as submit_image

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
    for short in (tasks, info, doctor, pack, submit):
        app.command()(short)
    app.add_typer(phantom_cli.app, name="phantom", help="Make digital abdominal MR phantoms.")
    app.add_typer(data_cli.app, name="dataset", help="Check and import training data.")
    training_cli.register(app)
    evaluation_cli.register(app)
    manager.hook.gc_panther_commands(app=app)
    return app


def main() -> NoReturn:
    """Run the command line; every failure ends in one line on stderr and an exit code."""
    _quieten()
    # Threads that spin while they wait take the cores from those of another process that have work
    # to do. Before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    code = invoke(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_stdout()
        if code == EXIT_OK:
            code = _fail(f"stdout cannot be written ({error.strerror})", EXIT_FAILED)
    sys.exit(code)


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        from gc_panther.plugins import create_plugin_manager

        code = build_app(create_plugin_manager())(arguments, standalone_mode=False)
    except interruption.Interrupted as stop:
        return _fail(str(stop), stop.exit_code)
    except (GCPantherError, KeyboardInterrupt, MemoryError) as error:
        return _fail(*describe(error))
    except Exception as error:  # noqa: BLE001 - the last line of defence: say it and exit
        # Typer's own usage errors; its exception classes are not public.
        if hasattr(error, "format_message"):
            message = str(error.format_message()).rstrip(".")
            return _fail(f"{message}. `gc-panther --help` shows how", EXIT_USER)
        say(traceback.format_exc())
        return _fail(*describe(error))
    if code == EXIT_INTERRUPTED:
        # Typer takes Ctrl-C for an end without a word.
        return _fail(describe(KeyboardInterrupt())[0], code)
    return code if isinstance(code, int) else EXIT_OK


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _fail(message: str, code: int) -> int:
    print(error_line(message), file=sys.stderr, flush=True)
    return code


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Leave through every ``finally`` block, so that nothing half-written stays."""
    print("error: terminated by the platform or a person", file=sys.stderr, flush=True)
    sys.exit(EXIT_TERMINATED)


def _quieten() -> None:
    """Send log lines and warnings to stdout; stderr is for the one line of a failure."""
    level = logging.getLevelName(read_settings().log_level.upper())
    # A line that cannot be written, because a name in it is not Unicode or stdout is full, is no
    # reason to fail, nor to fill stderr.
    logging.raiseExceptions = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        handlers=[log_handler()],
        level=level if isinstance(level, int) else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # Says at each start how many threads it would use, if anybody used it.
    logging.getLogger("numexpr").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # Library warnings interest developers of this package, not the reader of a run's log.
    warnings.simplefilter("ignore")


def _chosen_task(task: str | None, settings: Settings) -> str:
    name = task or settings.task
    if not name:
        raise UserError("no task was chosen", fix="Give --task or set GC_PANTHER_TASK")
    return name


def _choices(
    settings: Settings,
    *,
    model_dir: Path | None,
    device: str | None,
    require_gpu: bool,
    combine: str | None,
    keep_empty: bool,
    folds: str | None,
    no_mirroring: bool,
    step_size: float | None,
    backend: str | None,
    mode: str | None,
    time_limit: float | None,
) -> Choices:
    """What was chosen on the command line, else in the environment."""
    from gc_panther.harness.engine import Choices
    from gc_panther.runtime.info import process_start
    from gc_panther.task import InferenceOptions

    return Choices(
        started=process_start(),
        device=device or settings.device,
        require_gpu=require_gpu or settings.require_gpu,
        model_dir=model_dir,
        options=InferenceOptions(
            combine=cast("Combine", combine or settings.combine),
            keep_empty=keep_empty or settings.keep_empty,
            folds=_fold_list(folds or settings.folds),
            mirroring=settings.mirroring and not no_mirroring,
            step_size=settings.step_size if step_size is None else step_size,
            backend=cast("Backend", backend or settings.backend),
            mode=cast("Mode", mode or settings.mode),
        ),
        time_limit=settings.time_limit if time_limit is None else time_limit,
    )


def _fold_list(folds: str) -> tuple[int, ...] | None:
    if not folds:
        return None
    try:
        return tuple(dict.fromkeys(int(fold) for fold in folds.split(",")))
    except ValueError as error:
        raise UserError(f"{folds!r} is no list of folds", fix="Write them as 0,1,2") from error


def _print_volumes(report: dict[str, Any]) -> None:
    for label, size in report["labels"].items():
        say(f"{label}: {size['volume_ml']:.2f} ml ({size['voxels']} voxels)")
