"""The tensors of a file, before anything is computed with them."""

from __future__ import annotations

import copy
import logging
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gc_panther.errors import WeightsError

logger = logging.getLogger(__name__)

#: Types that become single precision, in which networks are computed; others are refused.
_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
#: What nnU-Net's networks hold besides weights: how many batches a norm has seen.
_COUNTER = torch.int64
_COMPILED = "_orig_mod."
_DAMAGED = "It is incomplete or damaged; copy it again"


def read_intact(weights: Mapping[Any, Any], path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint that is mapped into memory, read and compared with its checksums.

    The copy lets go of the mapped file, half of which is the optimizer's. Reading a mapped file
    compares no checksum; of the tensors that are used it is done here.

    Raises:
        WeightsError: as :func:`sound_weights`, or the file was changed after it was written.
    """
    check_tensors(weights, path)
    weights = copy.deepcopy(dict(weights))
    with zipfile.ZipFile(path) as archive:
        written = {(entry.file_size, entry.CRC) for entry in archive.infolist()}
    seen: set[int] = set()
    for name, value in weights.items():
        storage = value.untyped_storage()
        if storage.data_ptr() in seen:
            continue
        seen.add(storage.data_ptr())
        content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        if (storage.nbytes(), zlib.crc32(content.data)) not in written:
            raise WeightsError(
                f"the weights are not those that were saved (the checksum differs in {name[:80]})",
                where=path,
                fix=_DAMAGED,
            )
    return sound_weights(weights, path)


def sound_weights(weights: Mapping[Any, Any], path: Path) -> dict[str, torch.Tensor]:
    """Weights by name, in single precision and finite.

    Tensors that share memory still do. Half and double precision are converted, with a line in the
    log.

    Raises:
        WeightsError: a name is not text, a value is not a plain tensor of floating point numbers
            (or a counter), or a number is not finite in single precision.
    """
    check_tensors(weights, path)
    single = _single_precision(weights, path)
    for name, value in single.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(
                f"the weights hold NaN or infinity (in {name[:80]})",
                where=path,
                fix="The training diverged or the file is damaged; train or copy it again",
            )
    # Networks that were compiled while training carry the wrapper's name.
    renamed = {name.removeprefix(_COMPILED): value for name, value in single.items()}
    if len(renamed) < len(single):
        raise WeightsError("two network weights have the same name", where=path, fix=_DAMAGED)
    return renamed


def check_tensors(weights: Mapping[Any, Any], path: Path) -> None:
    """Refuse what is not the plain state of a network; no content is read.

    Raises:
        WeightsError: as :func:`sound_weights`.
    """
    for name, value in weights.items():
        problem = "" if isinstance(name, str) else "the name of a network weight is not text"
        problem = problem or _problem(value)
        if problem:
            raise WeightsError(
                problem,
                where=f"{path} ({str(name)[:80]})",
                fix="Save the network's state_dict again, in single precision",
            )


def _problem(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a network weight is a {type(value).__name__}, not a tensor"
    if value.layout is not torch.strided or value.is_nested or value.device.type != "cpu":
        return "a network weight is not a dense tensor"
    if value.dtype not in _FLOATING and not (value.dtype == _COUNTER and value.ndim == 0):
        return f"a network weight is of type {str(value.dtype).removeprefix('torch.')}"
    # A view that repeats its memory could be of any size.
    if math.prod(value.shape) * value.element_size() > value.untyped_storage().nbytes():
        return "a network weight is larger than its memory"
    return ""


def _single_precision(weights: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    converted: dict[tuple[Any, ...], torch.Tensor] = {}
    single, types = {}, set()
    for name, value in weights.items():
        if value.dtype in (torch.float32, _COUNTER):
            single[name] = value
            continue
        types.add(str(value.dtype).removeprefix("torch."))
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if place not in converted:
            converted[place] = value.float()
        single[name] = converted[place]
    if types:
        logger.info("converted weights of type %s to float32: %s", ", ".join(sorted(types)), path)
    return single
