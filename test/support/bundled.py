"""The bundled cases, cut to the surroundings of their tumours: real weights in little time."""

import shutil
from pathlib import Path

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.roi import bounding_box, crop

CASES = Path(__file__).parents[1] / "cases"


def image_of(task: str) -> Path:
    """The whole image of a task's bundled case."""
    return next((CASES / task / "input" / "images").rglob("*.mha"))


def tumour_surroundings(task: str, margin_mm: float = 40) -> Volume:
    """The bundled image up to `margin_mm` around the tumour's bounding box, as stored."""
    image = read_image(image_of(task))
    reference = read_image(CASES / task / "expected" / "reference.mha")
    box = bounding_box(reference.array_zyx == 1)
    assert box is not None
    return crop(image, box.dilate_mm(margin_mm, image.geometry).clip(image.geometry.shape_zyx))


def small_input(task: str, folder: Path) -> Path:
    """Make an input folder of the platform with :func:`tumour_surroundings` in it."""
    image = image_of(task)
    place = folder / image.relative_to(CASES / task / "input")
    place.parent.mkdir(parents=True)
    shutil.copy(CASES / task / "input" / "inputs.json", folder)
    write_image(tumour_surroundings(task), place)
    return folder
