"""Seconds and memory from a cold start to a mask: stock nnU-Net's ways and ours, side by side.

    python benchmarks/compare_inference.py --repeats 5 --update-docs

Every row is its own process, started cold, on the same model folder and the same case; rows take
turns, so that a busy moment of the machine does not fall on one of them alone. The table holds the
median and the range of the wall time, the peak memory of the whole process tree (proportional set
size, sampled), and how the labels agree with those of `nnUNetv2_predict -f 0 1 2 3 4`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from phantoms import say
from stock import with_stock_trainer
from warm import ROOT

from gc_panther.imaging.images import read_image
from gc_panther.nnunet.labels import tumour_label
from gc_panther.nnunet.model_folder import open_model_folder

DOCS = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- performance:begin -->", "<!-- performance:end -->"
BIN = Path(sys.executable).parent
CASE = ROOT / "test" / "cases" / "task1" / "input" / "images"

#: The stock library in one process: its documented call for files, without worker processes.
_SEQUENTIAL = """
import sys, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
model, image, out, folds = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
predictor.initialize_from_trained_model_folder(model, tuple(map(int, folds.split(","))))
predictor.predict_from_files_sequential([[image]], [out], save_probabilities=False, overwrite=True)
"""


@dataclass
class Row:
    """One way to a mask.

    Attributes:
        name: in the table.
        run: writes a label map into a folder and returns its file.
        seconds: wall time of each repeat.
        memory: peak of each repeat's process tree, bytes.
        stages: seconds of our own stages, where there are any, per repeat.
        labels: the last repeat's label map or mask, shape (z, y, x).
    """

    name: str
    run: Callable[[Path], Path]
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    labels: np.ndarray | None = None


class PeakMemory(threading.Thread):
    """Samples the proportional set size of all our child processes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.1):
            self.peak = max(self.peak, sum(map(_pss, _descendants(os.getpid()))))

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


def command(arguments: Sequence[str | Path], **environment: str) -> None:
    """Run to the end, silently; say what it printed where it fails."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def rows(ours: Path, stock: Path, image: Path, folds: Sequence[int], labels: int) -> list[Row]:
    """The ways that are compared.

    Args:
        ours: a folder with the model folder ``task1``.
        stock: the same model with nnU-Net's plain trainer.
        image: the case.
        folds: the folds to combine.
        labels: number of labels.
    """
    environment = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed"), "/nonexistent")
    environment["nnUNet_results"] = "/nonexistent"

    def cli(out: Path, some: Sequence[int]) -> Path:
        given = out / "in"
        given.mkdir(parents=True)
        (given / "case_0000.mha").symlink_to(image)
        command(
            [BIN / "nnUNetv2_predict_from_modelfolder", "-i", given, "-o", out / "out"]
            + ["-m", stock, "-f", *map(str, some), "-device", "cpu", "--disable_progress_bar"],
            **environment,
        )
        return out / "out" / "case.mha"

    def one_process_per_fold(out: Path) -> Path:
        votes = np.zeros((), np.uint8)
        for fold in folds:
            array = read_image(cli(out / str(fold), [fold])).array_zyx
            votes = votes + np.stack([array == label for label in range(labels)]).astype(np.uint8)
        np.save(out / "voted.npy", votes.argmax(0).astype(np.uint8))
        return out / "voted.npy"

    def sequential(out: Path) -> Path:
        out.mkdir(parents=True)
        code = [sys.executable, "-c", _SEQUENTIAL, stock, image, out / "case"]
        command([*code, ",".join(map(str, folds))], **environment)
        return out / "case.mha"

    def gc_panther(*options: str) -> Callable[[Path], Path]:
        def run(out: Path) -> Path:
            out.mkdir(parents=True)
            command(
                [BIN / "gc-panther", "predict", "task1", image, "-o", out / "mask.mha"]
                + ["--device", "cpu", "--model-dir", ours, "--keep-empty"]
                + ["--report", out / "report.json", *options]
            )
            return out / "mask.mha"

        return run

    folds_option = ["--folds", ",".join(map(str, folds))]
    found = [
        Row(f"{len(folds)} × `nnUNetv2_predict -f k`, vote", one_process_per_fold),
        Row(f"`nnUNetv2_predict -f {' '.join(map(str, folds))}`", lambda out: cli(out, folds)),
        Row("`nnUNetPredictor`, sequential", sequential),
    ]
    for backend in ("torch", "openvino"):
        options = [*folds_option, "--backend", backend]
        name = f"gc-panther, {backend}"
        found.append(Row(f"{name}, logits", gc_panther("--combine", "logits", *options)))
    default = gc_panther("--backend", "openvino", *folds_option)
    found.append(Row("gc-panther as it is (openvino, probabilities)", default))
    return found


def _labels_of(file: Path) -> np.ndarray:
    return np.load(file) if file.suffix == ".npy" else read_image(file).array_zyx


def measure(found: Sequence[Row], repeats: int, scratch: Path) -> None:
    """Run every row as often, taking turns."""
    for repeat in range(repeats):
        for number, row in enumerate(found):
            out = scratch / f"{repeat}-{number}"
            out.mkdir()
            memory = PeakMemory()
            memory.start()
            begin = time.perf_counter()
            file = row.run(out / "run")
            row.seconds.append(time.perf_counter() - begin)
            row.memory.append(memory.stop())
            row.labels = _labels_of(file)
            report = out / "run" / "report.json"
            if report.is_file():
                row.stages.append(json.loads(report.read_text())["seconds"])
            shutil.rmtree(out)
            say(f"{repeat + 1}/{repeats} {row.name}: {row.seconds[-1]:.1f} s")


def warm_row(ours: Path, image: Path, folds: Sequence[int], repeats: int) -> list[dict[str, float]]:
    """Stages of the second and further cases in one process, and their wall time."""
    code = (
        "import json, sys, time\n"
        "sys.path.insert(0, sys.argv[4])\n"
        "from pathlib import Path\n"
        "from warm import WarmTask\n"
        "from gc_panther.harness.engine import Choices\n"
        "from gc_panther.task import InferenceOptions\n"
        "from gc_panther.imaging.images import read_image\n"
        "from gc_panther.case import Case\n"
        "options = InferenceOptions(folds=tuple(map(int, sys.argv[3].split(','))))\n"
        "choices = Choices(device='cpu', model_dir=Path(sys.argv[1]), options=options)\n"
        "with WarmTask('task1', choices) as task:\n"
        "    for _ in range(int(sys.argv[5]) + 1):\n"
        "        begin = time.perf_counter()\n"
        "        report = task.report('case', read_image(Path(sys.argv[2])))\n"
        "        wall = time.perf_counter() - begin\n"
        "        print('SECONDS', json.dumps({**report['seconds'], 'wall': wall}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ours), str(image), ",".join(map(str, folds))]
        + [str(ROOT / "benchmarks"), str(repeats)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SECONDS ")]
    return [json.loads(line.removeprefix("SECONDS ")) for line in lines][1:]


def table(found: Sequence[Row], tumour: int) -> str:
    """All rows as Markdown."""
    reference = found[1]
    assert reference.labels is not None
    base = statistics.median(reference.seconds)
    lines = [
        "| way | s, median (range) | × | passes s | all else s | memory GiB "
        "| labels that differ | tumour Dice |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found:
        assert row.labels is not None
        middle = statistics.median(row.seconds)
        network = [stages["network"] for stages in row.stages]
        passes = f"{statistics.median(network):.1f}" if network else "–"
        rest = f"{middle - statistics.median(network):.1f}" if network else "–"
        a, b = row.labels == tumour, reference.labels == tumour
        ours = bool(row.stages)
        # Our mask is the tumour alone.
        differing = (
            np.mean((row.labels == 1) != b) if ours else np.mean(row.labels != reference.labels)
        )
        a = row.labels == 1 if ours else a
        dice = 2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum()))
        lines.append(
            f"| {row.name} | {middle:.1f} ({min(row.seconds):.1f}–{max(row.seconds):.1f}) "
            f"| {base / middle:.2f} | {passes} | {rest} "
            f"| {statistics.median(row.memory) / 2**30:.2f} | {differing:.1e} | {dice:.5f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What it ran on, in words."""
    names = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "nnunetv2", "openvino"))
    return (
        f"{os.cpu_count()} cores ({', '.join(sorted(names)) or platform.machine()}), "
        f"Python {platform.python_version()}, {packages}"
    )


def update_document(text: str) -> None:
    """Put the table between the markers of docs/performance.md."""
    document = DOCS.read_text(encoding="utf-8")
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    say(f"wrote {DOCS}")


def main() -> int:
    """Measure, print, update the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-dir", type=Path, default=ROOT / "resources")
    parser.add_argument("--image", type=Path, help="the bundled Task 1 case if not given")
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    image = (arguments.image or next(CASE.rglob("*.mha"))).resolve()
    folds = [int(fold) for fold in arguments.folds.split(",")]
    model = open_model_folder(arguments.model_dir / "task1", tuple(folds))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        stock = with_stock_trainer(model.path, scratch / "stock")
        found = rows(arguments.model_dir.resolve(), stock, image, folds, len(model.labels))
        measure(found, arguments.repeats, scratch)
        warm = warm_row(arguments.model_dir.resolve(), image, folds, arguments.repeats)
    wall = statistics.median(stages["wall"] for stages in warm)
    passes = statistics.median(stages["network"] for stages in warm)
    size = "×".join(map(str, read_image(image).geometry.size_xyz))
    text = (
        f"{machine()}. Image {size}, {arguments.repeats} interleaved repeats.\n\n"
        f"{table(found, tumour_label(model))}\n\n"
        f"A further case in a warm process (gc-panther as it is): {wall:.1f} s, of which the "
        f"passes {passes:.1f} s and all else, reading the image included, {wall - passes:.1f} s."
    )
    print(text)
    if arguments.update_docs:
        update_document(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
