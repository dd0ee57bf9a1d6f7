"""Prints where the mask of a test run is, its volume and, with a reference, its Dice; and draws it.

python scripts/show_result.py TASK OUT INPUT [REFERENCE]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from gc_panther.imaging.images import read_image
from gc_panther.panther.evaluation.metrics import score_volumes
from gc_panther.platform.inputs import find_inputs
from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.report.overlay import save_overlay
from gc_panther.text import count


def main() -> None:
    name, out, given = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    reference = read_image(Path(sys.argv[4])) if len(sys.argv) > 4 else None
    inputs = find_inputs(given, find_task(create_plugin_manager(), name))
    (mask_path,) = (out / "output" / inputs.interface.outputs[0].relative_path).iterdir()
    mask, image = read_image(mask_path), read_image(next(iter(inputs.images.values())))
    if not mask.geometry.matches(image.geometry):
        sys.exit("error: the mask does not lie on the image's grid")
    (result,) = json.loads((out / "output" / "results.json").read_text(encoding="utf-8"))
    picture = out / "mask.png"
    title = f"{name}, synthetic case" if reference else name
    save_overlay(
        image, mask, picture, reference=reference, title=title, warnings=result["warnings"]
    )
    voxels = int(np.count_nonzero(mask.array_zyx))
    millilitres = voxels * mask.geometry.voxel_volume_mm3 / 1000
    print(f"mask:         {mask_path}")
    print(f"picture:      {picture}")
    print(f"tumour:       {millilitres:.2f} mL ({count(voxels, 'voxel')})")
    if reference is not None:
        dice = score_volumes(mask, reference).dice
        print(f"Dice:         {dice:.3f} against the reference (synthetic case)")
    if voxels == 0:
        sys.exit("error: the mask is empty")


if __name__ == "__main__":
    main()
