"""The values that flow through a run."""

from __future__ import annotations

import numpy as np
import pytest

from gc_panther.case import Case, Geometry, Result, Volume
from gc_panther.task import Socket

T2, ADC = Socket("t2", "images/t2"), Socket("adc", "images/adc")
MASK, HEAT = Socket("mask", "images/mask"), Socket("heat", "images/heat")


def volume(value: int) -> Volume:
    return Volume(np.full((2, 3, 4), value), Geometry((4, 3, 2), (1.0, 1.0, 1.0)))


def test_a_case_gives_the_image_of_a_socket() -> None:
    case = Case("a", {"t2": volume(1), "adc": volume(2)})
    assert case[ADC] is case.images["adc"]
    with pytest.raises(KeyError, match="mask"):
        case[MASK]


def test_a_result_of_one_output_has_a_mask() -> None:
    mask = volume(1)
    assert Result({MASK: mask}).mask is mask
    with pytest.raises(ValueError, match="too many"):
        _ = Result({MASK: mask, HEAT: volume(2)}).mask
