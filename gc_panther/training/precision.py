"""Mixed precision on a CPU, which nnU-Net has on GPUs only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them it is slower than float32."""
    # torch 2.8, which is allowed, cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def pass_in_bfloat16(network: nn.Module) -> None:
    """Let a network's passes, forward and backward, compute in bfloat16 where torch deems it safe.

    The parameters and their gradients stay float32, and so do the outputs, since a loss that sums
    over a patch needs more than bfloat16's 8 bits.

    Args:
        network: is changed in place; its state dict stays the same. It returns a tensor or, with
            deep supervision, a list of tensors.
    """
    forward = network.forward

    def mixed(*inputs: Any, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = forward(*inputs, **options)
        if isinstance(outputs, torch.Tensor):
            return outputs.float()
        return [output.float() for output in outputs]

    network.forward = mixed
