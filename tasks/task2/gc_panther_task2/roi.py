"""The region of interest: the pancreas and what lies around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gc_panther.case import Volume
from gc_panther.imaging.roi import Box, bounding_box, box_on_grid, crop
from gc_panther.task import RunContext
from gc_panther_task2.localizer import Pancreas

#: Margin around the pancreas' bounding box, mm: the published approach to task 2.
MARGIN_MM = 30.0


class PancreasFinder(Protocol):
    """What finds the pancreas; :class:`~gc_panther_task2.localizer.Localizer` does."""

    def find(self, volume_lps: Volume, run: RunContext) -> Pancreas:
        """Label the pancreas in an image in LPS order."""


@dataclass(frozen=True)
class Region:
    """The part of an image that is segmented.

    Attributes:
        box: the region on the image's LPS grid, last voxels included.
        found: whether there was a pancreas; if not, the region is the whole image.
        volume: the image, cut to the box.
        facts: JSON-compatible facts from the localizer.
    """

    box: Box
    found: bool
    volume: Volume
    facts: Mapping[str, Any]


def find_region(volume_lps: Volume, localizer: PancreasFinder, run: RunContext) -> Region:
    """Cut an image to its pancreas and 30 mm around it; the whole image where none is found.

    Every voxel labelled as pancreas counts: a stray one only makes the region larger, while
    choosing among components could lose the organ.

    Args:
        volume_lps: an image in LPS order.
        localizer: what finds the pancreas.
        run: progress and stage clock.
    """
    geometry = volume_lps.geometry
    pancreas = localizer.find(volume_lps, run)
    searched_box = bounding_box(pancreas.mask.array_zyx)
    if searched_box is None:
        box = Box.whole(geometry.shape_zyx)
    else:
        box = box_on_grid(searched_box, pancreas.mask.geometry, geometry)
        box = box.dilate_mm(MARGIN_MM, geometry).clip(geometry.shape_zyx)
    return Region(box, searched_box is not None, crop(volume_lps, box), pancreas.facts)
