"""Packs as they are deployed: weights, and the graph that OpenVINO would otherwise convert."""

from __future__ import annotations

import logging
from pathlib import Path

from gc_panther.errors import ProcessingError
from gc_panther.model_identity import ModelIdentity
from gc_panther.nnunet.inference.ensemble import openvino_graph
from gc_panther.nnunet.inference.openvino_graph import GRAPH_FILE, is_installed
from gc_panther.nnunet.model.folder import ModelFolder
from gc_panther.nnunet.model.manifest import PackManifest
from gc_panther.nnunet.model.pack import write_pack

log = logging.getLogger(__name__)


def pack_model(
    model: ModelFolder, out: Path, *, half: bool = False, identity: ModelIdentity | None = None
) -> PackManifest:
    """Write a pack with OpenVINO's graph, where OpenVINO is installed and can run the network.

    Args:
        model: an opened folder, itself a pack or not.
        out: folder to make; it appears when all is written.
        half: store the weights in half precision, for GPUs; no graph then.
        identity: what the pack says about itself; by default what the folder says.

    Raises:
        UserError: the folder is there already.
        WeightsError: a checkpoint is damaged, or half precision cannot hold its weights.
    """
    extra = {}
    if is_installed() and not half:
        try:
            extra[GRAPH_FILE] = openvino_graph(model).model_dump_json() + "\n"
        except ProcessingError as error:
            log.warning("the pack gets no OpenVINO graph: %s", error)
    return write_pack(model, out, half=half, extra=extra, identity=identity)
