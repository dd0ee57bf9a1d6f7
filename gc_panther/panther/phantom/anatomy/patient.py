"""One patient's abdomen as a list of structures in painting order.

Sizes follow textbook anatomy; every patient differs in size, fat, positions and contents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gc_panther.panther.phantom.anatomy.bowel import bowel, duodenum, stomach
from gc_panther.panther.phantom.anatomy.drawing import Drawing
from gc_panther.panther.phantom.anatomy.organs import adrenals, kidneys, liver, spleen_and_lungs
from gc_panther.panther.phantom.anatomy.pancreas import (
    TumourPlan,
    duct,
    lookalikes,
    pancreas,
    tumour,
)
from gc_panther.panther.phantom.anatomy.trunk import body, mesentery, muscles_and_spine
from gc_panther.panther.phantom.anatomy.vessels import vessels
from gc_panther.panther.phantom.render import Structure
from gc_panther.panther.phantom.shapes import Implicit


@dataclass(frozen=True)
class Anatomy:
    """A patient.

    Attributes:
        structures: in painting order, later over earlier.
        wall: the inside of the abdominal wall (structures with ``inside`` end there).
        tumour: the planned tumour.
    """

    structures: tuple[Structure, ...]
    wall: Implicit
    tumour: TumourPlan


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient. The order decides what covers what, and which numbers each part draws."""
    drawing = Drawing(rng)
    trunk = body(drawing)
    mesentery(drawing)
    hilum = liver(drawing)
    spleen_and_lungs(drawing)
    kidneys(drawing)
    muscles_and_spine(drawing, trunk)
    bowel(drawing, trunk)
    stomach(drawing, trunk)
    adrenals(drawing)
    gland = pancreas(drawing)
    planned = tumour(drawing, gland)
    duodenum(drawing)
    duct(drawing, gland, planned, hilum)
    vessels(drawing, gland, hilum)
    lookalikes(drawing, gland, planned)
    return Anatomy(tuple(drawing.structures), trunk.wall, planned)
