"""How much memory there is, and what the C library does with memory that has been freed."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Iterator
from pathlib import Path

from gc_panther.errors import InputError

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


def settle_memory() -> None:
    """Leave what is loaded by now out of all later searches for unused objects.

    Modules and networks stay until the process ends, but :func:`release_memory` would look at each
    of their objects every time: 0.2 s of the time between two cases. Call it once, when everything
    is loaded.
    """
    gc.collect()
    gc.freeze()


def check_memory(needed: float, *, doing: str, where: str | Path) -> None:
    """Refuse an image that needs more memory than there is, before any is taken.

    Args:
        needed: estimated bytes beyond those that are in use.
        doing: what needs them, such as "resampled for the network".
        where: what the error message calls the image.

    Raises:
        InputError: it is more than :func:`available_memory`.
    """
    available = available_memory()
    if needed > available:
        raise InputError(
            f"the image needs about {_gigabytes(needed)} GB of memory when {doing}, "
            f"and {_gigabytes(available)} GB are available",
            where=where,
            fix="Check its size and its spacing (mm), crop or resample it, or use a machine with "
            "more memory",
        )


def available_memory(root: Path = Path("/")) -> float:
    """Bytes that this process can still take; infinite where the system does not say.

    The least of what the machine has free, what the container's control groups allow (of both
    versions), and the process' own limits, such as the platform's on its data.

    Args:
        root: of the file system in which Linux describes itself.
    """
    return min(_machine(root), *_control_groups(root), *_own_limits(root))


def _machine(root: Path) -> float:
    return _field(root / "proc/meminfo", "MemAvailable:", 1024)


def _control_groups(root: Path) -> Iterator[float]:
    """What each group on the way to this process' leaves; https://docs.kernel.org/admin-guide/."""
    yield float("inf")
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        # In a container the path may be the machine's; its own group is then at the top.
        for depth in range(len(parts) + 1):
            group = top.joinpath(*parts[:depth])
            limit, used = (_read(group / name).strip() for name in names[:2])
            if limit.isdigit() and used.isdigit():
                cached = _field(group / "memory.stat", names[2], 1, missing=0)
                yield max(0.0, float(limit) - float(used) + cached)


def _own_limits(root: Path) -> Iterator[float]:
    yield float("inf")
    for limit, name in ((resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            used = _field(root / "proc/self/status", name, 1024, missing=0)
            yield max(0.0, soft - used)


def _field(path: Path, name: str, unit: int, missing: float = float("inf")) -> float:
    """The number after a name that begins a line."""
    for line in _read(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return float(words[1]) * unit
    return missing


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g}" if count < 1e11 else f"{count / 1e9:.0f}"
