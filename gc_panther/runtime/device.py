"""Which device the networks run on, and whether it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gc_panther.errors import DeviceError
from gc_panther.text import count

logger = logging.getLogger(__name__)

#: Below this much free GPU memory a full-size network with its windows does not fit, GiB.
MIN_FREE_GIB = 4.0

#: torch releases whose half-precision 3-D convolutions left cuDNN and became several times slower.
SLOW_CONV3D = ("2.9", "2.10")

#: Half precision has a relative error of 2^-11 per product; a sum of 432 of them stays far below.
MAX_CONVOLUTION_ERROR = 1e-2


@dataclass(frozen=True)
class Device:
    """A checked device.

    Attributes:
        name: torch's name: ``cpu`` or ``cuda:0``.
        description: what a person reads.
        notes: what is worth knowing about it, one sentence each.
    """

    name: str
    description: str
    notes: tuple[str, ...] = ()


def select_device(
    wanted: str = "auto",
    *,
    require_gpu: bool = False,
    torch: Any = None,
    self_test: Callable[[str], float] | None = None,
) -> Device:
    """Choose and check the device.

    Args:
        wanted: ``auto`` (a GPU that can be used, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: do not fall back on the CPU.
        torch: the torch module; tests pass another.
        self_test: :func:`half_convolution_error` if None, run on a GPU; tests pass another.

    Raises:
        DeviceError: the device is absent or cannot run the networks.
    """
    if torch is None:
        import torch
    if wanted not in ("auto", "cpu", "cuda") and not (
        wanted.startswith("cuda:") and wanted[5:].isdigit()
    ):
        raise DeviceError(f"there is no device {wanted!r}", fix="Choose auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        if require_gpu:
            raise DeviceError(
                "the CPU was chosen although a GPU is required",
                fix="Drop --require-gpu or choose --device cuda",
            )
        return _cpu(torch)
    try:
        device = _cuda(int(wanted[5:]) if ":" in wanted else 0, torch)
        _check_half_convolution(device.name, self_test or half_convolution_error)
        return device
    except DeviceError as error:
        if wanted != "auto" or require_gpu:
            raise
        return _cpu(torch, f"No GPU is used: {error.what}")


def _check_half_convolution(device: str, self_test: Callable[[str], float]) -> None:
    error = self_test(device)
    # Not the other way round: NaN is no error that passes.
    if not error <= MAX_CONVOLUTION_ERROR:
        raise DeviceError(
            f"half-precision 3-D convolutions on {device} are off by {error:.1e}",
            fix="Install another torch or driver, or use --device cpu",
        )


def half_convolution_error(device: str) -> float:
    """The greatest difference between a 3-D convolution in half and in single precision.

    Some releases of torch and cuDNN compute it wrongly on some GPUs, which no version check finds.

    Args:
        device: torch's name.

    Returns:
        A part of the greatest value; some 1e-4 where all is well.
    """
    import torch

    random = torch.Generator().manual_seed(0)
    image = torch.randn(1, 16, 16, 32, 32, generator=random).to(device)
    kernel = (torch.randn(16, 16, 3, 3, 3, generator=random) / 20).to(device)
    exact = torch.nn.functional.conv3d(image, kernel, padding=1)
    half = torch.nn.functional.conv3d(image.half(), kernel.half(), padding=1).float()
    return float((exact - half).abs().max() / exact.abs().max())


def _cpu(torch: Any, *notes: str) -> Device:
    return Device("cpu", f"CPU, {count(torch.get_num_threads(), 'thread')}", notes)


def _cuda(index: int, torch: Any) -> Device:
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        raise DeviceError(
            "no usable CUDA device was found" if built else "this torch is built without CUDA",
            fix="Check the driver with nvidia-smi and start the container with --gpus all"
            if built
            else "Install a CUDA build of torch, or use --device cpu",
        )
    if index >= torch.cuda.device_count():
        raise DeviceError(
            f"there is no GPU {index} (found: {torch.cuda.device_count()})",
            fix="GPUs are counted from 0",
        )
    name = torch.cuda.get_device_name(index)
    major, minor = torch.cuda.get_device_capability(index)
    if not _supported(major, minor, torch.cuda.get_arch_list()):
        raise DeviceError(
            f"this torch has no code for the compute capability {major}.{minor} of {name}",
            fix="Install a torch build for this GPU, or use --device cpu",
        )
    free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info(index))
    notes = []
    if free < MIN_FREE_GIB:
        notes.append(
            f"Only {free:.1f} of {total:.1f} GiB of GPU memory are free; "
            f"full-size networks need about {MIN_FREE_GIB:.0f}"
        )
    version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    if version in SLOW_CONV3D:
        notes.append(
            f"torch {version} computes half-precision 3-D convolutions without cuDNN, "
            "several times slower; use 2.8 or 2.11 and newer"
        )
    return Device(f"cuda:{index}", f"{name}, {free:.1f} of {total:.1f} GiB free", tuple(notes))


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
