"""Our in-process ensemble against nnU-Net's own predictor, on the same model folders.

    python benchmarks/parity.py --cases 5 --update-docs
    python benchmarks/parity.py --cases 0 --images scan.mha     # any image, of both tasks

The bundled cases, phantoms that no training has seen, and the images of --images, which may be
real scans: what is compared is two ways to compute the same thing.
`logits` is compared with `nnUNetPredictor` given all folds; `probabilities` with one prediction
per fold, averaged by the functions of `nnUNetv2_ensemble`. Task 1 is compared on whole images,
Task 2 on the crops its localizer makes, and the localizer's pancreas with the one of
`mrsegmentator.inference.infer`. Prints a table; the exit status is 1 where one differs too much. On
a GPU more may differ, for stock nnU-Net does not repeat itself there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from adaptive import dice
from compare_inference import machine, update_document
from phantoms import SEED, bundled_case, phantom_files, say
from stock import stock_labels, with_stock_trainer
from warm import ROOT, WarmTask

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.imaging.roi import bounding_box
from gc_panther.nnunet.device import torch_device
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import Backend, Combine, NnUNetOptions
from gc_panther.options import RunOptions
from gc_panther.panther.labels import tumour_label
from gc_panther.session import Choices
from gc_panther.task import RunContext, Runtime

#: What counts as equal on a CPU: the part of the voxels that may differ, and the tumour's Dice.
CPU_LIMITS = (1e-5, 0.9995)
GPU_LIMITS = (1e-4, 0.999)
COMBINE: tuple[Combine, ...] = ("logits", "probabilities")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        case: the image.
        what: what was compared.
        disagreement: share of voxels with another label.
        dice: Dice of the two tumours (of the two pancreases for the localizer).
        same_box: whether the bounding boxes of the two are equal.
        limits: greatest disagreement and least Dice that count as equal.
    """

    case: str
    what: str
    disagreement: float
    dice: float
    same_box: bool
    limits: tuple[float, float] = CPU_LIMITS

    @property
    def equal(self) -> bool:
        """Within the limits; the localizer's box has to be the same, voxel by voxel."""
        most, least = self.limits
        close = self.disagreement <= most and self.dice >= least
        return self.same_box if self.what == "localizer" else close


def compare(
    case: str, what: str, ours: np.ndarray, stock: np.ndarray, label: int, device: str = "cpu"
) -> Row:
    """Compare two label arrays of equal shape (z, y, x)."""
    a, b = ours == label, stock == label
    return Row(
        case,
        what,
        float(np.mean(ours != stock)),
        dice(a, b),
        bounding_box(a) == bounding_box(b),
        CPU_LIMITS if device == "cpu" else GPU_LIMITS,
    )


def compare_ensemble(
    case: str,
    folder: Path,
    stock_folder: Path,
    folds: tuple[int, ...],
    volume: Volume,
    device: str,
    backends: Sequence[Backend],
) -> list[Row]:
    """Compare both ways of combining the folds, by each backend, on one volume in LPS order."""
    model = open_model_folder(folder, folds)
    tumour = tumour_label(model)
    rows = []
    for combine in COMBINE:
        stock = stock_labels(stock_folder, folds, volume, combine, device)
        for backend in backends:
            options = NnUNetOptions(combine=combine, backend=backend)
            ours = Ensemble(model, device=device, options=options).predict(volume, RunContext())
            what = f"{combine}, {backend}"
            rows.append(compare(case, what, ours.labels_zyx, stock, tumour, device))
            say(rows[-1])
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
        localizer = Localizer(Runtime(device, NnUNetOptions(), models, Path(scratch)))
        ours = localizer.find(volume, RunContext()).mask.array_zyx
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
        crop = find_region(volume, localizer, RunContext()).volume
    row = compare(case, "localizer", ours, stock, True, device)
    say(row)
    return row, crop


def table(task: str, rows: Sequence[Row]) -> str:
    """The comparisons as Markdown."""
    lines = [
        f"{task}:",
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


def images_of(task: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Names and files: the bundled case, phantoms, and what the user gave."""
    yield "bundled case", bundled_case(task)
    for number in range(arguments.cases):
        name, file, _ = phantom_files(task, number, arguments.seed, arguments.work)
        yield f"phantom {name}", file
    for file in arguments.images:
        yield file.name, file


def main() -> int:
    """Compare, print, return 1 where something differs too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["task1", "task2"])
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--images", nargs="+", type=Path, default=[], help="further images")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--model-dir", type=Path, help="weights to use instead of resources/")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--backends", nargs="+", choices=get_args(Backend), default=["openvino", "torch"]
    )
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "accuracy")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()

    device = torch_device(arguments.device).name
    backends = arguments.backends if device == "cpu" else ["torch"]
    equal, tables = True, [f"{machine(device)}.", ""]
    for name in arguments.tasks:
        rows: list[Row] = []
        task = WarmTask(name, Choices(RunOptions(model_dir=arguments.model_dir)))
        wanted = next(model for model in task.task.models if model.name == name)
        # nnU-Net and MRSegmentator print; stdout is for the tables.
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as scratch:
            folder = task.models[name]
            stock_folder = with_stock_trainer(folder, Path(scratch) / name)
            for case, image_file in images_of(name, arguments):
                volume = to_lps(read_image(image_file))
                if "mrsegmentator" in task.models:
                    row, volume = compare_localizer(case, task.models, volume, device)
                    rows.append(row)
                rows += compare_ensemble(
                    case, folder, stock_folder, wanted.folds, volume, device, backends
                )
        tables.append(table(name, rows))
        print(tables[-1], flush=True)
        equal &= all(row.equal for row in rows)
    if arguments.update_docs:
        section = "parity" if device == "cpu" else "parity-gpu"
        update_document(section, "\n".join(tables).rstrip())
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
