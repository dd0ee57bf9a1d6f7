"""What the C library does with memory that has been freed."""

from __future__ import annotations

import ctypes
import gc

#: What is linked into this process already.
C_LIBRARY = ctypes.CDLL(None)

#: glibc's parameters of mallopt (malloc.h), and what keeps freed memory in the process: nothing is
#: mapped by itself and unmapped again, nothing is trimmed, and all threads share what there is.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0, _ARENA_MAX: 1}


def release_memory() -> None:
    """Give the system back what the case before has freed.

    Python finds objects that refer to each other only now and then, and the C library may keep
    what has been freed: a process that segments case after case grows. It takes some tenths of a
    second, so call it between cases. C libraries other than glibc keep what they keep.
    """
    gc.collect()
    trim = getattr(C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def settle_memory() -> None:
    """Leave what is loaded by now out of all later searches for unused objects.

    Modules and networks stay until the process ends, but :func:`release_memory` would look at each
    of their objects every time: 0.2 s of the time between two cases. Call it once, when everything
    is loaded.
    """
    gc.collect()
    gc.freeze()


def keep_memory() -> None:
    """Use freed memory again instead of giving it back to the system.

    Each step of a training frees some hundred tensors and allocates them anew. By default each is
    mapped and unmapped, and the system clears every page in between: a tenth of a training's time
    on a CPU. Call it before there are other threads. C libraries other than glibc do as they do.
    """
    mallopt = getattr(C_LIBRARY, "mallopt", None)
    if mallopt is not None:
        for parameter, value in _KEEPING.items():
            mallopt(parameter, value)
