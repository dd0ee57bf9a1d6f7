"""The driver's version, without a driver."""

import subprocess
from pathlib import Path

import pytest

from gc_panther.runtime import driver

CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x@y)
GCC version:  gcc version 13.2.0
"""


@pytest.fixture(autouse=True)
def without_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "_MODULE", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("text", "version"), [(CLOSED, "535.104.05"), (OPEN, "580.65.06")])
def test_the_kernel_module_is_asked_first(without_driver, text, version):
    (without_driver / "version").write_text(text)
    assert driver.driver_version() == version


def test_no_driver_is_none():
    assert driver.driver_version() is None


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 560.35", "560.35"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'", None),
        ("printf '\\377\\n'", None),
    ],
)
def test_nvidia_smi_is_asked_where_there_is_no_module(without_driver, script, version):
    program = Path(without_driver / "nvidia-smi")
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert driver.driver_version() == version


def test_an_nvidia_smi_that_hangs_is_no_answer(without_driver, monkeypatch):
    (without_driver / "nvidia-smi").touch(0o755)

    def hang(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(driver.subprocess, "run", hang)
    assert driver.driver_version() is None


@pytest.mark.parametrize(
    ("version", "cuda", "needed"),
    [
        ("570.133.20", "13.0", "580"),
        ("580.65.06", "13.0", ""),
        ("525.60.13", "12.6", ""),
        ("470.256.02", "12.6", "525"),
        ("470.256.02", "11.8", ""),
        ("418.40", "11.8", "450"),
        ("580.65.06", "99.0", ""),  # of which nothing is known
    ],
)
def test_which_driver_a_cuda_version_needs(version, cuda, needed):
    expected = f"CUDA {cuda} needs driver {needed} or newer" if needed else ""
    assert driver.too_old(version, cuda) == expected
