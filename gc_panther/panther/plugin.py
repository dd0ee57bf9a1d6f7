"""Registers PANTHER's layer; whatever is heavy is imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterable

from gc_panther.hookspecs import hookimpl


@hookimpl
def gc_panther_distributions() -> Iterable[str]:
    """List what the metrics are computed with."""
    return ["surface-distance"]
