"""Whether torch can compute on a device."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from gc_panther.errors import DeviceError
from gc_panther.hardware import Device, DeviceCheck, Driver, Gpu, no_gpu, no_such_gpu
from gc_panther.nnunet.cudnn import GOOD_RELEASES, convolution_faults
from gc_panther.runtime.device import select_device

#: Below this much free GPU memory a full-size network with its windows does not fit, GiB.
MIN_FREE_GIB = 4.0

#: Of compute capability 8.6, such as A10G (https://github.com/pytorch/pytorch/pull/188318).
NOT_DETERMINISTIC = (
    "Masks can differ in single voxels from run to run: cuDNN's engine 5 on this GPU"
)

#: The oldest driver by CUDA's major version (NVIDIA, CUDA Compatibility, minor version
#: compatibility): 11.1 to 11.8, 12.x and 13.x.
_OLDEST = {11: 450, 12: 525, 13: 580}


def torch_device(wanted: str = "auto", *, require_gpu: bool = False) -> Device:
    """Choose a device that torch can use, for work that belongs to no task.

    Args:
        wanted: as for :func:`~gc_panther.runtime.device.select_device`.
        require_gpu: do not fall back on the CPU.

    Raises:
        DeviceError: the device is absent or torch cannot use it.
    """

    def check(*, device: str, driver: Driver | None) -> list[DeviceCheck]:
        return [check_torch(device, driver)]

    return select_device(wanted, require_gpu=require_gpu, check=check)


def check_torch(device: str, driver: Driver | None, *, torch: Any = None) -> DeviceCheck:
    """Try a device with torch.

    The precision of its convolutions depends on the networks:
    :mod:`gc_panther.nnunet.inference.precision`.

    Args:
        device: ``cpu`` or ``cuda:N``.
        driver: NVIDIA's, or None.
        torch: the torch module; tests pass another.

    Raises:
        DeviceError: torch is damaged and can use no device at all.
    """
    if torch is None:
        torch = _torch()
    cuda = torch.version.cuda
    check = DeviceCheck(
        versions=(
            f"torch {torch.__version__}",
            f"built for CUDA {cuda}" if cuda else "built without CUDA",
        ),
        threads=torch.get_num_threads(),
    )
    if device == "cpu":
        return check
    try:
        return _tried(check, int(device.removeprefix("cuda:")), torch)
    except DeviceError as problem:
        needed = too_old(driver.version, cuda) if driver is not None and cuda else ""
        if needed:
            fix = "Install a torch built for an older CUDA, such as torch 2.7.1, or a newer driver"
            problem = DeviceError(problem.what, fix=fix)
        return replace(check, problem=problem, cause=needed)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        raise DeviceError(f"torch cannot be imported ({error})", fix="Reinstall torch") from error
    return torch


def _tried(check: DeviceCheck, index: int, torch: Any) -> DeviceCheck:
    with warnings.catch_warnings():
        # torch warns of an old driver; the error here names it.
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if not available:
        if torch.version.cuda is not None:
            raise no_gpu()
        raise DeviceError(
            "this torch is built without CUDA",
            fix="Install a CUDA build of torch, or use --device cpu",
        )
    if index >= torch.cuda.device_count():
        raise no_such_gpu(index, torch.cuda.device_count())
    name = torch.cuda.get_device_name(index)
    major, minor = torch.cuda.get_device_capability(index)
    if not _supported(major, minor, torch.cuda.get_arch_list()):
        raise DeviceError(
            f"this torch has no code for the compute capability {major}.{minor} of {name}",
            fix="Install a torch build for this GPU, or use --device cpu",
        )
    free, total = torch.cuda.mem_get_info(index)
    warned = []
    if free < MIN_FREE_GIB * 2**30:
        warned.append(
            f"Only {free / 2**30:.1f} of {total / 2**30:.1f} GiB of GPU memory are free; "
            f"full-size networks need about {MIN_FREE_GIB:.0f}"
        )
    try:
        cudnn = torch.backends.cudnn.version()
    except RuntimeError as error:
        raise DeviceError(
            f"this torch cannot use its cuDNN ({str(error)[:200]})",
            fix="Install torch again, and take other copies of cuDNN out of LD_LIBRARY_PATH",
        ) from error
    faults = convolution_faults(torch.__version__, cudnn)
    if faults.reason:
        warned.append(f"{faults.reason}; {GOOD_RELEASES}")
    return replace(
        check,
        gpu=Gpu(name, (major, minor), free, total),
        notes=(NOT_DETERMINISTIC,) if (major, minor) == (8, 6) else (),
        warnings=tuple(warned),
    )


def _supported(major: int, minor: int, arch_list: list[str]) -> bool:
    """Whether some code in the build runs on the GPU.

    Binary code (``sm_XY``) runs on the same major version and the same or a later minor one;
    intermediate code (``compute_XY``) on everything later.
    """
    for arch in arch_list:
        kind, _, digits = arch.partition("_")
        digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
        if not digits.isdigit():
            continue
        built = (int(digits[:-1]), int(digits[-1]))
        if kind == "compute" and built <= (major, minor):
            return True
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return True
    return False


def too_old(driver: str, cuda: str) -> str:
    """Say which driver a CUDA version needs; empty where the driver is new enough or unknown.

    Args:
        driver: its version, such as ``570.133.20``.
        cuda: torch's CUDA version, such as ``12.6``.
    """
    major = cuda.partition(".")[0]
    oldest = _OLDEST.get(int(major)) if major.isdigit() else None
    if oldest is None or int(driver.partition(".")[0]) >= oldest:
        return ""
    return f"CUDA {cuda} needs driver {oldest} or newer"
