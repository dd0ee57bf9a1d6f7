"""``gc-panther evaluate``: scores predicted masks against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gc_panther.errors import InputError
from gc_panther.imaging.names import without_channel, without_ending

#: Endings a mask may have.
ENDINGS = (".mha", ".mhd", ".nii.gz", ".nii", ".nrrd")
LISTED_AT_MOST = 10


def register(app: typer.Typer) -> None:
    """Add ``evaluate`` to ``app``."""
    app.command("evaluate")(evaluate)


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PRED", help="A predicted mask, or a folder of them.")
    ],
    references: Annotated[
        Path, typer.Argument(metavar="REF", help="The reference mask, or the folder of them.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write cases and summary as JSON.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the cases as CSV.")] = None,
    tumour_label: Annotated[
        int | None,
        typer.Option(help="The tumour's value in predictions of several classes."),
    ] = None,
    challenge_compatible: Annotated[
        bool,
        typer.Option(
            "--challenge-compatible",
            help="Reproduce the organisers' script, its swapped axes included.",
        ),
    ] = False,
) -> None:
    """Score tumour masks with PANTHER's metrics.

    Files of two folders are matched by name without ending. References may hold 0, 1 (tumour)
    and 2 (pancreas); predictions 0 and 1.
    """
    from rich.console import Console

    from gc_panther.imaging.images import read_image
    from gc_panther.panther.evaluation.metrics import score_volumes
    from gc_panther.panther.evaluation.tables import terminal_table, write_csv, write_scores

    scores = [
        score_volumes(
            read_image(prediction),
            read_image(reference),
            case=case,
            prediction_name=str(prediction),
            reference_name=str(reference),
            tumour_label=tumour_label,
            challenge_compatible=challenge_compatible,
        )
        for case, prediction, reference in match_cases(predictions, references)
    ]
    if json_file:
        write_scores(json_file, scores, challenge_compatible=challenge_compatible)
    if csv_file:
        write_csv(csv_file, scores)
    Console(markup=False).print(terminal_table(scores))


def match_cases(predictions: Path, references: Path) -> list[tuple[str, Path, Path]]:
    """Return (case, prediction, reference) for two files, or for two folders by name.

    Raises:
        InputError: a path does not exist, one is a file and the other a folder, or a case lacks
            its prediction or its reference; all such cases are named.
    """
    for path in (predictions, references):
        if not path.exists():
            raise InputError("there is no such file or folder", where=path)
    if predictions.is_dir() != references.is_dir():
        raise InputError(
            "give two files or two folders, not one of each",
            where=f"{predictions} and {references}",
        )
    if predictions.is_file():
        return [(without_ending(references.name), predictions, references)]

    expected = _masks(references)
    given = _masks(predictions)
    for name in sorted(given.keys() - expected.keys()):
        # Predictions made from images may still carry the channel.
        plain = without_channel(name)
        if plain not in given:
            given[plain] = given.pop(name)
    problems = [
        f"{kind} for {_listed(names)}"
        for kind, names in (
            ("no prediction", sorted(expected.keys() - given.keys())),
            ("no reference", sorted(given.keys() - expected.keys())),
        )
        if names
    ]
    if problems:
        raise InputError(
            "predictions and references do not pair up",
            where="; ".join(problems),
            fix=f"Every case needs one file of the same name in {predictions} and {references}",
        )
    return [(name, given[name], expected[name]) for name in sorted(expected)]


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.lower().endswith(ENDINGS):
            continue
        name = without_ending(path.name)
        if name in masks:
            raise InputError(
                f"two files for the case {name}",
                where=f"{masks[name].name} and {path.name} in {folder}",
                fix="Keep one of them",
            )
        masks[name] = path
    if not masks:
        raise InputError(f"there are no masks ({', '.join(ENDINGS)})", where=folder)
    return masks


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:LISTED_AT_MOST])
    hidden = len(names) - LISTED_AT_MOST
    return f"{shown} and {hidden} more" if hidden > 0 else shown
