import gc
import resource
import weakref

import numpy as np
import pytest

from gc_panther import memory
from gc_panther.errors import InputError
from gc_panther.memory import (
    available_memory,
    check_memory,
    release_memory,
    settle_memory,
)


class Link:
    def __init__(self):
        self.itself = self


def test_objects_that_refer_to_each_other_are_let_go():
    gc.disable()
    try:
        link = Link()
        kept = weakref.ref(link)
        del link
        assert kept() is not None
        release_memory()
        assert kept() is None
    finally:
        gc.enable()


def test_what_is_settled_is_left_out_of_later_searches():
    settled = Link()
    settle_memory()
    later = Link()
    try:
        assert not any(found is settled for found in gc.get_objects())
        assert any(found is later for found in gc.get_objects())
        settled.itself = later.itself = None
    finally:
        gc.unfreeze()


@pytest.mark.skipif(
    not hasattr(memory.C_LIBRARY, "malloc_trim"), reason="the C library is not glibc"
)
def test_what_was_freed_goes_back_to_the_system(resident):
    release_memory()
    # Small enough to come from the heap, and with holes that keep its end in use.
    blocks = [np.ones(8_000) for _ in range(4_000)]
    kept = blocks[::100]
    held = resident()
    del blocks
    release_memory()
    assert held - resident() > 200e6
    assert all(block[0] == 1 for block in kept)


def test_a_c_library_that_keeps_its_memory_is_no_error(monkeypatch):
    monkeypatch.setattr(memory, "C_LIBRARY", object())
    release_memory()


@pytest.fixture
def system(tmp_path):
    """A file system in which Linux describes a machine with 8 GB free."""

    def write(**files):
        content = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:  8000000 kB\n", **files}
        for name, text in content.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


MIB = 1 << 20


def group(limit, used, stat=""):
    return {"memory.max": str(limit), "memory.current": str(used), "memory.stat": stat}


def old_group(limit, used, stat=""):
    return {
        "memory.limit_in_bytes": str(limit),
        "memory.usage_in_bytes": str(used),
        "memory.stat": stat,
    }


def below(folder, files):
    return {f"sys/fs/cgroup/{folder}{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8_000_000 * 1024),
        ({"proc/self/cgroup": "0::/\n", **below("", group(4 * MIB, MIB))}, 3 * MIB),
        ({"proc/self/cgroup": "0::/\n", **below("", group("max", MIB))}, 8_000_000 * 1024),
        (
            # What is read can be thrown away again.
            {
                "proc/self/cgroup": "0::/a/b\n",
                **below("a/b/", group(4 * MIB, 3 * MIB, f"anon 5\ninactive_file {MIB}\n")),
            },
            2 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                **below("a/", group(2 * MIB, MIB)),
                **below("a/b/", group(4 * MIB, MIB)),
            },
            MIB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/0f0e\n0::/\n",
                **below("memory/", old_group(5 * MIB, MIB, f"total_inactive_file {MIB}\n")),
            },
            5 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "4:hugetlb,memory:/a\n",
                **below("memory/a/", old_group(5 * MIB, 6 * MIB)),
            },
            0,
        ),
        ({"proc/meminfo": "nothing"}, float("inf")),
        ({"proc/meminfo": "MemAvailable: many kB", "proc/self/cgroup": "0::/none"}, float("inf")),
    ],
)
def test_what_machine_and_container_leave(system, files, expected):
    assert available_memory(system(**files)) == expected


@pytest.mark.parametrize(
    ("limit", "name"), [(resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")]
)
def test_what_the_process_own_limits_leave(system, monkeypatch, limit, name):
    """The platform limits each process' data."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (5 * MIB, 9 * MIB) if kind == limit else unlimited
    )
    assert available_memory(system()) == 5 * MIB
    assert available_memory(system(**{"proc/self/status": f"{name}:  1024 kB\n"})) == 4 * MIB


def test_this_machine_has_memory():
    assert available_memory() > 10 * MIB


def test_what_needs_too_much_is_refused_with_the_figures(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 8e9)
    check_memory(7.9e9, doing="read", where="image.mha")
    with pytest.raises(
        InputError, match=r"needs about 12.3 GB of memory when read, and 8 GB are available: im"
    ):
        check_memory(12.3e9, doing="read", where="image.mha")
    with pytest.raises(InputError, match="about 123457 GB"):
        check_memory(123456.7e9, doing="read", where="image.mha")
