"""The precision in which a GPU computes the passes: by torch's and cuDNN's versions, then by test.

The test runs every convolution of the network once, with noise of the shape that a window has
there, and compares error and time with float32 without TF32. Some releases of torch and cuDNN
compute some shapes wrongly or slowly on some GPUs, which no version check finds for certain.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from gc_panther.nnunet.cudnn import convolution_faults

Precision = Literal["half", "tf32", "float32"]

#: Layers whose weights autocast casts to half precision, as far as nnU-Net's networks have them.
CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

#: Half precision and TF32 have a relative error of 2^-11 per product; a sum of thousands of them
#: stays far below this part of the greatest value.
MAX_ERROR = 1e-2

#: A precision is used where it takes at most so much of float32's time. Half precision also saves
#: memory, so a tie, and the noise of a measurement, speaks for it.
_MOST_TIME = {"half": 1.5, "tf32": 0.8}

_NAMES = {"half": "half-precision", "tf32": "TF32"}


@dataclass(frozen=True)
class Layer:
    """A convolution and what it is given in one window.

    Attributes:
        module: on the meta device.
        shape: channels and spatial shape of its input.
        times: how often the network computes such a convolution.
    """

    module: nn.Module
    shape: tuple[int, ...]
    times: int = 1


@dataclass(frozen=True)
class Trial:
    """What a precision was measured to be.

    Attributes:
        error: greatest difference from float32 without TF32, as a part of the greatest value of
            the same convolution; NaN or infinity where the result is.
        time: as a part of float32's.
    """

    error: float
    time: float


@dataclass(frozen=True)
class Choice:
    """What the passes are computed in.

    Attributes:
        precision: ``half``, ``tf32`` or ``float32``.
        reason: why it is not the usual one, or was not tested; empty otherwise.
        trial: of this precision, where one was made.
    """

    precision: Precision
    reason: str = ""
    trial: Trial | None = None


#: What a CPU computes in.
FLOAT32 = Choice("float32")


def choose_precision(
    torch_version: str, cudnn: int | None, attempt: Callable[[Precision], Trial]
) -> Choice:
    """Choose for a GPU.

    Half precision is used where it is right and not slower than float32; TF32 where half precision
    is right but slow, and TF32 is right and faster than float32. Whatever was found to be wrong
    leads to float32 without TF32.

    Args:
        torch_version: such as ``2.7.1+cu126``.
        cudnn: ``torch.backends.cudnn.version()``.
        attempt: measures a precision; raises ``torch.OutOfMemoryError`` where it cannot.
    """
    faults = convolution_faults(torch_version, cudnn)
    if faults.half == "wrong":
        return Choice("float32", faults.reason)
    candidates: tuple[Precision, ...] = ("half",) if faults.tf32 else ("half", "tf32")
    slow = ""
    for precision in candidates:
        try:
            trial = attempt(precision)
        except torch.OutOfMemoryError:
            if precision == "half":
                return Choice("half", "too little GPU memory is free to test half precision")
            break
        except RuntimeError as error:
            line = " ".join(str(error).split())[:200]
            return Choice("float32", f"{_NAMES[precision]} convolutions fail ({line})")
        # Not the other way round: a NaN must not count as a small error.
        if not trial.error <= MAX_ERROR:
            return Choice(
                "float32",
                f"{_NAMES[precision]} convolutions are off by {trial.error:.1e} with torch "
                f"{torch_version} and cuDNN {cudnn}",
            )
        if trial.time <= _MOST_TIME[precision]:
            return Choice(precision, slow, trial)
        if precision == "half":
            slow = f"half precision takes {trial.time:.1f} times as long as float32"
            slow = f"{slow} ({faults.reason})" if faults.reason else slow
    return Choice("float32", slow)


def precision_on_this_gpu(
    network: nn.Module, device: torch.device, patch: Sequence[int], batch: int
) -> Choice:
    """Choose for a network on the device.

    Args:
        network: on the meta device.
        device: a GPU.
        patch: spatial shape of a window.
        batch: windows per pass.
    """
    layers = functools.cache(lambda: convolution_layers(network, device, patch))

    def attempt(precision: Precision) -> Trial:
        try:
            return measure(layers(), device, batch, precision)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        # Only here, with the exception gone, are its tensors gone as well.
        torch.cuda.empty_cache()
        return measure(layers(), device, 1, precision)

    choice = choose_precision(torch.__version__, torch.backends.cudnn.version(), attempt)
    torch.cuda.empty_cache()
    return choice


@torch.inference_mode()
def convolution_layers(
    network: nn.Module, device: torch.device, patch: Sequence[int]
) -> list[Layer]:
    """The different convolutions of a network, with the shapes that one window has there.

    One pass on the device, with weights of no meaning, shows them. A pass on the meta device would
    import torch's compiler, which takes two seconds.

    Args:
        network: on the meta device.
        device: where to compute.
        patch: spatial shape of a window.

    Raises:
        torch.OutOfMemoryError: the device's memory is too small.
    """
    found: dict[tuple[str, tuple[int, ...]], Layer] = {}

    def note(original: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        shape = tuple(inputs[0].shape[1:])
        # A convolution's representation names all of its parameters' sizes.
        known = found.get((repr(original), shape), Layer(original, shape, 0))
        found[repr(original), shape] = replace(known, times=known.times + 1)

    filled = _empty_copy(network, device)
    for module, original in zip(filled.modules(), network.modules(), strict=True):
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_pre_hook(
                lambda _, inputs, original=original: note(original, inputs)
            )
    with tf32_convolutions(allowed=False):
        filled(torch.zeros((1, 1, *patch), device=device))
    return list(found.values())


@torch.inference_mode()
def measure(
    layers: Sequence[Layer], device: torch.device, batch: int, precision: Precision
) -> Trial:
    """Compare convolutions in a precision with those in float32 without TF32.

    Args:
        layers: of one network.
        device: where to compute.
        batch: windows per pass in that precision; float32 computes one.
        precision: the one to try.

    Raises:
        torch.OutOfMemoryError: the device's memory is too small.
    """
    random = torch.Generator(device).manual_seed(0)
    errors, seconds, reference = [], 0.0, 0.0
    for layer in layers:
        module = _with_noise(layer.module, device, random)
        window = torch.randn((1, *layer.shape), generator=random, device=device)
        with tf32_convolutions(allowed=False):
            exact, spent = _timed(module, window)
        reference += spent * layer.times
        if precision == "half":
            module, window = module.half(), window.half()
        windows = window.expand(batch, *layer.shape).contiguous()
        with tf32_convolutions(allowed=precision == "tf32"):
            answers, spent = _timed(module, windows)
        seconds += spent / batch * layer.times
        worst = torch.stack([(answer.float() - exact[0]).abs().max() for answer in answers]).max()
        errors.append(float(worst / exact.abs().max()))
    return Trial(math.nan if any(map(math.isnan, errors)) else max(errors), seconds / reference)


@contextmanager
def tf32_convolutions(*, allowed: bool) -> Iterator[None]:
    """Let cuDNN compute float32 convolutions in TF32, or not; torch's default is that it may."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _empty_copy(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a module on the meta device, with memory for its weights.

    ``to_empty`` would do the same, and import torch's compiler.
    """
    filled = copy.deepcopy(module).eval()
    weights = {
        name: torch.empty(value.shape, dtype=value.dtype, device=device)
        for name, value in module.state_dict().items()
    }
    filled.load_state_dict(weights, assign=True)
    return filled


def _with_noise(module: nn.Module, device: torch.device, random: torch.Generator) -> nn.Module:
    """A copy on the device whose outputs are about as large as its inputs."""
    filled = _empty_copy(module, device)
    for parameter in filled.parameters():
        products = max(1, parameter[0].numel())
        parameter.normal_(std=products**-0.5, generator=random)
    return filled


def _timed(module: nn.Module, windows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The second of two calls, and its seconds; the first one lets cuDNN choose an algorithm."""
    module(windows)
    _wait(windows.device)
    begin = time.perf_counter()
    answers: torch.Tensor = module(windows)
    _wait(windows.device)
    return answers, time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
