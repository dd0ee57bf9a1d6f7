"""Lines and branches that the tests reach, by package, as a Markdown table.

python scripts/coverage_table.py COVERAGE.JSON
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any


def package_of(file: str) -> str:
    """The package that owns a file: ``nnunet``, ``top level``, or a task's own one."""
    parts = Path(file).parts
    # A task's package lies below tasks/, and outside the checkout where it is installed.
    start = max(i for i, part in enumerate(parts) if part.startswith("gc_panther"))
    if parts[start] != "gc_panther":
        return parts[start]
    inner = parts[start + 1 : -1]
    return inner[0] if inner else "top level"


def percent(reached: int, of: int) -> str:
    """A share; a package without branches has reached all of them."""
    return f"{100 * reached / of if of else 100:.1f}"


def table(report: dict[str, Any]) -> str:
    """The table of coverage.py's JSON report."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for file, content in report["files"].items():
        numbers = {k: v for k, v in content["summary"].items() if isinstance(v, int)}
        sums[package_of(file)].update(numbers)
        sums["all"].update(numbers)
    order = sorted(sums, key=lambda name: (name == "all", name.startswith("gc_panther"), name))
    rows = ["| package | lines, % | branches, % |", "|---|--:|--:|"]
    for name in order:
        n = sums[name]
        lines = percent(n["covered_lines"], n["num_statements"])
        rows.append(f"| {name} | {lines} | {percent(n['covered_branches'], n['num_branches'])} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
