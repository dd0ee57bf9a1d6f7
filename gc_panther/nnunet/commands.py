"""``gc-panther pack``: a trained model for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gc_panther.flags import Given, with_options
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.text import count


def register(app: typer.Typer) -> None:
    """Add ``pack`` to ``app``."""
    app.command()(pack)


@with_options(NnUNetOptions, only=("folds",))
def pack(
    model_folder: Annotated[Path, typer.Argument(help="nnU-Net's folder of the trained folds.")],
    out: Annotated[Path, typer.Argument(help="The pack to make.")],
    given: Given,
    half: Annotated[
        bool, typer.Option("--half", help="Half precision, for deployment on GPUs.")
    ] = False,
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

    # A variable is meant for what runs: a pack has all folds unless this command names some.
    folds = given.read(NnUNetOptions, environ={}).folds
    model = open_model_folder(model_folder, folds)
    identity = changed_identity(model.identity, kind=kind, title=title, licence=licence)
    manifest = pack_model(model, out, half=half, identity=identity)
    size = sizes(model, manifest)
    print(
        f"{count(len(manifest.folds), 'fold')}, {size['checkpoints'] / 1e6:.1f} MB of checkpoints, "
        f"{size['pack'] / 1e6:.1f} MB in the pack (1/{size['checkpoints'] / size['pack']:.2f})"
    )
    print(f"pack: {out}")
