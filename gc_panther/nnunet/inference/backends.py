"""What computes a network's passes: PyTorch, or OpenVINO on a CPU."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from gc_panther.errors import GCPantherError, UserError, WeightsError, clear_memory_errors
from gc_panther.nnunet.inference.openvino_graph import (
    CompiledGraph,
    Graph,
    compile_graph,
    find_graph,
    is_installed,
)
from gc_panther.nnunet.inference.precision import (
    CONVOLUTIONS,
    FLOAT32,
    Choice,
    precision_on_this_gpu,
    tf32_convolutions,
)
from gc_panther.nnunet.options import Backend

logger = logging.getLogger(__name__)

#: Windows of up to so many voxels go through the network in pairs on a CPU.
_SMALL_WINDOW = 2**20
#: Windows that go through the network at once on a GPU, while its memory allows it: all mirrored
#: copies of one.
_GPU_BATCH = 8
#: Compiled folds are kept for the next case where their weights take no more bytes than this.
_KEPT_BYTES = 2**28

Weights = Mapping[str, torch.Tensor]
Network = Callable[[torch.Tensor], torch.Tensor]


class Runner(Protocol):
    """Computes the passes of one fold after the other.

    Attributes:
        name: what the report calls it.
        batch: windows per pass.
        choice: the precision of the passes, and why.
    """

    name: str
    batch: int
    choice: Choice

    def load(self, fold: int, weights: Weights) -> Network:
        """Make a fold ready; the callable maps (n, 1, *patch) to (n, heads, *patch), n ≤ batch."""


class TorchRunner:
    """PyTorch: single precision on a CPU; on a GPU half precision where autocast computes in it.

    Instead of casting the weights of each layer at each pass, as autocast does, the weights of
    convolutions are cast once per fold; normalisations keep theirs in single precision. The
    results are autocast's, bit by bit. Where half precision cannot be used, a GPU computes in
    single precision, and in TF32 only where that is the choice.

    cuDNN chooses its algorithms by its heuristics. The search for the fastest, which nnU-Net
    switches on, took an H100 almost six seconds of a first case of ResEnc-M and made later ones no
    faster than by 2 % (docs/performance.md).

    Args:
        network: on the meta device; each fold brings its tensors.
        device: where the passes run.
        patch: spatial shape of a window.
        choice: the precision; :func:`choose_runner` makes it for a GPU.
    """

    name = "torch"

    def __init__(
        self,
        network: torch.nn.Module,
        device: torch.device,
        patch: Sequence[int],
        choice: Choice = FLOAT32,
    ) -> None:
        self.choice = choice
        self._network = network
        self._device = device
        self._half = choice.precision == "half"
        self._cast = half_precision_parameters(network) if self._half else frozenset[str]()
        self.batch = batch_size(device, patch)

    def load(self, fold: int, weights: Weights) -> Network:
        """Put a fold's weights into the network."""
        self._network.load_state_dict(
            {
                name: value.to(self._device, torch.half if name in self._cast else value.dtype)
                for name, value in weights.items()
            },
            assign=True,
        )
        network = self._network.eval()
        passes = (lambda tiles: network(tiles.half())) if self._half else network
        if self._device.type != "cuda":
            return passes
        return keeping_pace(passes if self._half else self._in_single_precision(network))

    def _in_single_precision(self, network: Network) -> Network:
        def passes(tiles: torch.Tensor) -> torch.Tensor:
            with tf32_convolutions(allowed=self.choice.precision == "tf32"):
                return network(tiles)

        return passes


def keeping_pace(network: Network) -> Network:
    """A network on a GPU that is never more than one pass ahead of what the GPU has done.

    Calls only put work into the GPU's queue. Without a limit the progress would be complete before
    the first pass is, and a deadline would be kept by the queue alone.
    """
    ends: deque[torch.cuda.Event] = deque()

    def passes(tiles: torch.Tensor) -> torch.Tensor:
        answer = network(tiles)
        ends.append(torch.cuda.Event())
        ends[-1].record()
        if len(ends) > 1:
            ends.popleft().synchronize()
        return answer

    return passes


def half_precision_parameters(network: torch.nn.Module) -> frozenset[str]:
    """Names of the parameters that autocast casts to half precision: those of convolutions."""
    return frozenset(
        f"{name}.{parameter}" if name else parameter
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, CONVOLUTIONS)
        for parameter, _ in module.named_parameters(recurse=False)
    )


class OpenVINORunner:
    """OpenVINO on a CPU, single precision.

    Args:
        graph: the network.
        patch: spatial shape of a window.
        folder: of the model, for messages.
    """

    def __init__(self, graph: Graph, patch: Sequence[int], folder: Path) -> None:
        from importlib import metadata

        self.name = f"openvino {metadata.version('openvino')}"
        self.batch = batch_size(torch.device("cpu"), patch)
        self.choice = FLOAT32
        self._graph = graph
        self._folder = folder
        self._patch = tuple(patch)
        self._kept: dict[int, CompiledGraph] = {}
        self._latest: CompiledGraph | None = None

    def load(self, fold: int, weights: Weights) -> Network:
        """Compile the graph with a fold's weights, or take it from an earlier case."""
        if self._latest is not None:
            # What the passes of one fold took would stay taken during the next fold's.
            self._latest.release_memory()
        compiled = self._kept.get(fold) or self._compiled(weights)
        self._latest = compiled
        if _bytes(weights) * (len(self._kept) + 1) <= _KEPT_BYTES:
            self._kept[fold] = compiled

        def network(tiles: torch.Tensor) -> torch.Tensor:
            missing = self.batch - len(tiles)
            if missing:
                tiles = torch.cat([tiles, tiles[:1].expand(missing, *tiles.shape[1:])])
            # A copy, because OpenVINO uses its output's memory again.
            return torch.from_numpy(compiled(tiles.numpy())[0].copy())[: self.batch - missing]

        return network

    def _compiled(self, weights: Weights) -> CompiledGraph:
        try:
            with clear_memory_errors("preparing the networks"):
                return compile_graph(self._graph, weights, self._patch, self.batch)
        # A graph that was changed by hand, or by an OpenVINO of another time.
        except (RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(
                f"the model's OpenVINO graph cannot be used ({str(error)[:200]})",
                where=self._folder,
                fix="Make the pack again with gc-panther pack, or use --backend torch",
            ) from error


def _bytes(weights: Weights) -> int:
    """Size of the weights; a network has some of them under several names."""
    return sum({value.data_ptr(): value.nbytes for value in weights.values()}.values())


def choose_runner(
    wanted: Backend,
    device: torch.device,
    folder: Path,
    architecture: Any,
    network: torch.nn.Module,
    patch: Sequence[int],
) -> Runner:
    """The runner a user asked for, or the fastest one that this machine can run.

    Args:
        wanted: ``auto`` takes OpenVINO on a CPU where it is installed.
        device: where the passes run.
        folder: the model folder, which may hold an OpenVINO graph.
        architecture: JSON-compatible description of the network.
        network: on the meta device.
        patch: spatial shape of a window.

    Raises:
        UserError: OpenVINO was asked for and cannot be used.
    """
    problem, fix = "", ""
    if device.type != "cpu":
        problem, fix = "the openvino backend runs on a CPU", "Give --device cpu too"
    elif not is_installed():
        problem, fix = "OpenVINO is not installed", "pip install 'gc-panther[openvino]'"
    if wanted == "openvino" and problem:
        raise UserError(problem, fix=fix)
    if wanted != "torch" and not problem:
        try:
            graph = find_graph(folder, architecture, network, patch)
            return OpenVINORunner(graph, patch, folder)
        # Whatever a converter cannot do, PyTorch can.
        except (GCPantherError, ImportError, RuntimeError, TypeError, ValueError) as error:
            if wanted == "openvino":
                raise UserError(
                    f"OpenVINO cannot run this network ({error})", where=folder
                ) from error
            logger.warning("OpenVINO cannot run this network, torch does: %s", error)
    if device.type == "cpu":
        return TorchRunner(network, device, patch)
    choice = precision_on_this_gpu(network, device, patch, batch_size(device, patch))
    if choice.reason:
        logger.warning(
            "%s: the networks compute in %s: %s", folder, choice.precision, choice.reason
        )
    return TorchRunner(network, device, patch, choice)


def batch_size(device: torch.device, patch: Sequence[int]) -> int:
    """Mirrored windows per forward pass.

    On a CPU, torch leaves a 3-D convolution of one small sample (fewer than 20480 voxels of
    channels × depth × height, ``ConvParams::use_mkldnn`` in ATen's Convolution.cpp) to a kernel
    some times slower than oneDNN's; two samples go to oneDNN. Large windows gain nothing.
    """
    if device.type != "cpu":
        return _GPU_BATCH
    return 2 if math.prod(patch) <= _SMALL_WINDOW else 1
