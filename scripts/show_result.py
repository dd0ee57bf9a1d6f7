"""Prints where the mask of a test run is, its volume and its Dice, and draws it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from gc_panther.evaluation.metrics import score_volumes
from gc_panther.imaging.images import read_image
from gc_panther.report.overlay import save_overlay
from gc_panther.text import count


def main() -> None:
    task, out = sys.argv[1], Path(sys.argv[2])
    case = Path(__file__).resolve().parent.parent / "test" / "cases" / task
    (mask_path,) = (out / "output" / "images" / "pancreatic-tumor-segmentation").glob("*.mha")
    (image_path,) = (case / "input" / "images").glob("*/*.mha")
    mask, image = read_image(mask_path), read_image(image_path)
    reference = read_image(case / "expected" / "reference.mha")
    if not mask.geometry.matches(image.geometry):
        sys.exit("error: the mask does not lie on the image's grid")
    score = score_volumes(mask, reference)
    (result,) = json.loads((out / "output" / "results.json").read_text(encoding="utf-8"))
    warnings = result["warnings"]
    picture = out / "mask.png"
    title = f"{task}, synthetic case"
    save_overlay(image, mask, picture, reference=reference, title=title, warnings=warnings)
    voxels = int(np.count_nonzero(mask.array_zyx))
    print(f"mask:         {mask_path}")
    print(f"picture:      {picture}")
    print(f"tumour:       {score.predicted_mm3 / 1000:.2f} mL ({count(voxels, 'voxel')})")
    print(f"Dice:         {score.dice:.3f} against the reference (synthetic case)")
    if voxels == 0:
        sys.exit("error: the mask is empty")


if __name__ == "__main__":
    main()
