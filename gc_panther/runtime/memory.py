"""Memory of one case that the next one does not need."""

from __future__ import annotations

import ctypes
import gc

#: What is linked into this process already.
C_LIBRARY = ctypes.CDLL(None)


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
