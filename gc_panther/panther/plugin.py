"""Registers PANTHER's layer; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gc_panther.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def gc_panther_commands(app: typer.Typer) -> None:
    """Add ``dataset``, ``phantom`` and ``evaluate``."""
    from gc_panther.panther.data import cli as data
    from gc_panther.panther.evaluation import cli as evaluation
    from gc_panther.panther.phantom import cli as phantom

    app.add_typer(phantom.app, name="phantom", help="Make digital abdominal MR phantoms.")
    app.add_typer(data.app, name="dataset", help="Check and import training data.")
    evaluation.register(app)


@hookimpl
def gc_panther_distributions() -> Iterable[str]:
    """List what the metrics are computed with."""
    return ["surface-distance"]
