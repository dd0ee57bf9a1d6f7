"""Seconds of a training iteration on this CPU: nnU-Net's way and ours, taking turns.

    python benchmarks/training_step.py --repeats 5 --update-docs

The network is the demonstration's for task 1 with random weights, the batch two random patches.
An iteration is a pass forward, a simple loss of all outputs, the gradients and an optimizer's step;
the making of batches is left out. Each way is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import torch
from compare_inference import machine, update_document
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantoms import say
from warm import ROOT

from gc_panther.memory import keep_memory
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.training.precision import (
    computes_bfloat16,
    keep_channels_last,
    pass_in_bfloat16,
)
from gc_panther.nnunet.training.workspace import WAITING_TURNS

DOCS = ROOT / "docs" / "training.md"


@dataclass
class Way:
    """One way of computing an iteration.

    Attributes:
        name: in the table.
        last: channels last, as trainings on a CPU do.
        bfloat16: passes in bfloat16.
        kept: freed memory is used again, as trainings on a CPU do.
        awake: threads look for work before they sleep, as a job's do.
        seconds: of an iteration, in each repeat.
    """

    name: str
    last: bool = False
    bfloat16: bool = False
    kept: bool = False
    awake: bool = True
    seconds: list[float] = field(default_factory=list)

    def run(self, threads: int) -> None:
        """Time it once more, in a process of its own."""
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
        environment["GOMP_SPINCOUNT"] = WAITING_TURNS if self.awake else "0"
        choices = [str(int(choice)) for choice in (self.last, self.bfloat16, self.kept)]
        done = subprocess.run(
            [sys.executable, __file__, "--iterate", *choices],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        self.seconds.append(json.loads(done.stdout.splitlines()[-1]))


def seconds_of_an_iteration(last: bool, bfloat16: bool, kept: bool, iterations: int = 20) -> float:
    """The median, after three that warm up."""
    if kept:
        keep_memory()
    torch.manual_seed(0)
    model = open_model_folder(ROOT / "resources" / "task1")
    configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        len(model.labels),
        deep_supervision=True,
    )
    if last:
        keep_channels_last(network)
    if bfloat16:
        pass_in_bfloat16(network)
    optimizer = torch.optim.AdamW(network.parameters())
    images = torch.randn(configuration.batch_size, 1, *configuration.patch_size)
    seconds = []
    for _ in range(iterations + 3):
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        sum(output.softmax(1)[:, 1].mean() for output in network(images)).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[3:])


def text(ways: list[Way], threads: int) -> str:
    """All ways, compared with the first, Markdown."""
    base = statistics.median(ways[0].seconds)
    lines = [
        f"{machine('cpu')}. {threads} threads, {len(ways[0].seconds)} interleaved repeats.",
        "",
        "| an iteration | s, median (range) | × |",
        "|---|--:|--:|",
    ]
    for way in ways:
        middle = statistics.median(way.seconds)
        span = f"{min(way.seconds):.3f}–{max(way.seconds):.3f}"
        lines.append(f"| {way.name} | {middle:.3f} ({span}) | {base / middle:.2f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, update the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--update-docs", action="store_true")
    parser.add_argument("--iterate", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.iterate:
        print(seconds_of_an_iteration(*map(bool, arguments.iterate)))
        return 0
    ways = [
        Way("nnU-Net's: channels first, single precision"),
        Way("channels last", last=True),
    ]
    if computes_bfloat16():
        ways.append(Way("channels last, bfloat16", last=True, bfloat16=True))
    best = Way(
        f"{ways[-1].name}, freed memory used again",
        last=True,
        bfloat16=ways[-1].bfloat16,
        kept=True,
    )
    asleep = Way(
        "the last, with threads that sleep at once",
        last=True,
        bfloat16=best.bfloat16,
        kept=True,
        awake=False,
    )
    ways += [best, asleep]
    for repeat in range(arguments.repeats):
        for way in ways:
            way.run(arguments.threads)
            say(f"{repeat + 1}/{arguments.repeats} {way.name}: {way.seconds[-1]:.3f} s")
    table = text(ways, arguments.threads)
    print(table)
    if arguments.update_docs:
        update_document("training-step", table, DOCS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
