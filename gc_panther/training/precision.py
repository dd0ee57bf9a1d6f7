"""A training iteration made cheaper on a CPU: mixed precision, and channels last throughout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def computes_bfloat16() -> bool:
    """Whether the CPU has matrix units for bfloat16 (AMX).

    Plain AVX-512 instructions for it do not count, although torch would use them. The weight
    gradients of small 3-D convolutions (torch 2.13, oneDNN; 64 channels over 2 x 5 x 6 voxels, say)
    then take in memory that nobody has written: a training ended in NaN, and other sizes corrupted
    the heap. They are hardly faster than float32, either.
    """
    # torch 2.8, which is allowed, cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


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


def keep_channels_last(network: nn.Module) -> None:
    """Store a network's 3-D convolutions channels last, and normalise without leaving that order.

    oneDNN's convolutions of few channels are faster channels last. torch's instance norm is not
    written for it: it copies its input to channels first, the next convolution copies it back, and
    the gradients make the same detour. Batch norm stays channels last; over one sample it is
    instance norm.

    Args:
        network: is changed in place; its state dict stays the same, its outputs up to rounding.
    """
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm3d) and not module.track_running_stats:
            module.forward = partial(_normalize_each_sample, module)  # type: ignore[method-assign]


def _normalize_each_sample(norm: nn.InstanceNorm3d, batch: torch.Tensor) -> torch.Tensor:
    samples = [
        functional.batch_norm(
            sample, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
        )
        for sample in batch.split(1)
    ]
    return torch.cat(samples)
