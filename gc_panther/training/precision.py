"""A training iteration made cheaper on a CPU: mixed precision, and channels last throughout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn


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
            module.forward = partial(_normalize, module)  # type: ignore[method-assign]


def _normalize(norm: nn.InstanceNorm3d, batch: torch.Tensor) -> torch.Tensor:
    normalized: torch.Tensor = _SampleNorm.apply(batch, norm.weight, norm.bias, norm.eps)
    return normalized


class _SampleNorm(torch.autograd.Function):
    """Batch norm of one sample after the other, whose gradients one thread computes.

    Channels last, torch's threads add up the gradients of their voxels in rows of one small buffer.
    With a network's few channels several rows lie in one cache line, for which the threads fight:
    two of them took 3.5 times as long as one (torch 2.13; a third of a training's time).
    """

    @staticmethod
    def forward(
        ctx: Any,
        batch: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        """Normalise each sample, shape (n, channels, i, j, k), over its own voxels."""
        found = [
            torch.native_batch_norm(sample, weight, bias, None, None, True, 0.0, eps)
            for sample in batch.split(1)
        ]
        means, inverse_deviations = [one[1] for one in found], [one[2] for one in found]
        ctx.save_for_backward(batch, weight, *means, *inverse_deviations)
        ctx.eps = eps
        return torch.cat([one[0] for one in found])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the batch and, summed over its samples, of weight and bias."""
        batch, weight, *moments = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = [
                torch.ops.aten.native_batch_norm_backward(
                    gradient, sample, weight, None, None, *both, True, ctx.eps, wanted
                )
                for gradient, sample, *both in zip(
                    gradients[0].split(1),
                    batch.split(1),
                    moments[: len(batch)],
                    moments[len(batch) :],
                    strict=True,
                )
            ]
        finally:
            torch.set_num_threads(threads)
        of_batch, of_weight, of_bias = (
            [one[part] for one in found] if wanted[part] else None for part in range(3)
        )
        return (
            None if of_batch is None else torch.cat(of_batch),
            None if of_weight is None else torch.stack(of_weight).sum(0),
            None if of_bias is None else torch.stack(of_bias).sum(0),
            None,
        )
