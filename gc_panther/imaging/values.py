"""Which values an image holds, for label maps: there are few, or it is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Voxels that are searched at once.
PART = 1 << 20
#: A label map has no more values than this; the search ends.
MOST_VALUES = 64


def distinct_values(
    array: np.ndarray, done: Callable[[float], None] = lambda _: None
) -> tuple[set[float], bool]:
    """The values of an array, without sorting all of it.

    Args:
        array: any numbers.
        done: called with the part of the array that was searched since the last call.

    Returns:
        The values, and whether these are all. The search ends at :data:`MOST_VALUES`.
    """
    flat = array.reshape(-1)
    found: set[float] = set()
    for start in range(0, flat.size, PART):
        part = flat[start : start + PART]
        # Most parts hold nothing new, which is cheap to see while there are few values.
        new = part[~np.isin(part, np.array(sorted(found), flat.dtype))]
        found.update(np.unique(new)[: MOST_VALUES + 1].tolist())
        if len(found) > MOST_VALUES:
            done((flat.size - start) / flat.size)
            return found, False
        done(part.size / flat.size)
    return found, True
