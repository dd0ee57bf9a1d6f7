"""Phantoms to train on, as a recipe asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gc_panther.errors import UserError
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.panther.training.recipe import PantherRecipe, PhantomCases


def phantoms_of(recipe: PantherRecipe, request: TrainingRequest) -> PhantomCases:
    """What there is to learn from without data.

    Raises:
        UserError: nothing.
    """
    if recipe.phantoms is None:
        raise UserError(
            f"preset {request.preset!r} needs data",
            fix="Give --data, a folder in PANTHER's layout",
        )
    return recipe.phantoms


def make_phantoms(
    source: PhantomCases, folder: Path, *, workers: int, organs: bool = False
) -> None:
    """Write the phantoms a recipe asks for; a half-written folder is written again.

    Args:
        source: what the recipe says.
        folder: is written in PANTHER's layout.
        workers: number of processes.
        organs: whether ``OrgansTr`` is wanted, too.
    """
    import shutil

    from gc_panther.panther.phantom.dataset import make_dataset
    from gc_panther.panther.phantom.generate import PROTOCOLS

    options: dict[str, Any] = {}
    if source.contrast is not None:
        options["contrast"] = source.contrast
    if source.varied:
        options["varied"] = True
    if source.spacing_xyz is not None:
        usual = PROTOCOLS[source.task]
        options["spacing_xyz"] = source.spacing_xyz
        options["size_xyz"] = tuple(
            round(n * old / new)
            for n, old, new in zip(
                usual.size_xyz, usual.spacing_xyz, source.spacing_xyz, strict=True
            )
        )
    if folder.exists():
        shutil.rmtree(folder)
    make_dataset(
        source.task,
        folder,
        source.cases,
        source.seed,
        unlabelled=source.unlabelled,
        organs=organs,
        workers=workers,
        **options,
    )
