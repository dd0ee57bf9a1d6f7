"""The floor under the passes: what they compute, over what the machine can compute.

    python benchmarks/floor.py --repeats 5 --update-docs

The operations of a pass are those of its convolutions, a multiplication and an addition each. The
peak is measured, not read from a data sheet: the faster of a large matrix product and a large
convolution, in single precision on a CPU and in half on a GPU, as the passes are computed there.
The passes are those of a warm process, the demonstration's ensemble on the bundled case of task 1
and PANTHER's ResEnc-M with random weights on two windows. Peak and passes take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from compare_inference import full_size_model, machine, two_windows, update_document
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantoms import bundled_case, say
from torch.utils.flop_counter import FlopCounterMode
from warm import ROOT

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.nnunet.device import torch_device
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.openvino_graph import is_installed
from gc_panther.nnunet.model.folder import ModelFolder, open_model_folder
from gc_panther.nnunet.model.network import build_network
from gc_panther.nnunet.options import Backend, NnUNetOptions
from gc_panther.session import Clock
from gc_panther.task import RunContext


@dataclass(frozen=True)
class Probe:
    """Something large that the machine computes as fast as it can.

    Attributes:
        name: in the text.
        work: computes it.
        operations: how many that takes.
        device: torch's name of where.
    """

    name: str
    work: Callable[[], object]
    operations: int
    device: str

    def peak(self, calls: int = 5) -> float:
        """Operations per second of the fastest of some calls, after one that warms up."""
        seconds = []
        for _ in range(calls + 1):
            begin = time.perf_counter()
            self.work()
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - begin)
        return self.operations / min(seconds[1:])


def probes(device: str) -> list[Probe]:
    """A square matrix product, and a convolution as wide as the middle of a network.

    Each takes tenths of a second on two cores, and milliseconds on a GPU.
    """
    gpu = device != "cpu"
    rows = 8192 if gpu else 2048
    batch, channels, *shape_zyx = (8, 128, 32, 128, 128) if gpu else (2, 64, 16, 64, 64)
    number = torch.half if gpu else torch.float
    matrix = torch.ones((rows, rows), dtype=number, device=device)
    layer = torch.nn.Conv3d(channels, channels, 3, padding=1, bias=False).requires_grad_(False)
    layer = layer.to(device=device, dtype=number, memory_format=torch.channels_last_3d)
    image = torch.ones((batch, channels, *shape_zyx), dtype=number, device=device)
    image = image.to(memory_format=torch.channels_last_3d)
    return [
        Probe("matrix product", lambda: matrix @ matrix, 2 * rows**3, device),
        Probe("convolution", lambda: layer(image), _counted(layer, image), device),
    ]


def _counted(network: torch.nn.Module, image: torch.Tensor) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops())


def operations(model: ModelFolder) -> int:
    """Floating-point operations of one pass: one window, one copy, one fold."""
    configuration = PlansManager(dict(model.plans)).get_configuration(model.configuration)
    network = build_network(configuration, len(model.labels)).eval()
    return _counted(network, torch.empty((1, 1, *configuration.patch_size), device="meta"))


@dataclass
class Passes:
    """All passes of one network on one image, by one backend.

    Attributes:
        network: in the table.
        ensemble: computes them.
        volume: the image, in LPS order.
        operations: of one pass.
        backend: that computes them.
        count: how many there are.
        seconds: that all of them took, in each repeat.
    """

    network: str
    ensemble: Ensemble
    volume: Volume
    operations: int
    backend: str = ""
    count: int = 0
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Compute all of them once more."""
        clock = Clock()
        facts = self.ensemble.predict(self.volume, RunContext(clock=clock)).facts
        self.backend, self.count = facts["backend"], facts["passes"]
        self.seconds.append(clock.seconds["network"])


def text(found: Sequence[Passes], peaks: dict[str, list[float]]) -> str:
    """How far the passes are from the floor, Markdown.

    Args:
        found: what was measured.
        peaks: of each probe, in each repeat, operations per second.
    """
    reached = {name: statistics.median(values) for name, values in peaks.items()}
    best = max(reached, key=lambda name: reached[name])
    scale, unit = (1e12, "TFLOP/s") if reached[best] > 1e13 else (1e9, "GFLOP/s")
    rates = ", ".join(
        f"a {name} reaches {reached[name] / scale:.0f} {unit} "
        f"({min(values) / scale:.0f}–{max(values) / scale:.0f})"
        for name, values in peaks.items()
    )
    lines = [
        f"Here {rates}; the floor is what the passes take at the {best}'s rate.",
        "",
        "| network | GFLOP per pass | passes | floor s | backend | s, median (range) | × floor |",
        "|---|--:|--:|--:|---|--:|--:|",
    ]
    for one in found:
        floor = one.operations * one.count / reached[best]
        middle = statistics.median(one.seconds)
        digits = 2 if floor > 0.1 else 4
        cells = [
            one.network,
            f"{one.operations / 1e9:.1f}",
            str(one.count),
            f"{floor:.{digits}f}",
            one.backend,
            f"{middle:.{digits}f} ({min(one.seconds):.{digits}f}–{max(one.seconds):.{digits}f})",
            f"{middle / floor:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(device: str, scratch: Path) -> list[Passes]:
    """The networks on their images, with every backend of the device, loaded."""
    image = bundled_case("task1")
    demonstration = open_model_folder(ROOT / "resources" / "task1")
    full_size = open_model_folder(full_size_model(scratch / "full-size"))
    configuration = full_size.plans["configurations"][full_size.configuration]
    part = two_windows(image, configuration["patch_size"], configuration["spacing"])
    folds = len(demonstration.checkpoints)
    backends: list[Backend] = ["torch"]
    if device == "cpu" and is_installed():
        backends.append("openvino")
    found = []
    for name, model, volume, mirroring in (
        (f"demonstration, {folds} folds", demonstration, to_lps(read_image(image)), True),
        ("ResEnc-M, one fold, no mirroring", full_size, part, False),
    ):
        for backend in backends:
            options = NnUNetOptions(backend=backend, mirroring=mirroring)
            ensemble = Ensemble(model, device=device, options=options)
            found.append(Passes(name, ensemble, volume, operations(model)))
    return found


def main() -> int:
    """Measure, print, update the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    device = torch_device(arguments.device).name
    with tempfile.TemporaryDirectory() as scratch:
        found, tried = measured(device, Path(scratch)), probes(device)
        peaks: dict[str, list[float]] = {probe.name: [] for probe in tried}
        for repeat in range(arguments.repeats + 1):
            for probe in tried:
                peaks[probe.name].append(probe.peak())
            for one in found:
                one.run()
                took = f"{one.network}, {one.backend}: {one.seconds[-1]:.1f} s"
                say(f"{repeat}/{arguments.repeats} {took}")
            if repeat == 0:  # the first case warms up
                for values in [*peaks.values(), *(one.seconds for one in found)]:
                    values.clear()
    table = f"{machine(device)}. {arguments.repeats} interleaved repeats.\n\n{text(found, peaks)}"
    print(table)
    if arguments.update_docs:
        update_document("floor" if device == "cpu" else "floor-gpu", table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
