"""Networks built from a model folder's plans; plans are data, so they choose among known layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gc_panther.errors import GCPantherError, WeightsError
from gc_panther.nnunet.model.folder import ModelFolder

#: Packages whose network classes and layers plans may name.
_TRUSTED_PACKAGES = ("dynamic_network_architectures.", "torch.nn.")


def build_network(configuration: Any, heads: int) -> torch.nn.Module:
    """The network that the plans describe, on the meta device: without memory for weights.

    No trainer's source is needed for it.

    Raises:
        WeightsError: the plans name something else than a known network or layer.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name, arguments = configuration.network_arch_class_name, configuration.network_arch_init_kwargs
    imported = configuration.network_arch_init_kwargs_req_import
    _refuse_unknown(name)
    for argument in imported:
        if arguments[argument] is not None:
            _refuse_unknown(arguments[argument])
    with torch.device("meta"), _NoInitialisation():
        network: torch.nn.Module = get_network_from_plans(
            name, arguments, imported, 1, heads, allow_init=False, deep_supervision=False
        )
    return network


class _NoInitialisation(TorchFunctionMode):
    """Leaves out what fills new weights: there are none yet.

    On the meta device torch 2.7 would import its compiler for it, which takes half a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _refuse_unknown(name: str) -> None:
    """Plans are data: they may choose among layers, but must not make Python call anything."""
    import pydoc

    trusted = name.startswith(_TRUSTED_PACKAGES)
    found = pydoc.locate(name) if trusted else None
    # nnU-Net searches for classes that moved; it finds them in the trusted packages only.
    if not trusted or not (
        found is None or (isinstance(found, type) and issubclass(found, torch.nn.Module))
    ):
        raise WeightsError(
            f"the plans name {name!r}, which is not a network layer of "
            f"{' or '.join(package.rstrip('.') for package in _TRUSTED_PACKAGES)}"
        )


@contextmanager
def fitting_plans(model: ModelFolder) -> Iterator[None]:
    """Say that the plans are wrong where nnU-Net stumbles over them."""
    try:
        yield
    except GCPantherError:
        raise
    # Whatever nnU-Net, its layers and torch say to values that have no meaning together.
    except Exception as error:
        raise WeightsError(
            f"the plans cannot be used ({type(error).__name__}: {str(error)[:200]})",
            where=model.path,
            fix="Copy plans.json from nnU-Net's results folder again",
        ) from error
