"""The peak memory of the processes that a benchmark starts, and of a GPU."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class PeakMemory(threading.Thread):
    """Samples the memory of the child processes that we start from now on, and of a GPU.

    Attributes:
        peak: proportional set size, bytes.
        gpu_peak: what the GPU holds beyond what it held at the start, bytes.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.gpu_peak = 0
        self._device = device
        self._gpu_before = self._gpu_used()
        self._children_before = frozenset(_descendants(os.getpid()))
        self._done = threading.Event()

    def run(self) -> None:
        while True:
            children = set(_descendants(os.getpid())) - self._children_before
            self.peak = max(self.peak, sum(map(_pss, children)))
            self.gpu_peak = max(self.gpu_peak, self._gpu_used() - self._gpu_before)
            if self._done.wait(0.1):
                break

    def _gpu_used(self) -> int:
        if self._device == "cpu":
            return 0
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return int(total - free)

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.peak


def _descendants(parent: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(children.get(parent, []))
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children.get(process, [])
    return found


def _pss(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
