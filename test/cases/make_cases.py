"""Makes the bundled test cases: a digital phantom per task in the platform's input format.

    python test/cases/make_cases.py            # the inputs and the reference masks
    python test/cases/make_cases.py --expected # the metrics of the mask the weights give today

The images are synthetic. Their seed is used nowhere else.
"""

from __future__ import annotations

import argparse
import json
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import read_image, write_image

HERE = Path(__file__).parent
SEED = 900_001
SOCKETS = {
    "task1": ("abdominal-t1-mri", "Abdominal T1 MRI", "10900_0001_0000.mha"),
    "task2": ("abdominal-t2-mri", "Abdominal T2 MRI", "10900_0000.mha"),
}
MASK_FOLDER = "images/pancreatic-tumor-segmentation"


def make_case(task: str) -> None:
    """Write ``<task>/input`` and the reference mask in ``<task>/expected``."""
    from gc_panther.panther.phantom.generate import generate_phantom

    slug, title, original = SOCKETS[task]
    phantom = generate_phantom(task, SEED)
    z, y, x = phantom.image_zyx.shape
    geometry = Geometry((x, y, z), phantom.spacing_xyz, phantom.origin_xyz, phantom.direction)
    identifier = str(uuid.uuid5(uuid.NAMESPACE_URL, f"gc_panther/{task}/{SEED}"))
    images = HERE / task / "input" / "images" / slug
    images.mkdir(parents=True, exist_ok=True)
    write_image(Volume(phantom.image_zyx, geometry), images / f"{identifier}.mha")
    socket = {
        "title": title,
        "description": "Synthetic: a digital phantom",
        "slug": slug,
        "kind": "Image",
        "pk": 1,
        "default_value": None,
        "super_kind": "Image",
        "relative_path": f"images/{slug}",
        "overlay_segments": [],
        "look_up_table": None,
    }
    entry = {
        "socket": socket,
        "interface": socket,
        "value": None,
        "file": None,
        "image": {"pk": identifier, "name": original},
        "pk": 1,
    }
    (HERE / task / "input" / "inputs.json").write_text(json.dumps([entry], indent=2) + "\n")
    expected = HERE / task / "expected"
    expected.mkdir(exist_ok=True)
    tumour = (phantom.label_zyx == 1).astype(np.uint8)
    write_image(Volume(tumour, geometry), expected / "reference.mha")


def expect(task: str) -> None:
    """Run the task with the bundled weights and note the metrics of its mask."""
    import tempfile

    from gc_panther.cli import invoke
    from gc_panther.panther.evaluation.metrics import score_volumes

    with tempfile.TemporaryDirectory() as folder:
        code = invoke(
            ["run", "--task", task, "--device", "cpu"]
            + ["--input", str(HERE / task / "input"), "--output", folder]
        )
        if code:
            raise SystemExit(code)
        (mask,) = (Path(folder) / MASK_FOLDER).glob("*.mha")
        reference = HERE / task / "expected" / "reference.mha"
        score = score_volumes(read_image(mask), read_image(reference), case=task)
    metrics = HERE / task / "expected" / "metrics.json"
    metrics.write_text(json.dumps(asdict(score), indent=2) + "\n")
    print(f"{task}: Dice {score.dice:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--expected", action="store_true", help="note today's metrics instead")
    arguments = parser.parse_args()
    for task in SOCKETS:
        (expect if arguments.expected else make_case)(task)


if __name__ == "__main__":
    main()
