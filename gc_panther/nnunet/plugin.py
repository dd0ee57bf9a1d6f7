"""Registers what nnU-Net's layer adds; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gc_panther.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def gc_panther_commands(app: typer.Typer) -> None:
    """Add ``pack`` and ``train``."""
    from gc_panther.nnunet import commands
    from gc_panther.nnunet.training import cli as training

    commands.register(app)
    training.register(app)
