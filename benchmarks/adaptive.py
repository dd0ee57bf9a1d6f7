"""What `--mode adaptive` saves and costs: both modes on phantoms of a seed never trained on.

    python benchmarks/adaptive.py --tasks task1 --seed 4261 --update-docs

Both modes run on the same cases. Passes are counted, masks compared with each other and with the
phantom's own tumour.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compare_inference import machine, update_document
from phantoms import SEED, phantom_files, say
from warm import ROOT, WarmTask

from gc_panther.imaging.images import read_image
from gc_panther.nnunet.device import torch_device
from gc_panther.options import RunOptions
from gc_panther.panther.evaluation.metrics import TUMOUR
from gc_panther.panther.options import PantherOptions
from gc_panther.session import Choices

#: Masks with a higher Dice count as the same.
SAME = 0.99


@dataclass(frozen=True)
class Pair:
    """One case in both modes.

    Attributes:
        name: of the case.
        passes: exact, adaptive.
        agreement: Dice of the adaptive mask against the exact one.
        dice: against the reference: exact, adaptive.
        fallback: why the exact mode ran after all, or nothing.
    """

    name: str
    passes: tuple[int, int]
    agreement: float
    dice: tuple[float, float]
    fallback: str


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks; 1 for two empty ones."""
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def measure(task: str, cases: int, seed: int, work: Path, device: str) -> list[Pair]:
    """Run every case in both modes."""
    pairs = []
    run = RunOptions(device=device)
    always = Choices(run, PantherOptions(mode="exact", never_empty=True))
    sparing = Choices(run, PantherOptions(mode="adaptive", never_empty=True))
    with WarmTask(task, always) as exact, WarmTask(task, sparing) as adaptive:
        for case in range(cases):
            name, image_file, label_file = phantom_files(task, case, seed, work)
            image = read_image(image_file)
            reference = read_image(label_file).array_zyx == TUMOUR
            found = [one.segment(name, image)[0] for one in (exact, adaptive)]
            masks = [segmentation.mask.array_zyx == 1 for segmentation in found]
            details = [segmentation.details for segmentation in found]
            pairs.append(
                Pair(
                    name,
                    (int(details[0]["passes"]), int(details[1]["passes"])),
                    dice(masks[0], masks[1]),
                    (dice(masks[0], reference), dice(masks[1], reference)),
                    str(details[1].get("not_adaptive", "")),
                )
            )
            say(f"{task} {case + 1}/{cases} {pairs[-1]}")
    return pairs


def report(task: str, pairs: Sequence[Pair], seed: int) -> str:
    """The numbers as Markdown."""
    exact, adaptive = (sum(pair.passes[n] for pair in pairs) for n in (0, 1))
    agreement = [pair.agreement for pair in pairs]
    means = [float(np.mean([pair.dice[n] for pair in pairs])) for n in (0, 1)]
    lost = sum(pair.dice[1] == 0 < pair.dice[0] for pair in pairs)
    differing = sum(value < SAME for value in agreement)
    fell_back = sum(bool(pair.fallback) for pair in pairs)
    return "\n".join(
        [
            f"| {task}, {len(pairs)} phantoms of seed {seed} | exact | adaptive |",
            "|---|--:|--:|",
            f"| passes per case | {exact / len(pairs):.0f} | {adaptive / len(pairs):.0f} "
            f"(1/{exact / adaptive:.2f}) |",
            f"| mean Dice against the phantom | {means[0]:.3f} | {means[1]:.3f} |",
            f"| Dice against exact, mean | 1 | {np.mean(agreement):.4f} |",
            f"| Dice against exact, worst case | 1 | {min(agreement):.4f} |",
            f"| masks with Dice below {SAME} against exact | 0 | {differing} |",
            f"| tumours lost | – | {lost} |",
            f"| cases left to the exact mode | – | {fell_back} |",
        ]
    )


def main() -> int:
    """Measure, print, update the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["task1", "task2"])
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "accuracy")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    device = torch_device(arguments.device).name
    sections = [f"{machine(device)}."]
    for task in arguments.tasks:
        pairs = measure(task, arguments.cases, arguments.seed, arguments.work, device)
        sections.append(report(task, pairs, arguments.seed))
    text = "\n\n".join(sections)
    print(text)
    if arguments.update_docs:
        update_document("adaptive", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
