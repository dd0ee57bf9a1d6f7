"""``gc-panther phantom``: make synthetic data and look at it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gc_panther.text import count

app = typer.Typer(
    name="phantom",
    help="Digital abdominal MR phantom: synthetic cases in PANTHER's layout.",
    no_args_is_help=True,
)


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be empty or not exist.")],
    task: Annotated[str, typer.Option(help="task1 (T1, arterial) or task2 (T2, MR-Linac).")],
    cases: Annotated[int, typer.Option(help="Number of labelled cases.")] = 10,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    unlabelled: Annotated[int, typer.Option(help="Further images without labels.")] = 0,
    first_case: Annotated[int, typer.Option(help="Number of the first case.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; the result doesn't depend on it.")] = 1,
    organs: Annotated[
        bool, typer.Option(help="Write organ labels (MRSegmentator's numbering).")
    ] = True,
    contrast: Annotated[
        str | None, typer.Option(help="t1, t2, mixed or random; the task's own if not given.")
    ] = None,
    varied: Annotated[
        bool,
        typer.Option(
            "--varied", help="Patients, fields of view and voxels far beyond the task's protocol."
        ),
    ] = False,
) -> None:
    """Write synthetic cases: ImagesTr, LabelsTr, OrgansTr and phantoms.json."""
    from gc_panther.errors import UserError
    from gc_panther.panther.phantom.dataset import make_dataset
    from gc_panther.panther.phantom.signal import CONTRASTS

    options: dict[str, Any] = {}
    if contrast is not None:
        if contrast not in CONTRASTS:
            raise UserError(f"unknown contrast {contrast!r}", fix=f"Known: {', '.join(CONTRASTS)}")
        options["contrast"] = contrast
    if varied:
        options["varied"] = True
    total = cases + unlabelled

    def write(progress: Any) -> list[dict[str, Any]]:
        return make_dataset(
            task,
            out,
            cases,
            seed,
            first_case=first_case,
            unlabelled=unlabelled,
            organs=organs,
            workers=workers,
            progress=progress,
            **options,
        )

    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            bar_id = bar.add_task("phantoms", total=total)
            entries = write(lambda entry: bar.advance(bar_id))
    else:
        done = iter(range(1, total + 1))
        entries = write(lambda entry: print(_line(entry, next(done), total), flush=True))
    print(f"{count(len(entries), 'synthetic case')} in {out}")


def _line(entry: dict[str, Any], number: int, total: int) -> str:
    return (
        f"[{number}/{total}] {entry['name']}: tumour {entry['tumour_diameter_mm']:.0f} mm, "
        f"{entry['tumour_position']}"
    )


@app.command()
def preview(
    out: Annotated[Path, typer.Argument(help="PNG to write.")],
    task: Annotated[str, typer.Option(help="task1 or task2.")],
    seed: Annotated[int, typer.Option(help="Seed of the data set.")] = 0,
    case: Annotated[int, typer.Option(help="Case within the seed.")] = 0,
    contrast: Annotated[str | None, typer.Option(help="t1, t2, mixed or random.")] = None,
    varied: Annotated[
        bool, typer.Option("--varied", help="A patient far beyond the task's protocol.")
    ] = False,
) -> None:
    """Draw three orthogonal slices through the tumour of one synthetic case."""
    from gc_panther.errors import UserError
    from gc_panther.panther.phantom.generate import generate_phantom
    from gc_panther.panther.phantom.preview import save_preview

    try:
        phantom = generate_phantom(task, seed, case=case, contrast=contrast, varied=varied)
    except ValueError as error:
        raise UserError(str(error)) from error
    save_preview(phantom, out)
    print(f"wrote {out}")
