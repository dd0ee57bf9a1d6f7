"""How messages are worded: numbers with their nouns, lists with "or"."""

from __future__ import annotations

from collections.abc import Iterable

_HISSING = ("s", "x", "tch", "sh")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as "1 voxel", "2 voxels" or "0 passes".

    Args:
        number: how many.
        noun: in the singular.
        plural: where it is not formed with "s" or "es", such as "mirrored copies".
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number} {plural or noun + ('es' if noun.endswith(_HISSING) else 's')}"


def alternatives(words: Iterable[str]) -> str:
    """Return "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
