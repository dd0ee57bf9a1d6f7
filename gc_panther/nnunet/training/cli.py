"""``gc-panther train``: from data to model folders."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from gc_panther.nnunet.training.pipeline import ResEnc

log = logging.getLogger(__name__)

#: Seconds in which a run that was just stopped may let go of the work folder.
LOCK_WAIT = 2.0


def register(app: typer.Typer) -> None:
    """Add ``train`` to a command line."""
    app.command()(train)


def train(
    task: Annotated[str, typer.Argument(help="Task to train, as `gc-panther tasks` names it.")],
    work: Annotated[Path, typer.Option(help="Work folder; finished stages are not repeated.")],
    export: Annotated[Path, typer.Option(help="Folder that receives the model folders.")],
    preset: Annotated[str, typer.Option(help="Recipe: demo or panther.")] = "demo",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder in PANTHER's layout; phantoms if the recipe has them."),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(help="The folds' cases, as nnU-Net's splits_final.json; drawn if not given."),
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Model folder to fine-tune from.")
    ] = None,
    device: Annotated[str, typer.Option(help="torch's name: cpu, cuda, cuda:1.")] = "cpu",
    jobs: Annotated[
        int, typer.Option(min=1, help="Networks trained at the same time on a machine.")
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="local, or ray for the machines of a Ray cluster.")
    ] = "local",
    resenc: Annotated[
        ResEnc | None,
        typer.Option(help="Let nnU-Net plan a residual encoder U-Net for a GPU of this size."),
    ] = None,
    labelled_only: Annotated[
        bool, typer.Option("--labelled-only", help="Leave the unlabelled images and students out.")
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(help="Task 2: 2 (tumour) or 3 (and pancreas) labels, background included."),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Start from random weights, to see what others give."),
    ] = False,
) -> None:
    """Train a task's networks, and export model folders and an archive for Grand Challenge."""
    from gc_panther.nnunet.training.jobs.lock import locked
    from gc_panther.nnunet.training.models.archive import write_archive
    from gc_panther.nnunet.training.pipeline import TrainingRequest, find_pipeline
    from gc_panther.plugins import create_plugin_manager, find_task

    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.INFO)
    manager = create_plugin_manager()
    pipeline = find_pipeline(manager, task)
    # Absolute paths: a job may run on another machine, and in another folder.
    request = TrainingRequest(
        preset=preset,
        work=work.resolve(),
        export=export.resolve(),
        data=data and data.resolve(),
        splits=splits and splits.resolve(),
        start_from=start_from and start_from.resolve(),
        device=device,
        jobs=jobs,
        engine=engine,
        resenc=resenc,
        labelled_only=labelled_only,
        classes=classes,
        from_scratch=from_scratch,
    )
    with locked(work / "lock", "another training", wait=LOCK_WAIT):
        folders = pipeline.train(request)
        models = {model.name: export / model.name for model in find_task(manager, task).models}
        missing = [name for name, folder in models.items() if not folder.is_dir()]
        if missing:
            log.warning(
                "no archive for Grand Challenge: %s is not in %s", ", ".join(missing), export
            )
        else:
            folders = (*folders, write_archive(models, export / f"{task}_model.tar.gz"))
    for folder in folders:
        typer.echo(folder)
