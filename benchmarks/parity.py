"""Our in-process ensemble against nnU-Net's own predictor, on the same model folders.

    python benchmarks/parity.py --cases 5

`logits` is compared with `nnUNetPredictor` given all folds; `probabilities` with one prediction
per fold, averaged by the functions of `nnUNetv2_ensemble`. Task 1 is compared on whole images,
Task 2 on the crops its localizer makes, and the localizer's pancreas with the one of
`mrsegmentator.inference.infer`. Prints a table; the exit status is 1 where one differs too much.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from phantoms import SEED, phantom_files, say
from stock import stock_labels, with_stock_trainer
from warm import ROOT, WarmTask

from gc_panther.case import Volume
from gc_panther.harness.engine import Choices
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.imaging.roi import bounding_box
from gc_panther.nnunet.ensemble import Ensemble
from gc_panther.nnunet.labels import tumour_label
from gc_panther.nnunet.model_folder import open_model_folder
from gc_panther.runtime.device import select_device
from gc_panther.task import Backend, CaseRun, Combine, InferenceOptions, Runtime

#: What counts as equal.
MAX_DISAGREEMENT, MIN_DICE = 1e-4, 0.999
COMBINE: tuple[Combine, ...] = ("logits", "probabilities")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        case: the phantom.
        what: what was compared.
        disagreement: share of voxels with another label.
        dice: Dice of the two tumours (of the two pancreases for the localizer).
        same_box: whether the bounding boxes of the two are equal.
    """

    case: str
    what: str
    disagreement: float
    dice: float
    same_box: bool

    @property
    def equal(self) -> bool:
        """Within the limits; the localizer's box has to be the same, voxel by voxel."""
        close = self.disagreement <= MAX_DISAGREEMENT and self.dice >= MIN_DICE
        return self.same_box if self.what == "localizer" else close


def compare(case: str, what: str, ours: np.ndarray, stock: np.ndarray, label: int) -> Row:
    """Compare two label arrays of equal shape (z, y, x)."""
    a, b = ours == label, stock == label
    total = int(a.sum() + b.sum())
    return Row(
        case,
        what,
        float(np.mean(ours != stock)),
        2.0 * float((a & b).sum()) / total if total else 1.0,
        bounding_box(a) == bounding_box(b),
    )


def compare_ensemble(
    case: str,
    folder: Path,
    stock_folder: Path,
    folds: tuple[int, ...],
    volume: Volume,
    device: str,
    backend: Backend = "auto",
) -> list[Row]:
    """Compare both ways of combining the folds on one volume in LPS order."""
    model = open_model_folder(folder, folds)
    rows = []
    for combine in COMBINE:
        options = InferenceOptions(combine=combine, backend=backend)
        ours = Ensemble(model, device=device, options=options).predict(volume, CaseRun())
        stock = stock_labels(stock_folder, folds, volume, combine, device)
        row = compare(case, combine, ours.labels_zyx, stock, tumour_label(model))
        rows.append(row)
        say(row)
    return rows


def compare_localizer(
    case: str, models: Mapping[str, Path], volume: Volume, device: str
) -> tuple[Row, Volume]:
    """Compare the pancreas with MRSegmentator's own; return also the crop for the tumour."""
    from gc_panther_task2.localizer import PANCREAS_LABEL, SPACING_XYZ, Localizer
    from gc_panther_task2.roi import find_region
    from mrsegmentator.inference import infer

    folder = models["mrsegmentator"]
    folds = sorted(open_model_folder(folder).checkpoints)
    with tempfile.TemporaryDirectory() as scratch:
        own = with_stock_trainer(folder, Path(scratch) / "mrsegmentator")
        os.environ["MRSEG_WEIGHTS_PATH"] = str(own)
        localizer = Localizer(Runtime(device, InferenceOptions(), models, Path(scratch)))
        ours = localizer.find(volume, CaseRun()).mask.array_zyx
        searched = Path(scratch) / "image.mha"
        write_image(resample(volume, SPACING_XYZ), searched, compress=False)
        infer(
            [str(searched)],
            scratch,
            folds=folds,
            cpu_only=device == "cpu",
            nproc=1,
            nproc_export=1,
            allow_tqdm=False,
        )
        stock = read_image(Path(scratch) / "image_seg.mha").array_zyx == PANCREAS_LABEL
        crop = find_region(volume, localizer, CaseRun()).volume
    row = compare(case, "localizer", ours, stock, True)
    say(row)
    return row, crop


def table(task: str, rows: Sequence[Row]) -> str:
    """The comparisons as Markdown."""
    lines = [
        f"### {task}",
        "",
        "| case | compared | voxels that differ | Dice | same box | equal |",
        "|---|---|--:|--:|---|---|",
    ]
    lines += [
        f"| {row.case} | {row.what} | {row.disagreement:.2e} | {row.dice:.6f} "
        f"| {'yes' if row.same_box else 'no'} | {'yes' if row.equal else '**no**'} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Compare, print, return 1 where something differs too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["task1", "task2"])
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--model-dir", type=Path, help="weights to use instead of resources/")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto")
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "accuracy")
    arguments = parser.parse_args()

    device = select_device(arguments.device).name
    equal = True
    for name in arguments.tasks:
        rows: list[Row] = []
        task = WarmTask(name, Choices(model_dir=arguments.model_dir))
        wanted = next(model for model in task.task.models if model.name == name)
        # nnU-Net and MRSegmentator print; stdout is for the tables.
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as scratch:
            folder = task.models[name]
            stock_folder = with_stock_trainer(folder, Path(scratch) / name)
            for number in range(arguments.cases):
                case, image_file, _ = phantom_files(name, number, arguments.seed, arguments.work)
                volume = to_lps(read_image(image_file))
                if "mrsegmentator" in task.models:
                    row, volume = compare_localizer(case, task.models, volume, device)
                    rows.append(row)
                rows += compare_ensemble(
                    case, folder, stock_folder, wanted.folds, volume, device, arguments.backend
                )
        print(table(name, rows), flush=True)
        equal &= all(row.equal for row in rows)
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
