"""Pictures of a mask on its image: three orthogonal slices, whole and enlarged.

Drawn with matplotlib's Agg canvas objects, so no display, no window system and no global state
is involved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.orientation import to_lps
from gc_panther.report.captions import (
    BACKGROUND,
    LEGEND_HEIGHT,
    MASK_COLOUR,
    REFERENCE_COLOUR,
    ROI_COLOUR,
    TEXT,
    TITLE_HEIGHT,
    WARNING_HEIGHT,
    LineStyle,
    annotate,
    draw_warnings,
    halo,
    warning_lines,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Grey levels span these percentiles of the image.
WINDOW_PERCENTILES = (0.5, 99.5)
#: An enlarged view is this many times as wide as the tumour, at least so many mm wide, and enlarged
#: at least so many times.
ZOOM_FACTOR = 2.5
ZOOM_MIN_MM = 90.0
LEAST_ENLARGEMENT = 1.5

# Figure layout, inches.
PANEL_WIDTH, PANEL_HEIGHT, GAP = 4.0, 3.3, 0.08
DPI = 120


@dataclass(frozen=True)
class Plane:
    """How one orthogonal plane of an LPS array (z, y, x) is shown, radiological convention.

    Attributes:
        title: its name.
        normal: array axis across the plane.
        rows: array axis shown vertically.
        columns: array axis shown horizontally, index growing to the right.
        rows_up: the row index grows upwards.
        marks: anatomical sides at the left, right, top and bottom edge.
    """

    title: str
    normal: int
    rows: int
    columns: int
    rows_up: bool
    marks: tuple[str, str, str, str]


# On an LPS grid x grows to the patient's left, y to the back, z to the head; the patient's right
# is on the picture's left, as radiologists read it.
PLANES = (
    Plane("axial", 0, 1, 2, False, ("R", "L", "A", "P")),
    Plane("coronal", 1, 0, 2, True, ("R", "L", "S", "I")),
    Plane("sagittal", 2, 0, 1, True, ("A", "P", "S", "I")),
)


def save_overlay(
    image: Volume,
    mask: Volume,
    path: Path,
    *,
    reference: Volume | None = None,
    roi: Mapping[str, Sequence[int]] | None = None,
    title: str = "",
    warnings: Sequence[str] = (),
) -> None:
    """Write a PNG of the mask's outline on axial, coronal and sagittal slices.

    What is shown is the largest connected component of the mask, or of the reference where the mask
    is empty: each slice is the one with its largest area in that direction, else the middle one.
    Upper row: the whole slice; lower row: the component enlarged, if there is one, with a caption
    where there are more. Oblique images are shown along their own axes, marked with the nearest
    sides.

    Args:
        image: the image that was segmented.
        mask: labels on the image's grid; everything but 0 is outlined.
        path: the PNG to write.
        reference: labels on the image's grid; 1, the tumour, is outlined.
        roi: ``start_xyz`` and ``stop_xyz`` of the region that was segmented, in voxels of the
            image as stored, stop exclusive, as ``Result.details["roi"]`` holds it.
        title: the case's name.
        warnings: shown in red below the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw_overlay(image, mask, reference=reference, roi=roi, title=title, warnings=warnings)
    FigureCanvasAgg(figure).print_png(str(path))


def draw_overlay(
    image: Volume,
    mask: Volume,
    *,
    reference: Volume | None = None,
    roi: Mapping[str, Sequence[int]] | None = None,
    title: str = "",
    warnings: Sequence[str] = (),
) -> Figure:
    """Return the figure :func:`save_overlay` writes; its axes are the three planes, then the zooms.

    Coordinates of all axes are mm from the outer corner of the first voxel of the LPS grid.
    """
    from matplotlib.figure import Figure

    predicted = _lps_mask(image.geometry, mask.array_zyx != 0)
    expected = None if reference is None else _lps_mask(image.geometry, reference.array_zyx == 1)
    region = None if roi is None else _lps_mask(image.geometry, _inside(roi, image.geometry))
    shown, components = _largest_component(
        predicted if predicted.any() or expected is None else expected
    )
    outlines: tuple[tuple[np.ndarray | None, str, LineStyle], ...] = (
        (region, ROI_COLOUR, "dashed"),
        (expected, REFERENCE_COLOUR, "solid"),
        (predicted, MASK_COLOUR, "solid"),
    )

    lps = to_lps(image)
    grey = lps.array_zyx.astype(np.float32, copy=False)
    window = tuple(np.percentile(grey, WINDOW_PERCENTILES))
    width = len(PLANES) * PANEL_WIDTH + (len(PLANES) + 1) * GAP
    # Without a tumour there is nothing to enlarge.
    panel_rows = 2 if components else 1
    lines = warning_lines(warnings)
    height = panel_rows * (PANEL_HEIGHT + GAP) + TITLE_HEIGHT + LEGEND_HEIGHT
    height += len(lines) * WARNING_HEIGHT
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)

    spacing = lps.geometry.spacing_zyx
    panels = [
        [
            figure.add_axes(
                (
                    (GAP + column * (PANEL_WIDTH + GAP)) / width,
                    (LEGEND_HEIGHT + (panel_rows - 1 - row) * (PANEL_HEIGHT + GAP)) / height,
                    PANEL_WIDTH / width,
                    PANEL_HEIGHT / height,
                )
            )
            for column in range(len(PLANES))
        ]
        for row in range(panel_rows)
    ]
    for plane, whole, *zooms in zip(PLANES, *panels, strict=True):
        index = _best_slice(shown, plane.normal)
        for axes in (whole, *zooms):
            _draw_slice(axes, plane, index, grey, window, spacing)
            for outlined, colour, style in outlines:
                if outlined is not None:
                    _outline(axes, plane, index, outlined, spacing, colour, style)
        _mark_sides(whole, plane)
        write(whole, 0.015, 0.02, f"{plane.title} {index + 1}/{grey.shape[plane.normal]}")
        for zoom in zooms:
            _zoom_to(zoom, whole, plane, shown, spacing)
    if components > 1:
        write(panels[1][0], 0.015, 0.98, f"the largest of {components} components", va="top")
    annotate(figure, title, image.geometry, predicted, expected, region is not None)
    draw_warnings(figure, lines)
    return figure


def _lps_mask(geometry: Geometry, array_zyx: np.ndarray) -> np.ndarray:
    return to_lps(Volume(array_zyx.astype(np.uint8), geometry)).array_zyx.astype(bool)


def _inside(roi: Mapping[str, Sequence[int]], geometry: Geometry) -> np.ndarray:
    inside = np.zeros(geometry.shape_zyx, bool)
    ends_xyz = zip(roi["start_xyz"], roi["stop_xyz"], strict=True)
    inside.T[tuple(slice(start, stop) for start, stop in ends_xyz)] = True
    return inside


def _largest_component(mask_zyx: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest 26-connected component, and how many there are."""
    from scipy import ndimage

    components, count = ndimage.label(mask_zyx, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask_zyx, count
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components == np.argmax(sizes), count


def _best_slice(mask_zyx: np.ndarray, normal: int) -> int:
    if not mask_zyx.any():
        return mask_zyx.shape[normal] // 2
    others = tuple(axis for axis in range(3) if axis != normal)
    return int(np.argmax(mask_zyx.sum(axis=others)))


def _plane_of(array_zyx: np.ndarray, plane: Plane, index: int) -> np.ndarray:
    # The remaining axes keep their order, which is rows before columns in every plane.
    return np.take(array_zyx, index, axis=plane.normal)


def _draw_slice(
    axes: Axes,
    plane: Plane,
    index: int,
    grey: np.ndarray,
    window: tuple[float, ...],
    spacing_zyx: tuple[float, float, float],
) -> None:
    rows_mm = grey.shape[plane.rows] * spacing_zyx[plane.rows]
    columns_mm = grey.shape[plane.columns] * spacing_zyx[plane.columns]
    axes.set_facecolor(BACKGROUND)
    axes.imshow(
        _plane_of(grey, plane, index),
        cmap="gray",
        vmin=window[0],
        vmax=max(window[1], window[0] + 1e-6),
        interpolation="bilinear",
        origin="lower",
        extent=(0.0, columns_mm, 0.0, rows_mm),
        aspect="equal",
    )
    axes.set_xlim(0.0, columns_mm)
    axes.set_ylim(*((0.0, rows_mm) if plane.rows_up else (rows_mm, 0.0)))
    axes.set_axis_off()


def _outline(
    axes: Axes,
    plane: Plane,
    index: int,
    mask_zyx: np.ndarray,
    spacing_zyx: tuple[float, float, float],
    colour: str,
    style: LineStyle,
) -> None:
    # One empty voxel around the slice closes the outline of what touches the image's edge.
    flat = np.pad(_plane_of(mask_zyx, plane, index), 1)
    if not flat.any():
        return
    rows_mm = (np.arange(flat.shape[0]) - 0.5) * spacing_zyx[plane.rows]
    columns_mm = (np.arange(flat.shape[1]) - 0.5) * spacing_zyx[plane.columns]
    axes.contour(
        columns_mm,
        rows_mm,
        flat.astype(np.float32),
        levels=[0.5],
        colors=[colour],
        linestyles=[style],
        linewidths=1.3,
    )


def _zoom_to(
    zoom: Axes,
    whole: Axes,
    plane: Plane,
    mask_zyx: np.ndarray,
    spacing_zyx: tuple[float, float, float],
) -> None:
    """Limit ``zoom`` to the mask's surroundings and frame them in ``whole``."""
    from matplotlib.patches import Rectangle

    centre, extent = [], []
    for axis in (plane.columns, plane.rows):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(mask_zyx.any(axis=others))
        centre.append((hit[0] + hit[-1] + 1) / 2.0 * spacing_zyx[axis])
        extent.append((hit[-1] + 1 - hit[0]) * spacing_zyx[axis])
    ratio = PANEL_HEIGHT / PANEL_WIDTH
    width = max(ZOOM_MIN_MM, ZOOM_FACTOR * extent[0], ZOOM_FACTOR * extent[1] / ratio)
    rows_mm, columns_mm = (
        mask_zyx.shape[axis] * spacing_zyx[axis] for axis in (plane.rows, plane.columns)
    )
    width = min(width, max(columns_mm, rows_mm / ratio) / LEAST_ENLARGEMENT)
    left, low = centre[0] - width / 2.0, centre[1] - width * ratio / 2.0
    high = low + width * ratio
    zoom.set_xlim(left, left + width)
    zoom.set_ylim(*((low, high) if plane.rows_up else (high, low)))
    whole.add_patch(
        Rectangle((left, low), width, width * ratio, fill=False, edgecolor=TEXT, linewidth=0.6)
    )
    _scale_bar(zoom, left, width)


def _scale_bar(zoom: Axes, left: float, width: float) -> None:
    length = 20.0 if width < 200.0 else 50.0
    zoom.plot(
        [left + 0.03 * width, left + 0.03 * width + length],
        [0.05, 0.05],
        color=TEXT,
        linewidth=2.0,
        transform=zoom.get_xaxis_transform(),
        path_effects=halo(),
    )
    write(zoom, 0.03, 0.065, f"{length:.0f} mm")


def _mark_sides(axes: Axes, plane: Plane) -> None:
    left, right, top, bottom = plane.marks
    write(axes, 0.015, 0.5, left, va="center", fontsize=11, fontweight="bold")
    write(axes, 0.985, 0.5, right, ha="right", va="center", fontsize=11, fontweight="bold")
    write(axes, 0.5, 0.98, top, ha="center", va="top", fontsize=11, fontweight="bold")
    write(axes, 0.5, 0.02, bottom, ha="center", fontsize=11, fontweight="bold")
