"""A network's computation as an OpenVINO graph, kept apart from its weights.

Converting a PyTorch network takes seconds, and the result depends on the architecture alone. So it
is converted once, and the graph has an input in the place of each weight, with the parameter's
name. Any fold's weights replace these inputs in no time. The graph is made when a pack is made, or
at first use into a cache.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from gc_panther.errors import ProcessingError, WeightsError
from gc_panther.files import whole_file
from gc_panther.settings import cache_folder

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

#: Name of the file in a pack.
GRAPH_FILE = "openvino.json"
#: Largest difference of an answer from PyTorch's, as a part of the largest logit.
TOLERANCE = 1e-4
#: More bytes are a weight, not a constant that all folds share.
MAX_CONSTANT = 4096


class Graph(BaseModel):
    """An OpenVINO model whose weights are still to be filled in.

    Attributes:
        xml: the model in OpenVINO's intermediate representation. Its inputs are the image and,
            with the parameters' names, the weights.
        constants: content of its constants, hexadecimal.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    xml: str
    constants: Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]


def is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported for the answer."""
    return util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry package, which reports each import and conversion.

    Where images of patients are, nothing may call home; without the package OpenVINO does not.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def _core() -> Any:
    """OpenVINO's entry point: one, for as long as the process lives.

    Its plugin for CPUs gives the thread that loads it an alternate stack for signal handlers. When
    the plugin is unloaded, it frees that stack, but takes it from the thread only if no other one
    was loaded meanwhile and this is the same thread (OpenVINO 2026.4.1). With one core for each
    network, the first signal after the networks were gone was a segmentation fault.
    """
    return import_openvino().Core()


def convert(network: torch.nn.Module, patch: Sequence[int]) -> Graph:
    """Convert a network and check that the graph answers as PyTorch does.

    The check uses other weights than the conversion: a number of the network that was not
    recognised, and therefore not exchanged, shows.

    Args:
        network: one input channel, no deep supervision; on any device, such as meta. Its weights
            play no part.
        patch: spatial shape of its input.

    Raises:
        ProcessingError: the network cannot be expressed so.
    """
    import numpy as np
    import torch

    ov = import_openvino()
    network = copy.deepcopy(network).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    example = torch.randn((1, 1, *patch), generator=generator)
    _randomise(network, generator)
    with torch.inference_mode():
        converted = ov.convert_model(network, example_input=example)
    _name_weights(converted, network)
    # Its own names count what this process has made before; the same network is to give the
    # same graph.
    converted.set_friendly_name("network")
    for number, result in enumerate(converted.get_results()):
        result.set_friendly_name(f"result_{number}")
    with tempfile.TemporaryDirectory() as scratch:
        xml = Path(scratch) / "graph.xml"
        ov.save_model(converted, xml, compress_to_fp16=False)
        constants = xml.with_suffix(".bin").read_bytes()
        graph = Graph(xml=xml.read_text(encoding="utf-8"), constants=constants.hex())
    _randomise(network, generator)
    with torch.inference_mode():
        expected = network(example).numpy()
    compiled = compile_graph(graph, dict(network.named_parameters()), patch, 1)
    answer = np.asarray(compiled(example.numpy())[0])
    if not np.abs(answer - expected).max() <= TOLERANCE * np.abs(expected).max():
        raise ProcessingError("OpenVINO's answer differs from PyTorch's for this network")
    return graph


def _randomise(network: torch.nn.Module, generator: torch.Generator) -> None:
    """Give all parameters and buffers numbers as small as those of trained networks."""
    import torch

    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            # Positive, because a buffer may be a variance.
            random = 0.1 * torch.rand(value.shape, generator=generator)
            value.copy_(random if value.is_floating_point() else torch.ones_like(value))
        for parameter in network.parameters():
            parameter.sub_(0.05)


def _name_weights(model: Any, network: torch.nn.Module) -> None:
    """Replace the weights in an OpenVINO model by inputs with the parameters' names.

    The converter keeps the names of some weights only: it gives others, such as biases, the shape
    in which they are added and a name of its own. Their content is still the parameter's.

    Raises:
        ProcessingError: a weight is left.
    """
    import numpy as np
    from openvino import opset13 as ops

    names = {p.detach().numpy().tobytes(): name for name, p in network.named_parameters()}
    inputs = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant":
            continue
        if name := names.get(node.data.tobytes()):
            inputs.append(ops.parameter(list(node.get_output_shape(0)), np.float32, name=name))
            node.output(0).replace(inputs[-1].output(0))
        elif node.data.nbytes > MAX_CONSTANT:
            raise ProcessingError(
                "OpenVINO's converter changed a weight, so that it cannot be exchanged",
                fix="Choose the torch backend",
            )
    model.add_parameters(inputs)


class CompiledGraph(Protocol):
    """OpenVINO's compiled model, the part that is used here."""

    def __call__(self, array: Any) -> Any:
        """Map (batch, 1, *patch) to a list whose first is (batch, heads, *patch), float32."""

    def release_memory(self) -> None:
        """Give back what the passes needed; the next pass takes it again."""


def compile_graph(
    graph: Graph, weights: Mapping[str, torch.Tensor], patch: Sequence[int], batch: int
) -> CompiledGraph:
    """Compile a graph with its weights for windows of one shape.

    Single precision whatever the processor offers: half precision is less accurate.
    """
    import torch

    core = _core()
    model = core.read_model(model=graph.xml.encode(), weights=bytes.fromhex(graph.constants))
    _fill(model, weights)
    model.reshape([batch, 1, *patch])
    _average_in_steps(model)
    compiled: CompiledGraph = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        },
    )
    return compiled


def _fill(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights in the place of the inputs that have their names.

    Raises:
        WeightsError: a weight is missing.
    """
    from openvino import opset13 as ops

    for node in model.get_parameters()[1:]:
        name = node.get_friendly_name()
        if name not in weights:
            raise WeightsError(f"the weights lack {name[:80]}, which the OpenVINO graph needs")
        value = weights[name].detach().float().numpy().reshape(node.get_output_shape(0))
        node.output(0).replace(ops.constant(value).output(0))
        model.remove_parameter(node)


def _average_in_steps(model: Any) -> None:
    """Let a model's instance norms take their means in steps of few voxels each.

    OpenVINO's own operation (MVN) adds up a channel's voxels one after the other. A sum of many
    equal values, such as those of a window's padding, drifts away from the true one in single
    precision: logits of up to 41 were off by 0.06 on a scan with fewer slices than a window, where
    torch was off by 0.00002 (both against double precision). A mean of means of some 64 voxels each
    is as good as torch's. Pooling takes them: written with ReduceMean, axis by axis, the norms were
    as far off as MVN's (OpenVINO 2026.4.1).

    Args:
        model: an OpenVINO model whose inputs' shapes are known, (batch, channels, *spatial); it is
            changed. Norms over other axes than the spatial ones stay as they are.
    """
    import numpy as np

    # The model is there, so import_openvino has kept the telemetry package out already.
    from openvino import opset13 as ops

    for norm in model.get_ordered_ops():
        if norm.get_type_name() != "MVN":
            continue
        source, attributes = norm.input_value(0), norm.get_attributes()
        spatial = [int(size) for size in source.get_shape()][2:]
        axes = sorted(int(axis) for axis in norm.input_value(1).get_node().data.ravel())
        is_instance_norm = axes == list(range(2, 2 + len(spatial)))
        if not is_instance_norm or attributes["eps_mode"].upper() != "INSIDE_SQRT":
            continue
        centred = ops.subtract(source, _mean(source, spatial))
        variance = _mean(ops.multiply(centred, centred), spatial)
        stabilised = ops.add(variance, np.float32(attributes["eps"]))
        scaled = ops.multiply(centred, ops.power(stabilised, np.float32(-0.5)))
        norm.output(0).replace(scaled.output(0))
    model.validate_nodes_and_infer_types()


def _mean(values: Any, spatial: Sequence[int]) -> Any:
    """The mean of each channel, shape (batch, channels, 1, …), of (batch, channels, *spatial)."""
    from openvino import opset13 as ops

    zeros = [0] * len(spatial)
    while max(spatial) > 1:
        kernel = [_step(size) for size in spatial]
        values = ops.avg_pool(
            values, kernel, zeros, zeros, kernel, exclude_pad=False, rounding_type="floor"
        )
        spatial = [size // step for size, step in zip(spatial, kernel, strict=True)]
    return values


def _step(size: int) -> int:
    """How many of an axis' voxels are averaged at once: a divisor, at most 4 where there is one."""
    return next(n for n in (4, 3, 2, *range(5, size + 1), 1) if size % n == 0)


def find_graph(
    folder: Path, architecture: Any, network: torch.nn.Module, patch: Sequence[int]
) -> Graph:
    """The graph of a model: from its pack, from the cache, or converted now.

    Args:
        folder: the model folder.
        architecture: JSON-compatible description of the network.
        network: as for :func:`convert`.
        patch: as for :func:`convert`.
    """
    cached = cache_folder() / "openvino" / f"{_key(architecture, patch)}.json"
    for file in (folder / GRAPH_FILE, cached):
        if not file.is_file():
            continue
        try:
            return Graph.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.warning("the OpenVINO graph %s is unusable and is made again: %s", file, error)
    graph = convert(network, patch)
    try:
        with whole_file(cached) as kept:
            kept.write(graph.model_dump_json().encode())
    except OSError:
        # Nothing can be kept there, as in a container: it is converted again next time.
        logger.debug("no OpenVINO graph can be kept in %s", cached.parent)
    return graph


def _key(architecture: Any, patch: Sequence[int]) -> str:
    parts = [architecture, list(patch), metadata.version("openvino"), metadata.version("torch")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
