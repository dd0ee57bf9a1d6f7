"""What torch makes of a device, against stand-ins for torch; no GPU is needed."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gc_panther.errors import DeviceError
from gc_panther.hardware import Device, Driver
from gc_panther.nnunet.device import check_torch, too_old, torch_device
from gc_panther.runtime import device as policy


def torch_with(
    *,
    gpus: int = 1,
    capability: tuple[int, int] = (7, 5),
    arch: tuple[str, ...] = ("sm_75", "sm_80", "compute_90"),
    free_gib: float = 15.0,
    version: str = "2.13.0+cu130",
    built: str | None = "13.0",
    cudnn: int | None = 91900,
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
        backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: cudnn)),
        __version__=version,
        get_num_threads=lambda: 2,
    )


def select_device(
    wanted: str = "auto", *, torch: Any, driver: str | None = None, require_gpu: bool = False
) -> Device:
    """The device that is chosen for a task that torch computes."""
    return policy.select_device(
        wanted,
        require_gpu=require_gpu,
        check=lambda *, device, driver: [check_torch(device, driver, torch=torch)],
        driver=lambda: Driver(driver) if driver else None,
    )


def test_a_usable_gpu_is_chosen() -> None:
    device = select_device("auto", torch=torch_with())
    assert device.name == "cuda:0"
    assert "Tesla T4" in device.description
    assert (device.notes, device.warnings) == ((), ())


@pytest.mark.parametrize("torch", [torch_with(gpus=0), torch_with(built=None)])
def test_auto_falls_back_on_the_cpu_and_says_why(torch: Any) -> None:
    device = select_device("auto", torch=torch)
    assert device.name == "cpu"
    assert device.notes[0].startswith("No GPU is used: ")
    assert "no NVIDIA driver" in device.notes[0]
    assert device.warnings == ()


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        (torch_with(gpus=0), "CUDA 13.0 needs driver 580 or newer"),
        (torch_with(built=None), "this torch is built without CUDA"),
        (torch_with(capability=(6, 1)), "compute capability 6.1"),
    ],
)
def test_the_cpu_of_a_machine_with_a_driver_is_a_warning(torch: Any, said: str) -> None:
    device = select_device("auto", torch=torch, driver="570.133.20")
    assert (device.name, device.notes) == ("cpu", ())
    (warning,) = device.warnings
    assert warning.startswith("No GPU is used: ")
    assert said in warning


@pytest.mark.parametrize(
    ("torch", "driver", "said"),
    [
        (
            torch_with(gpus=0),
            "570.133.20",
            "no usable CUDA device was found (torch 2.13.0+cu130, built for CUDA 13.0, NVIDIA "
            "driver 570.133.20; CUDA 13.0 needs driver 580 or newer). Install a torch "
            "built for an older CUDA, such as torch 2.7.1, or a newer driver",
        ),
        (
            torch_with(gpus=0, version="2.7.1+cu126", built="12.6"),
            "570.133.20",
            "no usable CUDA device was found (torch 2.7.1+cu126, built for CUDA 12.6, NVIDIA "
            "driver 570.133.20). Check the driver with nvidia-smi and start the container with "
            "--gpus all",
        ),
        (
            torch_with(built=None, version="2.13.0+cpu"),
            None,
            "this torch is built without CUDA (torch 2.13.0+cpu, built without CUDA, no NVIDIA "
            "driver). Install a CUDA build of torch, or use --device cpu",
        ),
    ],
)
def test_a_required_gpu_that_is_unusable_is_one_line_with_all_versions(
    torch: Any, driver: str | None, said: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        select_device("auto", require_gpu=True, torch=torch, driver=driver)
    assert str(caught.value) == said


def test_torchs_own_warning_of_an_old_driver_is_not_shown(recwarn: Any) -> None:
    torch = torch_with(gpus=0)

    def warn() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    torch.cuda.is_available = warn
    select_device("auto", torch=torch, driver="470.1")
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("wanted", "require", "torch", "said"),
    [
        ("auto", True, torch_with(gpus=0), "no usable CUDA device"),
        ("cuda", False, torch_with(built=None), "built without CUDA"),
        ("cuda:3", False, torch_with(gpus=2), "no GPU 3"),
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


@pytest.mark.parametrize(
    ("version", "cudnn", "said"),
    [("2.9.1", 91002, "slowly"), ("2.8.0+cu128", 91002, "wrongly")],
)
def test_faults_of_cudnn_are_warnings_and_no_errors(version: str, cudnn: int, said: str) -> None:
    device = select_device("cuda", torch=torch_with(version=version, cudnn=cudnn))
    assert device.name == "cuda:0"
    assert said in device.warnings[0]


def test_a_cudnn_that_does_not_fit_is_one_clear_error() -> None:
    torch = torch_with()

    def refuse() -> int:
        raise RuntimeError("cuDNN version incompatibility")

    torch.backends.cudnn.version = refuse
    with pytest.raises(DeviceError, match="cannot use its cuDNN"):
        select_device("cuda", torch=torch)


@pytest.mark.parametrize(("capability", "notes"), [((8, 6), 1), ((7, 5), 0), ((9, 0), 0)])
def test_an_a10g_is_reported_as_not_deterministic(capability: tuple[int, int], notes: int) -> None:
    arch = ("sm_75", "sm_86", "sm_90")
    device = select_device("cuda", torch=torch_with(capability=capability, arch=arch))
    assert len(device.notes) == notes
    assert device.warnings == ()


def test_little_free_memory_is_noted() -> None:
    assert "Only 2.0 of 16.0 GiB" in select_device(torch=torch_with(free_gib=2.0)).warnings[0]


def test_a_cpu_computes_with_torchs_threads() -> None:
    assert select_device("cpu", torch=torch_with()).description == "CPU, 2 threads"


def test_this_machines_torch_gives_a_device() -> None:
    assert re.fullmatch(r"CPU, \d+ threads?", torch_device("cpu").description)


def test_a_torch_that_is_damaged_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: no such file')")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DeviceError, match=r"torch cannot be imported \(libtorch_cpu"):
        check_torch("cpu", None)


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
def test_which_driver_a_cuda_version_needs(version: str, cuda: str, needed: str) -> None:
    expected = f"CUDA {cuda} needs driver {needed} or newer" if needed else ""
    assert too_old(version, cuda) == expected
