"""Memory of one case that the next one does not need."""

from __future__ import annotations

import ctypes
import gc

#: What is linked into this process already.
C_LIBRARY = ctypes.CDLL(None)


def release_memory() -> None:
    """Give the system back what the case before has freed.

    Python finds objects that refer to each other only now and then, and the C library keeps what
    has been freed in several pools, of which a busy machine makes more: a process that segments
    case after case seems to grow. Takes about 0.1 s. C libraries other than glibc keep theirs.
    """
    gc.collect()
    trim = getattr(C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)
