"""Known faults of cuDNN's 3-D convolutions, by the versions of torch and cuDNN; imports neither.

Sources: https://github.com/pytorch/pytorch/issues/163539 (half precision) and
https://github.com/pytorch/pytorch/pull/167024 (TF32).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: First release with the fault and first one without it.
_HALF_FAULT = ((9, 8, 0), (9, 15, 0))
_TF32_FAULT = ((9, 10, 2), (9, 16, 0))
#: torch's first release that computes half-precision 3-D convolutions without a cuDNN that has the
#: fault.
_GUARDED = (2, 9)

#: Releases whose default wheels bring a cuDNN without the fault of half precision.
GOOD_RELEASES = "use torch 2.7.1, or 2.11 and newer"


@dataclass(frozen=True)
class ConvolutionFaults:
    """What is known of 3-D convolutions on a GPU.

    Attributes:
        half: half precision is ``right``, ``wrong``, or right but ``slow``.
        tf32: whether TF32 is wrong.
        reason: one sentence about ``half``; empty where it is right.
    """

    half: Literal["right", "wrong", "slow"]
    tf32: bool
    reason: str = ""


def convolution_faults(torch_version: str, cudnn: int | None) -> ConvolutionFaults:
    """Look up a pair of versions.

    Args:
        torch_version: such as ``2.7.1+cu126``.
        cudnn: ``torch.backends.cudnn.version()``; None where torch has no cuDNN.
    """
    release = cudnn_release(cudnn or 0)
    tf32 = _TF32_FAULT[0] <= release < _TF32_FAULT[1]
    if not _HALF_FAULT[0] <= release < _HALF_FAULT[1]:
        return ConvolutionFaults("right", tf32)
    numbers = re.match(r"(\d+)\.(\d+)", torch_version)
    guarded = numbers is not None and (int(numbers[1]), int(numbers[2])) >= _GUARDED
    names = f"torch {torch_version} with cuDNN {'.'.join(map(str, release))}"
    if guarded:
        reason = f"{names} computes half-precision 3-D convolutions without cuDNN, slowly"
        return ConvolutionFaults("slow", tf32, reason)
    return ConvolutionFaults(
        "wrong", tf32, f"{names} may compute half-precision 3-D convolutions wrongly"
    )


def cudnn_release(number: int) -> tuple[int, int, int]:
    """Split cuDNN's number: 8907 is 8.9.7, and 91002 is 9.10.2."""
    major = 10000 if number >= 90000 else 1000
    return number // major, number % major // 100, number % 100
