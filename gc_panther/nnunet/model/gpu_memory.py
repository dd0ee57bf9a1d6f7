"""How much of a GPU's memory a model takes, estimated from its plans.

``python -m gc_panther.nnunet.model.gpu_memory MODEL_FOLDER…`` compares it with the platform's GPUs.

Per window, in half precision, these maps exist at the same time: the skip connections of all
stages, four further maps of one stage (the decoder's concatenated input, which counts twice, its
convolution's output and the normalized copy; a residual block holds no more) and the map that comes
up from the stage below. The stage where they take most counts. cuDNN's workspaces and the free
blocks that the allocator keeps make it :data:`OVERHEAD` times as much. That factor is from one
measurement (docs/performance.md): ResEnc-M with windows of 48 × 160 × 224 voxels, eight at once,
took 10.59 GiB of an H100.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gc_panther.errors import GCPantherError
from gc_panther.text import count

_HALF, _GIB = 2, 2**30
#: Maps of one stage that exist at the same time, in addition to its skip connection.
_MAPS = 4
#: Memory taken, as a multiple of the maps.
OVERHEAD = 1.9
#: CUDA's context and libraries, the image and its sums, bytes.
FIXED = _GIB
#: Memory that the driver reports for the platform's GPUs with error correction (nominally 16 and
#: 24 GB), GiB.
PLATFORM_GPUS = {"T4": 14.75, "A10G": 22.5}


@dataclass(frozen=True)
class NetworkSize:
    """What the memory of a network depends on.

    Attributes:
        patch: spatial shape of a window.
        features: channels of each stage, the one of full resolution first.
        strides: of each stage, relative to the one before, per axis.
        parameters: number of the network's parameters.
    """

    patch: Sequence[int]
    features: Sequence[int]
    strides: Sequence[Sequence[int]]
    parameters: int


def estimate(network: NetworkSize, windows: int) -> int:
    """Bytes of GPU memory that inference takes in half precision.

    Args:
        network: its size.
        windows: how many go through the network at once.
    """
    maps = _stage_bytes(network)
    below = [*maps[1:], 0]
    peak = sum(maps) + max(_MAPS * own + lower for own, lower in zip(maps, below, strict=True))
    return math.ceil(FIXED + _HALF * network.parameters + OVERHEAD * windows * peak)


def _stage_bytes(network: NetworkSize) -> list[int]:
    """Bytes of one map of each stage, for one window."""
    shape, found = list(network.patch), []
    for features, stride in zip(network.features, network.strides, strict=True):
        shape = [math.ceil(size / step) for size, step in zip(shape, stride, strict=True)]
        found.append(_HALF * features * math.prod(shape))
    return found


def windows_that_fit(network: NetworkSize, memory: float, most: int) -> int:
    """How many windows at once fit into a GPU's memory, halved from ``most`` as inference does.

    Args:
        network: its size.
        memory: of the GPU, bytes.
        most: windows at once if memory allows.

    Returns:
        0 where not even one does.
    """
    windows = most
    while windows and estimate(network, windows) > memory:
        windows //= 2
    return windows


def compared(name: str, network: NetworkSize, windows: int) -> Iterator[str]:
    """Say for each of the platform's GPUs whether a network fits, one line each."""
    needed = estimate(network, windows) / _GIB
    at_once = f"{count(windows, 'window')} at once"
    for gpu, memory in PLATFORM_GPUS.items():
        start = f"{name}: about {needed:.1f} GiB with {at_once}; {gpu} has {memory:g} GiB"
        fitting = windows_that_fit(network, memory * _GIB, windows)
        if fitting == windows:
            yield f"{start}: it fits"
        elif fitting:
            yield f"{start}: only {fitting} at once fit, which takes longer"
        else:
            least = estimate(network, 1) / _GIB
            yield f"{start}: too much, one window alone takes {least:.1f} GiB"


def network_size(folder: Path) -> NetworkSize:
    """The size of a model folder's network.

    Raises:
        WeightsError: the folder is incomplete, or its plans cannot be used.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from gc_panther.nnunet.model.folder import open_model_folder
    from gc_panther.nnunet.model.network import build_network, fitting_plans

    model = open_model_folder(folder)
    with fitting_plans(model):
        configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
        network = build_network(configuration, len(model.labels))
        arguments = configuration.network_arch_init_kwargs
        stages = int(arguments["n_stages"])
        return NetworkSize(
            patch=tuple(int(size) for size in configuration.patch_size),
            features=_per_stage(arguments["features_per_stage"], stages),
            strides=[
                [stride] * 3 if isinstance(stride, int) else stride
                for stride in _per_stage(arguments["strides"], stages)
            ],
            parameters=sum(value.numel() for value in network.parameters()),
        )


def _per_stage(values: Any, stages: int) -> list[Any]:
    """One value per stage, where the plans may give one for all."""
    listed = [values] if isinstance(values, int) else list(values)
    return listed * stages if len(listed) == 1 else listed


def main(folders: Sequence[str]) -> int:
    """Compare the models with the platform's GPUs; 1 where one could not be read."""
    import torch

    from gc_panther.nnunet.inference.backends import batch_size

    for folder in map(Path, folders):
        try:
            network = network_size(folder)
        except GCPantherError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        windows = batch_size(torch.device("cuda"), network.patch)
        for line in compared(folder.name, network, windows):
            print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
