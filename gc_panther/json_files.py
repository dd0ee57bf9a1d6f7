"""JSON as every part of this program writes it: NaN and infinity become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gc_panther.files import whole_file


def as_json(value: Any, *, indent: int = 2, ascii_only: bool = False) -> bytes:
    """JSON as UTF-8; NaN and infinities become null, and what is not Unicode its escape.

    Args:
        value: mappings, sequences, strings, numbers and None.
        indent: of each level, spaces.
        ascii_only: escape all other characters, for readers that take the machine's encoding.
    """
    text = json.dumps(finite(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return f"{text}\n".encode(errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for programs, nnU-Net among them, as a whole or not at all.

    Args:
        path: the file; its folder is made.
        value: as for :func:`as_json`.
    """
    with whole_file(path) as file:
        file.write(as_json(value, indent=1, ascii_only=True))


def finite(value: Any) -> Any:
    """The value with None in place of every NaN and infinity, tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value
