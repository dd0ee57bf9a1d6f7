import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from gc_panther import memory
from gc_panther.memory import keep_memory, release_memory, settle_memory


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


@pytest.mark.skipif(not hasattr(memory.C_LIBRARY, "mallopt"), reason="the C library is not glibc")
def test_a_training_gets_the_memory_it_freed_again():
    script = """
import resource, sys
import numpy as np
from gc_panther.memory import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def step():
    for size in (1_000_000, 3_000_000, 9_000_000):
        np.ones(size)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", script, how]))
        for how in ("keep", "usual")
    }
    assert faults["keep"] < 0.1 * faults["usual"]


def test_keeping_memory_is_no_error_in_another_c_library(monkeypatch):
    monkeypatch.setattr(memory, "C_LIBRARY", object())
    keep_memory()
