"""How far one intensity threshold gets on the phantom, as a markdown table.

    python benchmarks/phantom_difficulty.py --cases 20

The threshold is an oracle: it knows the pancreas (with the tumour, dilated by 5 mm), searches only
inside it, and is chosen with the reference at hand. "per data set" is the one threshold, above or
below, with the best mean Dice over all cases, on intensities divided by the case's median inside
the region; "per case" is the best threshold of every single case. "band" picks the best lower and
upper limit of every case. No method has that knowledge.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gc_panther.panther.phantom.generate import PROTOCOLS, Phantom, generate_phantom

MARGIN_MM = 5.0
#: Thresholds, relative to the region's median.
LEVELS = np.arange(0.02, 3.0, 0.02)


@dataclass(frozen=True)
class Difficulty:
    """Threshold scores of one task.

    Attributes:
        data_set: best mean Dice of one threshold for all cases.
        per_case: mean of the best Dice of every case's own threshold.
        band: the same with a lower and an upper limit.
        diameters_mm: tumour diameters of the cases.
        cnr: measured contrast-to-noise ratios, (pancreas - tumour) / noise.
        ratio: measured tumour / pancreas intensity.
    """

    data_set: float
    per_case: float
    band: float
    diameters_mm: tuple[float, ...]
    cnr: tuple[float, ...]
    ratio: tuple[float, ...]


def region(label_zyx: np.ndarray, spacing_xyz: tuple[float, float, float]) -> np.ndarray:
    """Pancreas and tumour, dilated by 5 mm."""
    from scipy.ndimage import distance_transform_edt

    organ = label_zyx > 0
    pad = [int(np.ceil(MARGIN_MM / s)) + 1 for s in spacing_xyz[::-1]]
    found = np.argwhere(organ)
    low = np.maximum(found.min(axis=0) - pad, 0)
    high = found.max(axis=0) + pad + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    out = np.zeros_like(organ)
    out[box] = distance_transform_edt(~organ[box], sampling=spacing_xyz[::-1]) <= MARGIN_MM
    return out


def threshold_dice(values: np.ndarray, tumour: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Dice of ``values < level`` and ``values > level`` for all LEVELS, and of the best band.

    Args:
        values: intensities inside the region over their median, shape (n,).
        tumour: which of them are tumour, shape (n,).
    """
    edges = np.concatenate([[-np.inf], LEVELS, [np.inf]])
    everything = np.histogram(values, edges)[0].astype(float)
    hits = np.histogram(values[tumour], edges)[0].astype(float)
    total, positive = everything.sum(), hits.sum()
    below, below_hits = np.cumsum(everything)[:-1], np.cumsum(hits)[:-1]
    under = 2 * below_hits / (below + positive)
    over = 2 * (positive - below_hits) / (total - below + positive)
    size = below[None] - below[:, None]
    # size is negative where the upper limit is below the lower one: no band.
    band = np.where(size > 0, 2 * (below_hits[None] - below_hits[:, None]), 0)
    best = float((band / (np.maximum(size, 0) + positive)).max())
    return under, over, max(best, float(under.max()), float(over.max()))


@dataclass(frozen=True)
class LabelledImage:
    """What the measurement takes of a case: arrays (z, y, x), spacing in mm, and its facts."""

    image_zyx: np.ndarray
    label_zyx: np.ndarray
    spacing_xyz: tuple[float, float, float]
    facts: dict[str, Any]


def from_folder(folder: Path, cases: int) -> Iterator[LabelledImage]:
    """The first labelled cases of a folder that ``gc-panther phantom make`` wrote."""
    import SimpleITK as sitk

    summary = json.loads((folder / "phantoms.json").read_text(encoding="utf-8"))
    labelled = [entry for entry in summary["cases"] if entry["folder"] == "ImagesTr"]
    for entry in labelled[:cases]:
        image = sitk.ReadImage(str(folder / "ImagesTr" / f"{entry['name']}_0000.mha"))
        label = sitk.ReadImage(str(folder / "LabelsTr" / f"{entry['name']}.mha"))
        arrays = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label)
        yield LabelledImage(*arrays, image.GetSpacing(), entry)


def measure(phantoms: Iterable[Phantom | LabelledImage]) -> Difficulty:
    """Threshold scores over some phantoms of one task."""
    under, over, bands, diameters, cnr, ratio = [], [], [], [], [], []
    for phantom in phantoms:
        inside = region(phantom.label_zyx, phantom.spacing_xyz)
        values = phantom.image_zyx[inside].astype(np.float32)
        label = phantom.label_zyx[inside]
        tumour, gland = values[label == 1], values[label == 2]
        sigma = phantom.facts["intensity_scale"] / phantom.facts["snr"]
        cnr.append(float((gland.mean() - tumour.mean()) / sigma))
        ratio.append(float(tumour.mean() / gland.mean()))
        u, o, b = threshold_dice(values / np.median(values), label == 1)
        under.append(u)
        over.append(o)
        bands.append(b)
        diameters.append(phantom.facts["tumour_diameter_mm"])
    both = np.concatenate([under, over], axis=1)
    return Difficulty(
        float(both.mean(axis=0).max()),
        float(both.max(axis=1).mean()),
        float(np.mean(bands)),
        tuple(diameters),
        tuple(cnr),
        tuple(ratio),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--task", choices=list(PROTOCOLS), action="append")
    parser.add_argument("--data", type=Path, help="a folder made with one --task, instead")
    arguments = parser.parse_args()
    if arguments.data and len(arguments.task or ()) != 1:
        parser.error("--data needs one --task")
    print(
        "| task | cases | Dice, threshold per data set | per case | band per case "
        "| tumour / pancreas | CNR | tumour diameter, mm |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for task in arguments.task or PROTOCOLS:
        if arguments.data:
            d = measure(from_folder(arguments.data, arguments.cases))
        else:
            d = measure(
                generate_phantom(task, arguments.seed, case=case) for case in range(arguments.cases)
            )
        spans = [
            f"{np.mean(v):.{n}f} ({min(v):.{n}f}-{max(v):.{n}f})"
            for v, n in ((d.ratio, 2), (d.cnr, 1), (d.diameters_mm, 0))
        ]
        print(
            f"| {task} | {len(d.cnr)} | {d.data_set:.2f} | {d.per_case:.2f} | {d.band:.2f} | "
            + " | ".join(spans)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
