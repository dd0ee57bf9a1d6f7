"""Writes the table of options and variables into docs/architecture.md, from the declarations."""

from __future__ import annotations

import re
from pathlib import Path

from gc_panther.options import RunOptions, merged_options, options_table
from gc_panther.panther.options import PantherOptions
from gc_panther.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
GROUPS = (Settings, RunOptions, PantherOptions)


def main() -> None:
    """Replace what stands between the table's marks."""
    options = merged_options((group.__name__, group) for group in GROUPS)
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- options:begin -->\n", "<!-- options:end -->"
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    table = f"{begin}{options_table(options.values())}{end}"
    PAGE.write_text(pattern.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    main()
