"""How much memory the stages of an ensemble take for an image, before any of it is taken.

Counted are the arrays whose size follows the image's, those that are there at the same time added
up; the networks and what they compute within a window are the same for every image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_HALF, _SINGLE, _DOUBLE = 2, 4, 8


@dataclass(frozen=True)
class Grids:
    """The shapes an image takes on its way, (i, j, k).

    Attributes:
        image: as it comes.
        box: its part that is not zero.
        network: that part at the network's spacing.
        patch: a window.
    """

    image: tuple[int, ...]
    box: tuple[int, ...]
    network: tuple[int, ...]
    patch: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """What the windows lie on: the network's grid, at least a patch large."""
        return tuple(max(pair) for pair in zip(self.network, self.patch, strict=True))


def stages(
    grids: Grids, heads: int, kept: int, windows_step: float | None = None
) -> dict[str, int]:
    """Bytes that each stage takes at its peak.

    Args:
        grids: of the image.
        heads: number of the network's outputs.
        kept: folds whose logits are kept at the same time.
        windows_step: where the logits of every window are kept as well, the distance of
            neighbouring windows as a fraction of the patch.

    Returns:
        Bytes by what is done, in words that follow "when".
    """
    image, box, network = (math.prod(shape) for shape in (grids.image, grids.box, grids.network))
    padded = math.prod(grids.padded)
    logits = _HALF * heads * network * kept
    parts = 0
    if windows_step is not None:
        parts = _HALF * heads * math.prod(grids.patch) * _windows(grids, windows_step) * kept
    along_first = math.prod((grids.box[0], *grids.network[1:]))
    back = logits + _HALF * heads * box
    return {
        "resampled for the network": (
            _SINGLE * (image + box + network) + _interpolation(grids.box, grids.network)
        ),
        "padded to the network's window": (
            _SINGLE * (network + padded)
            + _HALF * (heads + 1) * padded
            + heads * padded
            + logits
            + parts
        ),
        "the answer is brought to its grid": max(
            back + _SINGLE * heads * box + _DOUBLE * (network + along_first),
            _SINGLE * heads * (box + 2 * image) + 2 * image,
        ),
    }


def _windows(grids: Grids, step_size: float) -> int:
    """How many windows cover the network's grid."""
    return math.prod(
        1 + math.ceil((size - patch) / (patch * step_size))
        for size, patch in zip(grids.padded, grids.patch, strict=True)
    )


def _interpolation(old: Sequence[int], new: Sequence[int]) -> int:
    """Of splines in double precision, one axis after the other, and of their matrices."""
    pairs = sorted(zip(old, new, strict=True), key=lambda pair: pair[1] / pair[0])
    if all(before == after for before, after in pairs):
        return 0
    size = math.prod(old)
    peak = matrices = 0
    for before, after in pairs:
        if before != after:
            following = size // before * after
            matrices += before * (before + 2 * after)
            peak = max(peak, size + following)
            size = following
    # The result, and two copies of it that are clipped.
    return _DOUBLE * (max(peak, 3 * size) + matrices)
