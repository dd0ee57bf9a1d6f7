"""NVIDIA's driver and its GPUs, against a stand-in for NVML."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from gc_panther.hardware import Driver, Gpu
from gc_panther.runtime import driver as module
from gc_panther.runtime.driver import find_driver, visible_indices

CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x@y)
GCC version:  gcc version 13.2.0
"""
UUIDS = ("GPU-8f2c1a", "GPU-8f9d2b", "GPU-03aa44")
GIB = 2**30


class NVMLError(Exception):
    """As pynvml names it."""


class Nvml:
    """Three GPUs; ``fails`` names the functions that raise."""

    NVMLError = NVMLError

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in self.fails:
            return self._fail
        return object.__getattribute__(self, name)

    def _fail(self, *_: Any) -> Any:
        raise NVMLError("Driver/library version mismatch")

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.133.20"

    def nvmlDeviceGetCount(self) -> int:
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid != "MIG-77":
            raise NVMLError("Not Found")
        return 7

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return UUIDS[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"GPU model {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(free=(handle + 1) * GIB, total=16 * GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> list[int]:
        return [8, handle]


@pytest.fixture(autouse=True)
def kernel_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a driver; what is written to the file is what the kernel says of one."""
    monkeypatch.setattr(module, "_MODULE", tmp_path / "version")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "version"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a stand-in into place of pynvml."""

    def put(*fails: str) -> Nvml:
        stand_in = Nvml(*fails)
        monkeypatch.setitem(sys.modules, "pynvml", stand_in)
        return stand_in

    return put


def test_the_stand_in_has_the_names_of_nvmls_functions() -> None:
    names = {name for name in vars(Nvml) if name.startswith("nvml")}
    assert len(names) == 10
    assert names <= vars(pynvml).keys()
    assert issubclass(pynvml.NVMLError, Exception)


def numbers(found: Driver | None) -> list[str]:
    assert found is not None
    return [gpu.name.rpartition(" ")[2] for gpu in found.gpus]


def test_nvml_tells_the_version_and_the_gpus(nvml: Any) -> None:
    stand_in = nvml()
    found = find_driver()
    assert found is not None
    assert found.version == "570.133.20"
    assert found.gpus[1] == Gpu("GPU model 1", (8, 1), 2 * GIB, 16 * GIB)
    assert numbers(found) == ["0", "1", "2"]
    assert stand_in.open == 0


def test_no_driver_is_none(nvml: Any) -> None:
    assert find_driver() is None
    nvml("nvmlInit")
    assert find_driver() is None


@pytest.mark.parametrize("fails", ["nvmlInit", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount"])
@pytest.mark.parametrize(("text", "version"), [(CLOSED, "535.104.05"), (OPEN, "580.65.06")])
def test_a_driver_that_cannot_be_asked_is_known_from_the_kernel_without_gpus(
    nvml: Any, kernel_module: Path, fails: str, text: str, version: str
) -> None:
    kernel_module.write_text(text)
    stand_in = nvml(fails)
    assert find_driver() == Driver(version)
    assert stand_in.open == 0


def test_without_pynvml_the_kernel_says_that_there_is_a_driver(kernel_module: Path) -> None:
    kernel_module.write_text(CLOSED)
    assert find_driver() == Driver("535.104.05")


def test_what_nvml_does_not_tell_of_a_gpu_is_unknown(nvml: Any) -> None:
    nvml("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCudaComputeCapability")
    found = find_driver()
    assert found is not None
    assert found.gpus[0] == Gpu("GPU model 0")


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ("2,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("1,7,0", ["1"]),
        ("GPU-03aa44,GPU-8f2c1a", ["2", "0"]),
        ("MIG-77,MIG-78", ["7"]),
        ("MIG-99", []),
    ],
)
def test_gpus_are_numbered_as_cuda_numbers_them(
    nvml: Any, monkeypatch: pytest.MonkeyPatch, chosen: str, seen: list[str]
) -> None:
    nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert numbers(find_driver()) == seen


@pytest.mark.parametrize(
    ("chosen", "indices"),
    [
        ("0", (0,)),
        (" 1 , 2 ", (1, 2)),
        ("1,1", ()),  # named twice
        ("1,GPU-8f9", ()),
        ("GPU-0", (2,)),  # cut short
        ("GPU-8f", ()),  # of two
        ("0,GPU-ff,1", (0,)),  # not there, and what follows
        ("03aa44", ()),  # a number that is too large
        ("gpu", ()),
        (",0", ()),
        ("NoDevFiles", ()),
    ],
)
def test_names_of_visible_gpus(chosen: str, indices: tuple[int, ...]) -> None:
    assert visible_indices(chosen, UUIDS) == indices
