"""Device checks against stand-ins for torch; no GPU is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gc_panther.errors import DeviceError
from gc_panther.runtime import device as module
from gc_panther.runtime.device import half_convolution_error


def torch_with(
    *,
    gpus: int = 1,
    capability: tuple[int, int] = (7, 5),
    arch: tuple[str, ...] = ("sm_75", "sm_80", "compute_90"),
    free_gib: float = 15.0,
    version: str = "2.13.0+cu130",
    built: str | None = "13.0",
) -> Any:
    cuda = SimpleNamespace(
        is_available=lambda: gpus > 0 and built is not None,
        device_count=lambda: gpus,
        get_device_name=lambda index: "Tesla T4",
        get_device_capability=lambda index: capability,
        get_arch_list=lambda: list(arch),
        mem_get_info=lambda index: (int(free_gib * 2**30), 16 * 2**30),
    )
    return SimpleNamespace(
        cuda=cuda,
        version=SimpleNamespace(cuda=built),
        __version__=version,
        get_num_threads=lambda: 2,
    )


def select_device(*arguments: Any, **options: Any) -> module.Device:
    """With a self-test that needs no GPU, unless another one is given."""
    return module.select_device(*arguments, **{"self_test": lambda name: 2e-4, **options})


def test_a_usable_gpu_is_chosen() -> None:
    device = select_device("auto", torch=torch_with())
    assert device.name == "cuda:0"
    assert "Tesla T4" in device.description
    assert device.notes == ()


@pytest.mark.parametrize("torch", [torch_with(gpus=0), torch_with(built=None)])
def test_auto_falls_back_on_the_cpu_and_says_why(torch: Any) -> None:
    device = select_device("auto", torch=torch)
    assert device.name == "cpu"
    assert device.notes[0].startswith("No GPU is used: ")


@pytest.mark.parametrize(
    ("wanted", "require", "torch", "said"),
    [
        ("auto", True, torch_with(gpus=0), "no usable CUDA device"),
        ("cuda", False, torch_with(built=None), "built without CUDA"),
        ("cuda:3", False, torch_with(gpus=2), "no GPU 3"),
        ("cpu", True, torch_with(), "CPU was chosen although"),
        ("tpu", False, torch_with(), "no device 'tpu'"),
        ("cuda:x", False, torch_with(), "no device 'cuda:x'"),
        ("cuda", False, torch_with(capability=(6, 1)), "compute capability 6.1"),
    ],
)
def test_what_cannot_work_is_refused(wanted: str, require: bool, torch: Any, said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        select_device(wanted, require_gpu=require, torch=torch)


@pytest.mark.parametrize(
    ("capability", "arch", "works"),
    [
        ((8, 6), ("sm_80",), True),  # binary code of the same major version
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80",), False),
        ((9, 0), ("compute_80",), True),  # intermediate code is compiled for newer ones
        ((7, 5), ("compute_80",), False),
        ((9, 0), ("sm_90a",), True),
        ((12, 0), ("sm_120",), True),
    ],
)
def test_architectures(capability: tuple[int, int], arch: tuple[str, ...], works: bool) -> None:
    device = select_device("auto", torch=torch_with(capability=capability, arch=arch))
    assert (device.name == "cuda:0") is works


@pytest.mark.parametrize("version", ["2.9.1", "2.10.0+cu128"])
def test_releases_with_slow_convolutions_are_noted(version: str) -> None:
    assert "without cuDNN" in select_device(torch=torch_with(version=version)).notes[0]


def test_little_free_memory_is_noted() -> None:
    assert "Only 2.0 of 16.0 GiB" in select_device(torch=torch_with(free_gib=2.0)).notes[0]


def test_this_machines_torch_gives_a_device() -> None:
    assert select_device("cpu").name == "cpu"


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_a_gpu_that_computes_wrongly_is_refused_or_passed_over(error: float) -> None:
    with pytest.raises(DeviceError, match="half-precision 3-D convolutions on cuda:0"):
        select_device("cuda", torch=torch_with(), self_test=lambda name: error)
    fallen = select_device("auto", torch=torch_with(), self_test=lambda name: error)
    assert fallen.name == "cpu"
    assert "convolutions on cuda:0 are off" in fallen.notes[0]


def test_the_self_test_finds_a_kernel_that_computes_wrongly(monkeypatch: Any) -> None:
    import torch

    assert 0 < half_convolution_error("cpu") < module.MAX_CONVOLUTION_ERROR
    right = torch.nn.functional.conv3d

    def wrong(image: Any, kernel: Any, padding: int) -> Any:
        answer = right(image, kernel, padding=padding)
        return answer if image.dtype == torch.float32 else answer.roll(1, -1)

    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    assert half_convolution_error("cpu") > module.MAX_CONVOLUTION_ERROR
