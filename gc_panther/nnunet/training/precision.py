"""A training iteration made cheaper on a CPU: mixed precision, and channels last throughout."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from gc_panther.nnunet.cudnn import GOOD_RELEASES, convolution_faults

log = logging.getLogger(__name__)

#: Numbers of float32 in a cache line of 64 bytes.
_LINE = 16


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
    """Instance norm of a batch that is stored channels last."""

    @staticmethod
    def forward(
        ctx: Any,
        batch: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        """Normalise each sample, shape (n, channels, i, j, k), over its own voxels."""
        batch = batch.contiguous(memory_format=torch.channels_last_3d)
        normalized = torch.empty_like(batch)
        moments = [_mean_and_variance(sample) for sample in batch.split(1)]
        unused = batch.new_empty(0, dtype=moments[0][0].dtype)
        for sample, out, (mean, variance) in zip(
            batch.split(1), normalized.split(1), moments, strict=True
        ):
            torch.ops.aten.native_batch_norm.out(
                sample,
                weight,
                bias,
                mean,
                variance,
                False,
                0.0,
                eps,
                out=out,
                save_mean=unused,
                save_invstd=unused,
            )
        means, variances = (torch.stack(found) for found in zip(*moments, strict=True))
        ctx.save_for_backward(batch, weight, means, (variances + eps).rsqrt())
        return normalized

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the batch and, summed over its samples, of weight and bias."""
        batch, weight, means, inverse_deviations = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last_3d)
        sums = [
            _gradients_of_weight_and_bias(*parts)
            for parts in zip(
                gradient.split(1), batch.split(1), means, inverse_deviations, strict=True
            )
        ]
        of_weights, of_biases = (torch.stack(found) for found in zip(*sums, strict=True))
        of_batch = None
        if ctx.needs_input_grad[0]:
            # A gradient of the batch is the incoming one without its share in mean and variance:
            # slope * (gradient - of_bias / voxels - normalized * of_weight / voxels).
            slope = inverse_deviations if weight is None else inverse_deviations * weight
            voxels = batch[0, 0].numel()
            pull = -slope * inverse_deviations * of_weights / voxels
            shift = -slope * of_biases / voxels - pull * means
            slope, pull, shift = (one[:, :, None, None, None] for one in (slope, pull, shift))
            of_batch = torch.addcmul(shift, gradient.to(slope.dtype), slope)
            of_batch = of_batch.addcmul_(batch.to(slope.dtype), pull).to(batch.dtype)
        return (
            of_batch,
            of_weights.sum(0) if ctx.needs_input_grad[1] else None,
            of_biases.sum(0) if ctx.needs_input_grad[2] else None,
            None,
        )


def _rows(sample: torch.Tensor) -> torch.Tensor:
    """A view of a sample, shape (1, channels, i, j, k), of shape (rows, n * channels).

    A row holds n voxels in succession, the fewest that fill whole cache lines; one voxel where
    their number cannot be divided so.

    torch's threads add up channels-last numbers in rows of one small buffer, a float32 number per
    channel. With few channels several rows lie in one cache line, for which the threads fight: two
    of them took 2 to 3.5 times as long as one (torch 2.13).
    """
    channels = sample.shape[1]
    voxels = sample.permute(0, 2, 3, 4, 1).reshape(-1, channels)
    together = _LINE // math.gcd(channels, _LINE)
    return voxels.reshape(-1, together * channels) if len(voxels) % together == 0 else voxels


def _mean_and_variance(sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each channel, shapes (channels,), in float32 at least; the variance is the biased one."""
    rows, channels = _rows(sample), sample.shape[1]
    precise = torch.promote_types(sample.dtype, torch.float32)
    # With running statistics of that type, which are not used, torch adds up in it.
    unused = torch.zeros(2, rows.shape[1], dtype=precise)
    found = torch.batch_norm_update_stats(rows, unused[0], unused[1], 0.0)
    means, variances = (one.reshape(-1, channels) for one in found)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def _gradients_of_weight_and_bias(
    gradient: torch.Tensor,
    sample: torch.Tensor,
    mean: torch.Tensor,
    inverse_deviation: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a sample adds to them, shapes (channels,), were it normalised with these moments."""
    rows, channels = _rows(sample), sample.shape[1]
    together = rows.shape[1] // channels
    moments = mean.repeat(together), inverse_deviation.repeat(together)
    _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
        _rows(gradient), rows, None, None, None, *moments, True, 0.0, [False, True, True]
    )
    return of_weight.reshape(-1, channels).sum(0), of_bias.reshape(-1, channels).sum(0)


def warn_of_cudnn(title: str, torch_version: str, cudnn: int | None) -> None:
    """Say that half-precision convolutions, in which nnU-Net trains on a GPU, are known to fail.

    Args:
        title: of the training.
        torch_version: such as ``2.7.1+cu126``.
        cudnn: ``torch.backends.cudnn.version()``.
    """
    faults = convolution_faults(torch_version, cudnn)
    if faults.reason:
        log.warning("%s: %s; %s", title, faults.reason, GOOD_RELEASES)
