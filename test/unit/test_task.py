"""What a task's base class does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gc_panther.case import Case, Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.task import Interface, Socket, Task

T2, ADC = Socket("t2", "images/t2"), Socket("adc", "images/adc")
ALONE, BOTH = Interface((T2,), ()), Interface((T2, ADC), ())


class Two(Task):
    name, title, interfaces, models = "two", "One image or two", (ALONE, BOTH), ()

    def load(self, runtime: Any) -> Any:
        raise NotImplementedError


def case_of(*slugs: str) -> Case:
    image = Volume(np.zeros((2, 3, 4)), Geometry((4, 3, 2), (1.0, 1.0, 1.0)))
    return Case("a case", dict.fromkeys(slugs, image))


def test_a_case_s_images_decide_its_interface() -> None:
    assert Two().interface_of(case_of("t2")) is ALONE
    assert Two().interface_of(case_of("t2", "adc")) is BOTH
    with pytest.raises(InputError, match=r"inputs \(adc\) fit no interface of two: a case"):
        Two().interface_of(case_of("adc"))
