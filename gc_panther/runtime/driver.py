"""NVIDIA's driver and the GPUs it shows, found through NVML: no library has to be loaded for it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gc_panther.hardware import Driver, Gpu
from gc_panther.settings import cuda_visible_devices

logger = logging.getLogger(__name__)

#: What the kernel module says about itself; in containers that were given no GPU as well.
_MODULE = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"(?<![\w.])\d{3,}\.\d+(?:\.\d+)?(?![\w.])")


def find_driver() -> Driver | None:
    """Ask for the driver's version and the GPUs that this process may use.

    Returns:
        None where there is no driver. No GPU is listed where the driver cannot be asked: the
        container was started without GPUs, or driver and library do not fit together.
    """
    try:
        import pynvml
    except ImportError:
        return _from_kernel_module()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.debug("NVML: %s", error)
        return _from_kernel_module()
    try:
        version = str(pynvml.nvmlSystemGetDriverVersion())
        return Driver(version, _visible_gpus(pynvml, cuda_visible_devices()))
    except pynvml.NVMLError as error:
        logger.debug("NVML: %s", error)
        return _from_kernel_module()
    finally:
        pynvml.nvmlShutdown()


def _from_kernel_module() -> Driver | None:
    try:
        found = _VERSION.search(_MODULE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return Driver(found[0]) if found else None


def _visible_gpus(nvml: ModuleType, chosen: str | None) -> tuple[Gpu, ...]:
    """The GPUs in the order of ``CUDA_VISIBLE_DEVICES``.

    Without that variable they are in NVML's order, by PCI bus. CUDA's is the same where all GPUs of
    a machine are alike, or ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID``.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
    if chosen is None:
        return tuple(_gpu(nvml, handle) for handle in handles)
    if chosen.startswith("MIG-"):
        # CUDA uses one slice at most.
        part = _asked(nvml, nvml.nvmlDeviceGetHandleByUUID, chosen.partition(",")[0])
        return () if part is None else (_gpu(nvml, part),)
    uuids = [str(_asked(nvml, nvml.nvmlDeviceGetUUID, handle)) for handle in handles]
    return tuple(_gpu(nvml, handles[n]) for n in visible_indices(chosen, uuids))


def visible_indices(chosen: str, uuids: Sequence[str]) -> tuple[int, ...]:
    """Which GPUs ``CUDA_VISIBLE_DEVICES`` lets a process use, in CUDA's order.

    CUDA ignores a name that is not valid and all those after it, and shows no GPU where one is
    named twice (CUDA C++ Programming Guide, CUDA Environment Variables).

    Args:
        chosen: the variable: numbers, or UUIDs (``GPU-…``, which may be cut short); empty is none.
        uuids: of all GPUs, by number.
    """
    indices: list[int] = []
    for name in (part.strip() for part in chosen.split(",")):
        if name.isdecimal():
            fitting = [int(name)] if int(name) < len(uuids) else []
        else:
            fitting = [
                n
                for n, uuid in enumerate(uuids)
                if name.startswith("GPU-") and uuid.startswith(name)
            ]
        if len(fitting) != 1:
            break
        if fitting[0] in indices:
            return ()
        indices += fitting
    return tuple(indices)


def _gpu(nvml: ModuleType, handle: Any) -> Gpu:
    """A GPU as NVML describes it; a partitioned one's memory may be unknown in a container."""
    memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _asked(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        name=_asked(nvml, nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        capability=None if capability is None else (capability[0], capability[1]),
        free=None if memory is None else int(memory.free),
        total=None if memory is None else int(memory.total),
    )


def _asked(nvml: ModuleType, question: Callable[[Any], Any], subject: Any) -> Any:
    """NVML's answer; None where it has none."""
    try:
        return question(subject)
    except nvml.NVMLError as error:
        logger.debug("NVML: %s", error)
        return None
