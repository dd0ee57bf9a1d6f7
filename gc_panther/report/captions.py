"""Text on the pictures of a mask: title, warnings, legend and marks, and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gc_panther.case import Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND = "#000000"
TEXT = "#e6e6e6"
FAINT = "#8a8a8a"
# Hues that colour-blind readers tell apart too (Okabe and Ito's palette).
MASK_COLOUR = "#ff9e1b"
REFERENCE_COLOUR = "#56b4ff"
ROI_COLOUR = "#f0e442"
WARNING_COLOUR = "#ff5555"

LineStyle = Literal["solid", "dashed"]

# Heights in the figure, inches; the warnings' lines are below the title.
TITLE_HEIGHT, WARNING_HEIGHT, LEGEND_HEIGHT = 0.42, 0.25, 0.38
#: What fits into a line of a warning.
WARNING_CHARACTERS = 130


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Write on an image; ``x`` and ``y`` are parts of its width and height."""
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        color=TEXT,
        path_effects=halo(),
        **{"va": "bottom", "fontsize": 9, **style},
    )


def halo() -> list[Any]:
    """A dark rim that keeps what is white readable on bright tissue."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=4.0, foreground=BACKGROUND, alpha=0.8), Normal()]


def annotate(
    figure: Figure,
    title: str,
    geometry: Geometry,
    predicted: np.ndarray,
    expected: np.ndarray | None,
    has_region: bool,
) -> None:
    """Write the title, the image's size, and a legend with the masks' volumes.

    Args:
        figure: the figure.
        title: the case's name.
        geometry: of the image.
        predicted: the mask, truth values.
        expected: the reference, truth values, if there is one.
        has_region: whether a region of interest is drawn.
    """
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    size = "×".join(str(n) for n in geometry.size_xyz)
    spacing = "×".join(f"{mm:.3g}" for mm in geometry.spacing_xyz)
    middle = 1.0 - TITLE_HEIGHT / 2.0 / height
    figure.text(
        0.008,
        middle,
        title or "case",
        color=TEXT,
        fontsize=13,
        fontweight="bold",
        va="center",
        parse_math=False,  # a file may be called $1$
    )
    figure.text(
        0.992,
        middle,
        f"{size} voxels at {spacing} mm",
        color=FAINT,
        fontsize=10,
        ha="right",
        va="center",
    )
    entries: list[tuple[str, str, LineStyle]] = [
        (f"mask, {_volume(predicted, geometry)}", MASK_COLOUR, "solid")
    ]
    if expected is not None:
        entries.append((f"reference, {_volume(expected, geometry)}", REFERENCE_COLOUR, "solid"))
    if has_region:
        entries.append(("segmented region", ROI_COLOUR, "dashed"))
    figure.legend(
        handles=[
            Line2D([], [], color=colour, linestyle=style, linewidth=2.0, label=label)
            for label, colour, style in entries
        ],
        loc="center",
        bbox_to_anchor=(0.5, LEGEND_HEIGHT / 2.0 / height),
        ncols=len(entries),
        frameon=False,
        labelcolor=TEXT,
        fontsize=10,
    )


def warning_lines(warnings: Sequence[str]) -> list[str]:
    """The lines of all warnings, each short enough for the figure."""
    return [line for one in warnings for line in wrap(f"Warning: {one}", WARNING_CHARACTERS)]


def draw_warnings(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines of warnings below the title."""
    for number, line in enumerate(lines):
        middle = TITLE_HEIGHT + (number + 0.5) * WARNING_HEIGHT
        figure.text(
            0.008,
            1.0 - middle / figure.get_figheight(),
            line,
            color=WARNING_COLOUR,
            fontsize=11,
            va="center",
            parse_math=False,
        )


def _volume(mask_zyx: np.ndarray, geometry: Geometry) -> str:
    if not mask_zyx.any():
        return "empty"
    size_ml = int(mask_zyx.sum()) * geometry.voxel_volume_mm3 / 1000.0
    return f"{size_ml:.2f} mL" if size_ml >= 0.01 else f"{size_ml:.2g} mL"
