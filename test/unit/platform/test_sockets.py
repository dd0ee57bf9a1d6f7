"""Which tasks can be used at all."""

from __future__ import annotations

from typing import Any

import pytest

from gc_panther.errors import PluginError
from gc_panther.platform.sockets import check_served, unserved
from gc_panther.task import Interface, Socket, Task

MRI = Socket("mri", "images/mri")
CT = Socket("ct", "images/ct")
MASK = Socket("mask", "images/mask")
AGE = Socket("age", "age.json", "Value")
RISK = Socket("risk", "risk.json", "File")


def task_of(*interfaces: Interface) -> Task:
    class Any_(Task):
        name = "some"
        title = "Some task"
        models = ()

        def load(self, runtime: Any) -> Any:
            raise AssertionError("not loaded here")

    Any_.interfaces = interfaces
    return Any_()


def test_images_in_and_one_image_out_are_served() -> None:
    assert unserved(task_of(Interface((MRI,), (MASK,)), Interface((MRI, CT), (MASK,)))) == []


@pytest.mark.parametrize(
    ("interface", "said"),
    [
        (Interface((MRI, AGE), (MASK,)), "the input age is a Value"),
        (Interface((AGE,), (MASK,)), "the input age is a Value"),
        (Interface((MRI,), (MASK, RISK)), "the output risk is a File"),
        (Interface((MRI,), (RISK,)), "the output risk is a File"),
        (Interface((MRI,), (MASK, CT)), "the outputs mask and ct are several images"),
        (Interface((MRI,), ()), "the interface mri has no output"),
        (Interface((), (MASK,)), "no input"),
        (Interface((MRI,), (Socket("mask", "../mask"),)), "'../mask' of mask"),
        (Interface((MRI,), (Socket("mask", "/mask"),)), "'/mask' of mask"),
        (Interface((Socket("mri", ""),), (MASK,)), "'' of mri"),
    ],
)
def test_other_sockets_are_named(interface: Interface, said: str) -> None:
    task = task_of(Interface((MRI,), (MASK,)), interface)
    assert any(said in problem for problem in unserved(task))
    with pytest.raises(PluginError) as caught:
        check_served(task, "a-plugin")
    assert "the task some cannot be used" in str(caught.value)
    assert said in str(caught.value)
    assert "plugin a-plugin" in str(caught.value)


def test_a_task_without_an_interface_is_not_served() -> None:
    assert unserved(task_of()) == ["it has no interface"]
