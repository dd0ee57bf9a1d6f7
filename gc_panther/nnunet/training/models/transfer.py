"""Starts a network from the weights of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gc_panther.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

#: Part of the names of nnU-Net's segmentation heads.
HEADS = ".seg_layers."
#: How many tensors that do not fit are named.
SHOWN = 3


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did.

    Attributes:
        transferred: names of the parameters that were taken over.
        fresh: names of the network's parameters that keep their random start, heads or others.
        unused: names of the source's parameters that have no place in the network.
    """

    transferred: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """One line; fresh parameters are named."""
        rest = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return f"{len(self.transferred)} of {len(self.transferred) + len(self.fresh)} taken{rest}"


def transfer_weights(
    network: nn.Module,
    weights: Mapping[str, Any],
    *,
    heads: bool,
    rows: Sequence[int] | None = None,
) -> TransferReport:
    """Copy weights by name and shape; all of them have to fit, fresh segmentation heads excepted.

    Args:
        network: is changed in place.
        weights: ``network_weights`` of a checkpoint.
        heads: whether segmentation heads are taken, too. Heads of other labels must not be, even
            where their shape fits.
        rows: which of the heads' outputs are taken, in this order, where the source has more
            labels than the network.

    Raises:
        WeightsError: a tensor does not fit.
    """
    own = network.state_dict()
    if heads and rows is not None:
        weights = {
            name: tensor[list(rows)] if HEADS in name else tensor
            for name, tensor in weights.items()
        }
    require_fit(own, weights, heads=heads)
    taken = {name: tensor for name, tensor in weights.items() if heads or HEADS not in name}
    network.load_state_dict({**own, **taken})
    return TransferReport(
        tuple(sorted(taken)),
        tuple(sorted(own.keys() - taken.keys())),
        tuple(sorted(weights.keys() - taken.keys())),
    )


def require_fit(own: Mapping[str, Any], weights: Mapping[str, Any], *, heads: bool) -> None:
    """See that weights are those of a network, tensor by tensor.

    Args:
        own: the network's state.
        weights: of the model to start from.
        heads: whether segmentation heads have to fit, too.

    Raises:
        WeightsError: a tensor is missing, has another shape or no place in the network. The message
            has the counts and the first names.
    """
    wanted = {name for name in own if heads or HEADS not in name}
    given = {name for name in weights if heads or HEADS not in name}
    fitting = {name for name in wanted & given if own[name].shape == weights[name].shape}
    if fitting == wanted == given:
        return
    names = [n for n in own if n in wanted - fitting] + [n for n in weights if n in given - wanted]
    further = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise WeightsError(
        f"{len(fitting)} of {len(wanted | given)} tensors fit the network by name and shape; "
        f"not {', '.join(names[:SHOWN])}{further}",
        fix="Start from a model of the same architecture",
    )


def read_weights(source: Path) -> dict[str, Any]:
    """Weights to start from, read without running code.

    Args:
        source: a model folder or weights pack, whose first fold is read, or a checkpoint.

    Raises:
        WeightsError: it is missing, damaged, holds code, or is not an nnU-Net model.
    """
    from gc_panther.nnunet.model.folder import open_model_folder, read_checkpoint

    if source.is_dir():
        model = open_model_folder(source)
        return dict(model.read_weights(min(model.checkpoints)))
    weights: dict[str, Any] = read_checkpoint(source)["network_weights"]
    return weights
