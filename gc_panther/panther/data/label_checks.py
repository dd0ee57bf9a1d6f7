"""Label maps whose tumour is unlikely to be where, or as large as, it is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gc_panther.case import Volume
from gc_panther.imaging.roi import Box, bounding_box
from gc_panther.text import count

#: A tumour of less than 5 mm across is below what MRI shows, mL.
LEAST_ML = 0.05
#: Components of up to this many voxels are specks.
SPECK = 3
#: More components than this are noise, and are not checked one by one.
MOST_COMPONENTS = 50
#: Outer part of an axis; a tumour that is there along two axes is in a corner.
CORNER = 0.1
#: Distances from the organ, mm: up to the first one a tumour is next to it; the others are for the
#: message.
DISTANCES_MM = (5.0, 10.0, 20.0, 40.0, 80.0)


def tumour_warnings(label: Volume, tumour: int, organ: tuple[str, int] | None) -> list[str]:
    """What is unlikely about the tumour of a label map, one sentence each.

    Args:
        label: the label map, in any orientation.
        tumour: the tumour's value.
        organ: name and value of the label in or next to which it lies, where there is one.
    """
    mask_zyx = label.array_zyx == tumour
    box = bounding_box(mask_zyx)
    if box is None:
        return []
    found = [
        *_small(mask_zyx[_slices(box)], label),
        *_at_the_edge(mask_zyx, box),
        *_in_a_corner(box, mask_zyx.shape),
    ]
    if organ is not None:
        found += _outside(mask_zyx, box, label, *organ)
    return found


def _small(mask_zyx: np.ndarray, label: Volume) -> Iterator[str]:
    voxels = int(np.count_nonzero(mask_zyx))
    volume_ml = voxels * _voxel_ml(label)
    if voxels <= SPECK or volume_ml < LEAST_ML:
        yield f"the tumour has {count(voxels, 'voxel')} ({volume_ml:.2g} mL)"
        return
    sizes = _components(mask_zyx)[1]
    if len(sizes) > MOST_COMPONENTS:
        yield f"the tumour has {len(sizes)} separate parts"
        return
    specks = sum(size <= SPECK for size in sizes)
    if specks:
        yield f"{specks} of the tumour's {len(sizes)} separate parts have at most {SPECK} voxels"


def _at_the_edge(mask_zyx: np.ndarray, box: Box) -> Iterator[str]:
    voxels = 0
    for axis, last in enumerate(mask_zyx.shape):
        if box.start_zyx[axis] == 0 or box.stop_zyx[axis] == last:
            ends = {0, last - 1}
            voxels += sum(int(np.count_nonzero(mask_zyx.take(end, axis))) for end in ends)
    if voxels:
        yield f"the tumour reaches the edge of the image with {count(voxels, 'voxel')}"


def _in_a_corner(box: Box, shape_zyx: tuple[int, ...]) -> Iterator[str]:
    centres = [
        (start + stop) / 2 / size
        for start, stop, size in zip(box.start_zyx, box.stop_zyx, shape_zyx, strict=True)
    ]
    if sum(min(centre, 1 - centre) < CORNER for centre in centres) >= 2:
        at = ", ".join(f"{100 * centre:.0f} %" for centre in centres)
        yield f"the tumour is in a corner of the image (its centre is at {at} of z, y, x)"


def _outside(mask_zyx: np.ndarray, box: Box, label: Volume, name: str, value: int) -> Iterator[str]:
    organ_zyx = label.array_zyx == value
    expected, voxels = int(np.count_nonzero(organ_zyx)), int(np.count_nonzero(mask_zyx))
    if not expected:
        yield f"no {name} is labelled"
        return
    if voxels > expected:
        sizes_ml = [n * _voxel_ml(label) for n in (voxels, expected)]
        yield (
            f"the tumour ({sizes_ml[0]:.3g} mL) is larger than the {name} ({sizes_ml[1]:.3g} mL): "
            "their values may be swapped"
        )
    parts = _components(mask_zyx[_slices(box)])[0]
    if len(parts) > MOST_COMPONENTS:
        return
    gaps = [_gap_mm(organ_zyx, _moved(part, box), label) for part in parts]
    far = [gap for gap in gaps if gap is not None]
    if far:
        which = f"{len(far)} of the tumour's {len(gaps)} separate parts are"
        which = "the tumour is" if len(gaps) == 1 else which
        yield f"{which} more than {min(far):.0f} mm from the {name}"


def _gap_mm(organ_zyx: np.ndarray, part: Box, label: Volume) -> float | None:
    """The largest of the distances within which there is no organ; None where it is near."""
    gap = None
    for distance in DISTANCES_MM:
        # The box of a part holds all that is nearer to it, and a little more.
        around = tuple(
            slice(max(0, start - math.ceil(distance / mm)), stop + math.ceil(distance / mm))
            for start, stop, mm in zip(
                part.start_zyx, part.stop_zyx, label.geometry.spacing_zyx, strict=True
            )
        )
        if organ_zyx[around].any():
            break
        gap = distance
    return gap


def _components(mask_zyx: np.ndarray) -> tuple[list[Box], list[int]]:
    """Boxes and sizes of the 26-connected components."""
    from scipy import ndimage

    parts, number = ndimage.label(mask_zyx, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:].tolist()
    boxes = []
    for found in ndimage.find_objects(parts):
        z, y, x = found
        boxes.append(Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop)))
    return boxes, sizes


def _moved(part: Box, box: Box) -> Box:
    """A box within another one, on the whole grid."""
    z, y, x = box.start_zyx
    (a, b, c), (d, e, f) = part.start_zyx, part.stop_zyx
    return Box((z + a, y + b, x + c), (z + d, y + e, x + f))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(map(slice, box.start_zyx, box.stop_zyx))


def _voxel_ml(label: Volume) -> float:
    return math.prod(label.geometry.spacing_xyz) / 1000
