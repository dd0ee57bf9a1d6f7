"""What `--time-limit` keeps: the seconds from a cold start to a mask, and what the mask is worth.

    python benchmarks/time_limit.py --repeats 3 --update-docs

Every run is its own process on the bundled case; the limits take turns. "Left out" is what the run
report says of the last repeat. The mask is compared with the one without a limit. The exit status
is 1 where a run took more than the limit and a tenth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from adaptive import dice
from compare_inference import BIN, command, machine, update_document
from phantoms import bundled_case, say

from gc_panther.imaging.images import read_image

#: How much of the limit a run may take.
MOST = 1.1


@dataclass
class Limited:
    """All runs of a task with one limit.

    Attributes:
        task: the task.
        limit: seconds, or None for none.
        seconds: wall time of each run.
        notes: of its report: what was left out.
        mask: its mask, shape (z, y, x).
    """

    task: str
    limit: float | None
    seconds: list[float] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    mask: np.ndarray | None = None

    @property
    def kept(self) -> bool:
        """Whether every run ended in time, with a mask."""
        in_time = self.limit is None or max(self.seconds) <= MOST * self.limit
        return in_time and self.mask is not None and bool(self.mask.any())

    def run(self, image: Path, folder: Path, device: str) -> None:
        """Segment an image, from a cold start."""
        mask, report = folder / "mask.mha", folder / "report.json"
        options = ["--device", device]
        options += [] if self.limit is None else ["--time-limit", f"{self.limit:g}"]
        begin = time.perf_counter()
        command(
            [BIN / "gc-panther", "predict", self.task, image, "-o", mask, "--report", report]
            + options
        )
        self.seconds.append(time.perf_counter() - begin)
        document = json.loads(report.read_text(encoding="utf-8"))
        self.notes = tuple(document["notes"])
        self.mask = read_image(mask).array_zyx


def table(found: Sequence[Limited]) -> str:
    """All limits as Markdown; Dice is against the run of the same task without a limit."""
    whole = {one.task: one.mask for one in found if one.limit is None}
    lines = [
        "| task | limit s | s, median | s, longest | kept | left out | Dice without limit |",
        "|---|--:|--:|--:|---|---|--:|",
    ]
    for one in found:
        exact = whole.get(one.task)
        alike = "–"
        if one.mask is not None and exact is not None:
            alike = f"{dice(one.mask == 1, exact == 1):.3f}"
        cells = [
            one.task,
            "–" if one.limit is None else f"{one.limit:g}",
            f"{statistics.median(one.seconds):.1f}",
            f"{max(one.seconds):.1f}",
            "yes" if one.kept else "**no**",
            "; ".join(one.notes) or "nothing",
            alike,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, return 1 where a limit was not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["task1", "task2"])
    parser.add_argument("--limits", nargs="+", type=float, default=[10, 20, 40])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    found = [
        Limited(task, limit) for task in arguments.tasks for limit in [*arguments.limits, None]
    ]
    for repeat in range(arguments.repeats):
        for one in found:
            with tempfile.TemporaryDirectory() as folder:
                one.run(bundled_case(one.task), Path(folder), arguments.device)
            say(f"{repeat + 1}/{arguments.repeats} {one.task} {one.limit}: {one.seconds[-1]:.1f} s")
    text = f"{machine(arguments.device)}.\n\n{table(found)}"
    print(text)
    if arguments.update_docs:
        update_document("time-limit" if arguments.device == "cpu" else "time-limit-gpu", text)
    return int(not all(one.kept for one in found))


if __name__ == "__main__":
    raise SystemExit(main())
