"""The choice of a device, against stand-ins for the driver and for libraries."""

from __future__ import annotations

from typing import Any

import pytest

from gc_panther.errors import DeviceError
from gc_panther.hardware import DeviceCheck, Driver, Gpu, no_gpu
from gc_panther.hookspecs import hookimpl
from gc_panther.plugins import create_plugin_manager
from gc_panther.runtime import device as module
from gc_panther.runtime.device import device_for, select_device

T4 = Gpu("Tesla T4", (7, 5), free=15 * 2**30, total=16 * 2**30)
A10G = Gpu("NVIDIA A10G", (8, 6), free=22 * 2**30, total=24 * 2**30)
TWO = Driver("580.65.06", (T4, A10G))


def says(**answer: Any) -> Any:
    """A library that says the same of every GPU, and nothing of a CPU."""
    return lambda *, device, driver: [] if device == "cpu" else [DeviceCheck(**answer)]


@pytest.mark.parametrize(
    ("wanted", "name", "description"),
    [
        ("auto", "cuda:0", "Tesla T4, 15.0 of 16.0 GiB free"),
        ("cuda", "cuda:0", "Tesla T4, 15.0 of 16.0 GiB free"),
        ("cuda:1", "cuda:1", "NVIDIA A10G, 22.0 of 24.0 GiB free"),
    ],
)
def test_the_driver_alone_says_which_gpu_it_is(wanted: str, name: str, description: str) -> None:
    device = select_device(wanted, driver=lambda: TWO)
    assert (device.name, device.description) == (name, description)
    assert (device.notes, device.warnings) == ((), ())


def test_a_gpu_whose_memory_is_unknown_is_described_by_its_name() -> None:
    device = select_device(driver=lambda: Driver("580.65.06", (Gpu("NVIDIA A100"),)))
    assert device.description == "NVIDIA A100"


def test_auto_without_a_driver_is_the_cpu_with_a_note() -> None:
    device = select_device(driver=lambda: None)
    assert device.name == "cpu"
    assert device.description.startswith("CPU, ")
    note = "No GPU is used: no usable CUDA device was found (no NVIDIA driver)"
    assert (device.notes, device.warnings) == ((note,), ())


def test_auto_with_a_driver_that_shows_no_gpu_is_the_cpu_with_a_warning() -> None:
    device = select_device(driver=lambda: Driver("580.65.06"))
    assert (device.name, device.notes) == ("cpu", ())
    (warning,) = device.warnings
    assert warning == (
        "No GPU is used: no usable CUDA device was found (NVIDIA driver 580.65.06). Check the "
        "driver with nvidia-smi and start the container with --gpus all"
    )


@pytest.mark.parametrize(
    ("wanted", "require", "driver", "said"),
    [
        ("auto", True, None, r"no usable CUDA device was found \(no NVIDIA driver\)"),
        ("cuda", False, Driver("580.1"), r"no usable CUDA device was found \(NVIDIA driver 580.1"),
        ("cuda:2", False, TWO, r"no GPU 2 \(found: 2\) \(NVIDIA driver 580.65.06\)"),
        ("cpu", True, TWO, "CPU was chosen although"),
        ("tpu", False, TWO, "no device 'tpu'"),
        ("cuda:x", False, TWO, "no device 'cuda:x'"),
        ("cuda:0 ", False, TWO, "no device 'cuda:0 '"),
    ],
)
def test_what_cannot_work_is_refused(
    wanted: str, require: bool, driver: Driver | None, said: str
) -> None:
    with pytest.raises(DeviceError, match=said):
        select_device(wanted, require_gpu=require, driver=lambda: driver)


def test_the_cpu_that_was_asked_for_asks_no_driver() -> None:
    device = select_device("cpu", driver=lambda: pytest.fail("asked"))
    assert device.warnings == ()


def test_a_library_that_can_use_a_gpu_is_believed_without_a_driver() -> None:
    """NVML does not know every GPU, and numbers them in its own order."""
    device = select_device(check=says(gpu=A10G, notes=("a",), warnings=("b",)), driver=lambda: None)
    assert (device.name, device.description) == ("cuda:0", A10G.description)
    assert (device.notes, device.warnings) == (("a",), ("b",))


def test_a_library_that_cannot_use_a_gpu_is_named_with_its_versions() -> None:
    check = says(versions=("abacus 1.0",), problem=no_gpu(), cause="abacus needs driver 590")
    with pytest.raises(DeviceError) as caught:
        select_device("cuda", check=check, driver=lambda: TWO)
    assert caught.value.what == (
        "no usable CUDA device was found (abacus 1.0, NVIDIA driver 580.65.06; "
        "abacus needs driver 590)"
    )
    assert select_device(check=check, driver=lambda: TWO).name == "cpu"


def test_one_library_of_two_that_refuses_is_enough() -> None:
    answers = [DeviceCheck(("a 1",), gpu=T4), DeviceCheck(("b 2",), problem=no_gpu())]
    device = select_device(
        check=lambda *, device, driver: [] if device == "cpu" else answers, driver=lambda: TWO
    )
    assert device.name == "cpu"
    assert "(a 1, b 2, NVIDIA driver 580.65.06)" in device.warnings[0]


def test_a_library_that_cannot_use_a_cpu_is_an_error() -> None:
    problem = DeviceError("abacus needs a GPU")
    with pytest.raises(DeviceError, match="abacus needs a GPU"):
        select_device("cpu", check=lambda *, device, driver: [DeviceCheck(problem=problem)])


def test_plugins_are_asked_about_a_tasks_device(
    toy_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Library:
        @hookimpl
        def gc_panther_device_check(self, task: Any, device: str, driver: Any) -> Any:
            asked.append((task.name, device, driver))
            return DeviceCheck(gpu=T4, notes=("asked",))

    monkeypatch.setattr(module, "find_driver", lambda: TWO)
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    task.libraries = ()
    manager = create_plugin_manager([toy_plugin.hooks, Library()])
    device = device_for(task, manager, "cuda:1", require_gpu=True)
    assert asked == [("toy", "cuda:1", TWO)]
    assert (device.name, device.description) == ("cuda:1", T4.description)
    assert device.notes == ("asked",)
