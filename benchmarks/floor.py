"""The floor under the passes: what they compute, over what the machine can compute.

The operations are those of the convolutions, a multiplication and an addition each; norms and
activations, which move memory and hardly compute, come on top. The peak is measured, as a square
matrix product reaches it: what a virtual machine's processors could do by their data sheet says
little about what it gets of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

from gc_panther.nnunet.model_folder import ModelFolder
from gc_panther.nnunet.network import build_network

#: Rows of the square matrices: some tenths of a second on two cores, some milliseconds on a GPU.
ROWS_CPU, ROWS_GPU = 2048, 8192


def operations(model: ModelFolder) -> int:
    """Floating-point operations of one pass: one window, one copy, one fold."""
    configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
    network = build_network(configuration, len(model.labels)).eval()
    window = torch.empty((1, 1, *configuration.patch_size), device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(window)
    return int(counter.get_total_flops())


def peak(device: str, calls: int = 5) -> float:
    """Floating-point operations per second of a matrix product, the fastest of some calls.

    Single precision on a CPU, half on a GPU, as the passes are computed there.
    """
    gpu = device != "cpu"
    rows = ROWS_GPU if gpu else ROWS_CPU
    left, right = (
        torch.ones((rows, rows), dtype=torch.half if gpu else torch.float, device=device)
        for _ in range(2)
    )
    seconds = []
    for _ in range(calls + 1):  # the first one warms up
        begin = time.perf_counter()
        torch.mm(left, right)
        if gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * rows**3 / min(seconds[1:])


def describe(operations_each: int, passes: int, peaks: Sequence[float], reached: float) -> str:
    """How far from the floor the passes are, Markdown.

    Args:
        operations_each: of one pass.
        passes: how many there are.
        peaks: measured ones, operations per second.
        reached: seconds that all passes take.
    """
    middle = statistics.median(peaks)
    spread = f"{min(peaks) / 1e9:.0f}–{max(peaks) / 1e9:.0f}"
    floor = operations_each * passes / middle
    return (
        f"The floor: a pass of a window is {operations_each / 1e9:.1f} GFLOP in its convolutions, "
        f"all {passes} are {operations_each * passes / 1e12:.2f} TFLOP. A matrix product reaches "
        f"{middle / 1e9:.0f} GFLOP/s here ({spread}), at which "
        f"they take {floor:.1f} s. The fastest exact way takes {reached:.1f} s for its passes, "
        f"{reached / floor:.2f} × the floor."
    )
