"""Which device the networks run on, and whether it can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gc_panther.errors import DeviceError
from gc_panther.nnunet.cudnn import GOOD_RELEASES, convolution_faults
from gc_panther.runtime.driver import driver_version, too_old
from gc_panther.text import count

#: Below this much free GPU memory a full-size network with its windows does not fit, GiB.
MIN_FREE_GIB = 4.0

#: Of compute capability 8.6, such as A10G (https://github.com/pytorch/pytorch/pull/188318).
NOT_DETERMINISTIC = (
    "Masks can differ in single voxels from run to run: cuDNN's engine 5 on this GPU"
)


@dataclass(frozen=True)
class Device:
    """A checked device.

    Attributes:
        name: torch's name: ``cpu`` or ``cuda:0``.
        description: what a person reads.
        notes: what is worth knowing about it, one sentence each.
        warnings: what may cost time or memory and can be changed, one sentence each.
    """

    name: str
    description: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def select_device(
    wanted: str = "auto",
    *,
    require_gpu: bool = False,
    torch: Any = None,
    driver: Callable[[], str | None] = driver_version,
) -> Device:
    """Choose and check the device.

    The precision of its convolutions depends on the networks:
    :mod:`gc_panther.nnunet.inference.precision`.

    Args:
        wanted: ``auto`` (a GPU that can be used, otherwise the CPU), ``cpu``, ``cuda`` or
            ``cuda:N``.
        require_gpu: do not fall back on the CPU.
        torch: the torch module; tests pass another.
        driver: the version of NVIDIA's driver, or None; asked only where no GPU can be used.

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
        return _cuda(int(wanted[5:]) if ":" in wanted else 0, torch)
    except DeviceError as error:
        found = driver()
        problem = _with_versions(error, torch, found)
    if wanted != "auto" or require_gpu:
        raise problem
    if found is None:
        return _cpu(torch, notes=(f"No GPU is used: {problem.what}",))
    # There is a GPU, and a run on the CPU may exceed the time limit.
    return _cpu(torch, warned=(f"No GPU is used: {problem}",))


def _with_versions(error: DeviceError, torch: Any, driver: str | None) -> DeviceError:
    """The error with the versions that have to fit together, and with the cause if they do not."""
    cuda = torch.version.cuda
    versions = (
        f"torch {torch.__version__}",
        f"built for CUDA {cuda}" if cuda else "built without CUDA",
        f"NVIDIA driver {driver}" if driver else "no NVIDIA driver",
    )
    needed = too_old(driver, cuda) if driver and cuda else ""
    what = f"{error.what} ({', '.join(versions)}{'; ' if needed else ''}{needed})"
    fix = error.fix
    if needed:
        fix = "Install a torch built for an older CUDA, such as torch 2.7.1, or a newer driver"
    return DeviceError(what, fix=fix)


def _cpu(torch: Any, notes: tuple[str, ...] = (), warned: tuple[str, ...] = ()) -> Device:
    return Device("cpu", f"CPU, {count(torch.get_num_threads(), 'thread')}", notes, warned)


def _cuda(index: int, torch: Any) -> Device:
    with warnings.catch_warnings():
        # torch warns of an old driver; the error here names it.
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if not available:
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
    warned = []
    if free < MIN_FREE_GIB:
        warned.append(
            f"Only {free:.1f} of {total:.1f} GiB of GPU memory are free; "
            f"full-size networks need about {MIN_FREE_GIB:.0f}"
        )
    try:
        cudnn = torch.backends.cudnn.version()
    except RuntimeError as error:
        raise DeviceError(
            f"this torch cannot use its cuDNN ({str(error)[:200]})",
            fix="Install torch anew, and take other copies of cuDNN out of LD_LIBRARY_PATH",
        ) from error
    faults = convolution_faults(torch.__version__, cudnn)
    if faults.reason:
        warned.append(f"{faults.reason}; {GOOD_RELEASES}")
    notes = (NOT_DETERMINISTIC,) if (major, minor) == (8, 6) else ()
    description = f"{name}, {free:.1f} of {total:.1f} GiB free"
    return Device(f"cuda:{index}", description, notes, tuple(warned))


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
