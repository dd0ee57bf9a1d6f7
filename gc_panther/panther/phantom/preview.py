"""Pictures of phantoms: slices through the tumour with the labels' outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gc_panther.panther.phantom.generate import Phantom
from gc_panther.panther.phantom.labels import PANCREAS, TUMOUR

#: Outline colours: tumour red, pancreas green.
COLOURS = {TUMOUR: (255, 70, 60), PANCREAS: (90, 220, 90)}


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a 2-D mask that have a neighbour outside it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def panel(phantom: Phantom, axis: int, *, labels: bool, pixel_mm: float = 0.8) -> np.ndarray:
    """One slice through the tumour's centre as 8-bit RGB with square pixels.

    Args:
        phantom: the case.
        axis: 0 axial, 1 coronal, 2 sagittal.
        labels: whether to draw the outlines.
        pixel_mm: pixel size, mm.

    Returns:
        (rows, columns, 3) uint8. Radiological view: the patient's right on the left, superior up.
    """
    from scipy.ndimage import zoom

    tumour = np.argwhere(phantom.label_zyx == TUMOUR)
    if tumour.size:
        index = int(np.round(tumour.mean(axis=0))[axis])
    else:
        index = phantom.label_zyx.shape[axis] // 2
    image = np.take(phantom.image_zyx, index, axis).astype(np.float32)
    label = np.take(phantom.label_zyx, index, axis)
    if axis:
        image, label = image[::-1], label[::-1]
    spacing = np.delete(np.array(phantom.spacing_xyz[::-1]), axis)
    window = float(np.percentile(phantom.image_zyx, 99.3))
    factor = tuple(spacing / pixel_mm)
    grey = np.clip(zoom(image, factor, order=1) / max(window, 1.0), 0, 1) ** 0.9 * 255
    rgb = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    if labels:
        for value, colour in COLOURS.items():
            mask = zoom((label == value).astype(np.float32), factor, order=1) > 0.5
            rgb[outline(mask)] = colour
    return rgb


def montage(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Panels side by side and rows below each other, centred on black."""
    strips = []
    for row in rows:
        height = max(p.shape[0] for p in row)
        cells = []
        for p in row:
            top = (height - p.shape[0]) // 2
            pad = ((top, height - p.shape[0] - top), (0, gap), (0, 0))
            cells.append(np.pad(p, pad))
        strips.append(np.concatenate(cells, axis=1))
    width = max(s.shape[1] for s in strips)
    return np.concatenate(
        [np.pad(s, ((0, gap), (0, width - s.shape[1]), (0, 0))) for s in strips], axis=0
    )


def save_png(rgb: np.ndarray, path: Path) -> None:
    """Write an 8-bit RGB array (rows, columns, 3) as PNG."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(rgb), isVector=True), str(path))


def save_preview(phantom: Phantom, path: Path) -> None:
    """Axial, coronal and sagittal slice through the tumour: plain above, outlined below."""
    rows = [[panel(phantom, axis, labels=labels) for axis in range(3)] for labels in (False, True)]
    save_png(montage(rows), path)
