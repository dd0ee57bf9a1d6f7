import tracemalloc

import numpy as np
import pytest

from gc_panther.imaging import values
from gc_panther.imaging.values import MOST_VALUES, distinct_values


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_all_values_are_found_in_whatever_part(dtype, monkeypatch):
    monkeypatch.setattr(values, "PART", 7)
    array = np.zeros((3, 5, 7), dtype)
    array.flat[[0, 50, 104]] = 1, 3, 200
    done = []
    assert distinct_values(array, done.append) == ({0, 1, 3, 200}, True)
    assert sum(done) == pytest.approx(1)


def test_continuous_values_end_the_search_at_once(monkeypatch):
    array = np.random.default_rng(0).normal(size=(8, 256, 512)).astype(np.float32)
    monkeypatch.setattr(values, "PART", 1 << 14)
    done, sorted_ = [], []
    unique = np.unique
    monkeypatch.setattr(np, "unique", lambda part: sorted_.append(part.size) or unique(part))
    tracemalloc.start()
    try:
        found, is_all = distinct_values(array, done.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not is_all
    assert len(found) == MOST_VALUES + 1
    assert sorted_ == [1 << 14]
    assert sum(done) == pytest.approx(1)
    # A part and its copies, not the array, let alone a Python number per voxel.
    assert peak < array.nbytes / 4
