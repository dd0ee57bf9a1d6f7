"""What is known of GPUs, the driver and the device that a task runs on: frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from gc_panther.errors import DeviceError


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use; None where something is unknown.

    Attributes:
        name: NVIDIA's name of the model.
        capability: its compute capability, major and minor.
        free: free memory, bytes.
        total: memory, bytes.
    """

    name: str
    capability: tuple[int, int] | None = None
    free: int | None = None
    total: int | None = None

    @property
    def description(self) -> str:
        """Name and memory, for people."""
        if self.free is None or self.total is None:
            return self.name
        return f"{self.name}, {self.free / 2**30:.1f} of {self.total / 2**30:.1f} GiB free"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: such as ``570.133.20``.
        gpus: those that this process may use, as CUDA numbers them.
    """

    version: str
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class DeviceCheck:
    """A library's check of a device that it would compute on.

    Attributes:
        versions: the library's version, and whatever of it has to fit the driver.
        problem: why it cannot use the device; None if it can.
        cause: which versions do not fit together, where that is the problem.
        gpu: the GPU as the library sees it; None if it was not asked about one.
        threads: how many it computes with on a CPU; None if that is unknown.
        notes: what is worth knowing, one sentence each.
        warnings: what may cost time or memory and can be changed, one sentence each.
    """

    versions: tuple[str, ...] = ()
    problem: DeviceError | None = None
    cause: str = ""
    gpu: Gpu | None = None
    threads: int | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """A checked device.

    Attributes:
        name: as torch and others name it: ``cpu`` or ``cuda:0``.
        description: what a person reads.
        notes: what is worth knowing about it, one sentence each.
        warnings: what may cost time or memory and can be changed, one sentence each.
    """

    name: str
    description: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def no_gpu() -> DeviceError:
    """The error where no GPU can be used at all."""
    return DeviceError(
        "no usable CUDA device was found",
        fix="Check the driver with nvidia-smi and start the container with --gpus all",
    )


def no_such_gpu(index: int, found: int) -> DeviceError:
    """The error where there are fewer GPUs than the chosen number.

    Args:
        index: the number, from 0.
        found: how many there are.
    """
    return DeviceError(f"there is no GPU {index} (found: {found})", fix="GPUs are counted from 0")
