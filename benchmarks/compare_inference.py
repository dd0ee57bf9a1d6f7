"""Seconds and memory from a cold start to a mask: stock nnU-Net's ways and ours, side by side.

    python benchmarks/compare_inference.py --repeats 5 --update-docs
    python benchmarks/compare_inference.py --full-size --repeats 3 --update-docs

Every row is its own process, started cold, on the same model folder and the same case; rows take
turns, so that a busy moment of the machine does not fall on one of them alone. The table holds the
median and the range of the wall time, the peak memory of the whole process tree (proportional set
size, sampled), and how the labels agree with those of `nnUNetv2_predict -f 0 1 2 3 4`. Where a GPU
is used, the peak of its memory and the time of its kernels are added.

With --full-size the network is PANTHER's ResEnc-M with random weights. On a CPU it is one fold,
without mirroring, on an image of two windows, because a whole case takes the better part of an
hour on two cores; on a GPU it is all folds on the whole case, mirrored. The labels mean nothing;
how much of them is alike does.

    python benchmarks/compare_inference.py --before ../earlier --repeats 5

compares another checkout of this project, set up with its own .venv and with its own bundled
weights, with this one, at default settings.
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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
from peak_memory import PeakMemory
from phantoms import bundled_case, say
from stock import with_stock_trainer
from warm import ROOT

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.resampling import resample
from gc_panther.imaging.roi import Box, crop
from gc_panther.nnunet.device import torch_device
from gc_panther.nnunet.inference.ensemble import Ensemble, openvino_graph
from gc_panther.nnunet.inference.openvino_graph import GRAPH_FILE, is_installed
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.pack import sizes, write_pack
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.panther.labels import tumour_label
from gc_panther.task import RunContext

DOCS = ROOT / "docs" / "performance.md"
BIN = Path(sys.executable).parent

#: The stock library in one process: its documented call for files, without worker processes. What
#: its passes take is written next to the label map.
_SEQUENTIAL = """
import json, pathlib, sys, time, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
model, image, out, folds = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
begins, passes = [], []
def now():
    if sys.argv[5] != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
predictor = nnUNetPredictor(
    device=torch.device(sys.argv[5]), allow_tqdm=False, use_mirroring=sys.argv[6] == "1"
)
predictor.initialize_from_trained_model_folder(model, tuple(map(int, folds.split(","))))
predictor.network.register_forward_pre_hook(lambda *_: begins.append(now()))
predictor.network.register_forward_hook(lambda *_: passes.append(now() - begins.pop()))
predictor.predict_from_files_sequential([[image]], [out], save_probabilities=False, overwrite=True)
document = {"seconds": {"network": sum(passes)}}
pathlib.Path(out).with_name("report.json").write_text(json.dumps(document))
"""


@dataclass(frozen=True)
class Setting:
    """What all rows of a table share.

    Attributes:
        ours: a folder with the model folder ``task1``.
        stock: the same model with nnU-Net's plain trainer.
        image: the case.
        folds: the folds to combine.
        labels: number of labels.
        device: torch's name.
        mirroring: average over mirrored copies.
        trained: whether the labels mean something; of random weights only the ways that compute the
            same sum are compared.
        before: another checkout of this project; then only the two are compared.
    """

    ours: Path
    stock: Path
    image: Path
    folds: tuple[int, ...]
    labels: int
    device: str
    mirroring: bool = True
    trained: bool = True
    before: Path | None = None

    @property
    def several(self) -> bool:
        """Whether ways that only an ensemble has are compared."""
        return self.trained and len(self.folds) > 1


@dataclass
class Row:
    """One way to a mask.

    Attributes:
        name: in the table.
        run: writes a label map into a folder and returns its file.
        seconds: wall time of each repeat.
        memory: peak of each repeat's process tree, bytes.
        tumour_only: whether it is a mask of the tumour instead of a label map.
        stages: seconds of its stages, where they are known, per repeat.
        gpu_memory: peak of the GPU's memory in each repeat, bytes; empty without a GPU.
        labels: the last repeat's label map or mask, shape (z, y, x).
    """

    name: str
    run: Callable[[Path], Path]
    tumour_only: bool = False
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    gpu_memory: list[int] = field(default_factory=list)
    labels: np.ndarray | None = None


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


def rows(setting: Setting) -> list[Row]:
    """The ways that are compared."""
    folds, stock, image = setting.folds, setting.stock, setting.image
    environment = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed"), "/nonexistent")
    environment["nnUNet_results"] = "/nonexistent"
    # nnU-Net's command line knows kinds of devices only.
    stock_options = ["-device", setting.device.partition(":")[0], "--disable_progress_bar"]
    stock_options += [] if setting.mirroring else ["--disable_tta"]

    def cli(out: Path, some: Sequence[int]) -> Path:
        given = out / "in"
        given.mkdir(parents=True)
        (given / "case_0000.mha").symlink_to(image)
        command(
            [BIN / "nnUNetv2_predict_from_modelfolder", "-i", given, "-o", out / "out"]
            + ["-m", stock, "-f", *map(str, some), *stock_options],
            **environment,
        )
        return out / "out" / "case.mha"

    def one_process_per_fold(out: Path) -> Path:
        votes = np.zeros((), np.uint8)
        for fold in folds:
            array = read_image(cli(out / str(fold), [fold])).array_zyx
            ballots = [array == label for label in range(setting.labels)]
            votes = votes + np.stack(ballots).astype(np.uint8)
        np.save(out / "voted.npy", votes.argmax(0).astype(np.uint8))
        return out / "voted.npy"

    def sequential(out: Path) -> Path:
        out.mkdir(parents=True)
        code = [sys.executable, "-c", _SEQUENTIAL, stock, image, out / "case"]
        more = [",".join(map(str, folds)), setting.device, str(int(setting.mirroring))]
        command([*code, *more], **environment)
        return out / "case.mha"

    def gc_panther(
        *options: str, program: Path = BIN / "gc-panther", weights: Path = setting.ours
    ) -> Callable[[Path], Path]:
        chosen = ["--folds", ",".join(map(str, folds)), "--device", setting.device, *options]
        chosen += [] if setting.mirroring else ["--no-mirroring"]

        def run(out: Path) -> Path:
            out.mkdir(parents=True)
            command(
                [program, "predict", "task1", image, "-o", out / "mask.mha"]
                + ["--model-dir", weights, "--keep-empty", "--report", out / "report.json"]
                + chosen
            )
            return out / "mask.mha"

        return run

    if setting.before is not None:
        checkout = setting.before
        program = checkout / ".venv" / "bin" / "gc-panther"
        before = gc_panther(program=program, weights=checkout / "resources")
        return [
            Row(f"before ({_commit(checkout)})", before, tumour_only=True),
            Row(f"this checkout ({_commit(ROOT)})", gc_panther(), tumour_only=True),
        ]
    found = []
    if setting.several:
        name = f"{len(folds)} × `nnUNetv2_predict -f k`, vote"
        found.append(Row(name, one_process_per_fold))
    name = f"`nnUNetv2_predict -f {' '.join(map(str, folds))}`"
    found.append(Row(name, lambda out: cli(out, folds)))
    found.append(Row("`nnUNetPredictor`, sequential", sequential))
    backends = ("torch", "openvino") if setting.device == "cpu" else ("torch",)
    for backend in backends:
        run = gc_panther("--combine", "logits", "--backend", backend)
        found.append(Row(f"gc-panther, {backend}, logits", run, tumour_only=True))
    if setting.several:
        fastest = backends[-1]
        name = f"gc-panther, default settings ({fastest}, probabilities)"
        found.append(Row(name, gc_panther("--backend", fastest), tumour_only=True))
    return found


def _commit(checkout: Path) -> str:
    git = ["git", "-C", checkout, "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def full_size_model(folder: Path, folds: Sequence[int] = (0,)) -> Path:
    """PANTHER's network for task 1 with random weights, as nnU-Net writes trained folds.

    All folds have the same weights: they are there to be read, copied and passed through.
    """
    import torch
    from gc_panther_task1.training import LABELS, Task1Recipe
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    from gc_panther.nnunet.training.models.plans import CONFIGURATION, make_plans
    from gc_panther.nnunet.training.recipe import load_preset

    recipe = load_preset("gc_panther_task1", "panther", Task1Recipe)
    fingerprint = {
        "spacings": [recipe.network.spacing_zyx],
        "shapes_after_crop": [recipe.network.patch_zyx],
        "foreground_intensity_properties_per_channel": {"0": {}},
    }
    plans = make_plans("Dataset101_Full", recipe.network, recipe.schedule, fingerprint, {})
    architecture = plans["configurations"][CONFIGURATION]["architecture"]
    torch.manual_seed(0)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(LABELS),
        deep_supervision=True,
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    for parameter in network.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    files = [folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in folds]
    for file in files:
        file.parent.mkdir(parents=True)
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": optimizer.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": CONFIGURATION},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        files[0],
    )
    for file in files[1:]:
        shutil.copyfile(files[0], file)
    dataset = {"channel_names": {"0": "MR"}, "labels": LABELS, "file_ending": ".mha"}
    for name, document in (("plans.json", plans), ("dataset.json", dataset)):
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


def two_windows(image: Path, patch_zyx: Sequence[int], spacing_zyx: Sequence[float]) -> Volume:
    """The middle of an image on a network's grid: one window high and deep, one and a half wide."""
    volume = resample(to_lps(read_image(image)), tuple(reversed(spacing_zyx)))
    wanted = (*patch_zyx[:2], patch_zyx[2] * 3 // 2)
    middle = [size // 2 for size in volume.array_zyx.shape]
    start = [max(0, m - w // 2) for m, w in zip(middle, wanted, strict=True)]
    stop = [a + w for a, w in zip(start, wanted, strict=True)]
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return crop(volume, box.clip(volume.geometry.shape_zyx))


def _labels_of(file: Path) -> np.ndarray:
    return np.load(file) if file.suffix == ".npy" else read_image(file).array_zyx


def measure(found: Sequence[Row], repeats: int, scratch: Path, device: str) -> None:
    """Run every row as often, taking turns."""
    for repeat in range(repeats):
        for number, row in enumerate(found):
            out = scratch / f"{repeat}-{number}"
            out.mkdir()
            memory = PeakMemory(device)
            memory.start()
            begin = time.perf_counter()
            file = row.run(out / "run")
            row.seconds.append(time.perf_counter() - begin)
            row.memory.append(memory.stop())
            if device != "cpu":
                row.gpu_memory.append(memory.gpu_peak)
            row.labels = _labels_of(file)
            report, stages = out / "run" / "report.json", ""
            if report.is_file():
                row.stages.append(json.loads(report.read_text())["seconds"])
                stages = ", ".join(f"{name} {took:.1f}" for name, took in row.stages[-1].items())
            shutil.rmtree(out)
            say(f"{repeat + 1}/{repeats} {row.name}: {row.seconds[-1]:.1f} s  {stages}".rstrip())


def warm_row(setting: Setting, repeats: int) -> list[dict[str, float]]:
    """Stages of the second and further cases in one process, and their wall time."""
    code = (
        "import json, sys, time\n"
        "sys.path.insert(0, sys.argv[4])\n"
        "from pathlib import Path\n"
        "from warm import WarmTask\n"
        "from gc_panther.session import Choices\n"
        "from gc_panther.options import RunOptions\n"
        "from gc_panther.panther.options import PantherOptions\n"
        "from gc_panther.imaging.images import read_image\n"
        "from gc_panther.case import Case\n"
        "run = RunOptions(device=sys.argv[6], model_dir=sys.argv[1])\n"
        "choices = Choices(run, PantherOptions(folds=sys.argv[3], never_empty=True))\n"
        "with WarmTask('task1', choices) as task:\n"
        "    for _ in range(int(sys.argv[5]) + 1):\n"
        "        begin = time.perf_counter()\n"
        "        report = task.report('case', read_image(Path(sys.argv[2])))\n"
        "        wall = time.perf_counter() - begin\n"
        "        print('SECONDS', json.dumps({**report['seconds'], 'wall': wall}))\n"
    )
    folds = ",".join(map(str, setting.folds))
    done = subprocess.run(
        [sys.executable, "-c", code, str(setting.ours), str(setting.image), folds]
        + [str(ROOT / "benchmarks"), str(repeats), setting.device],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SECONDS ")]
    return [json.loads(line.removeprefix("SECONDS ")) for line in lines][1:]


def further_case(setting: Setting, repeats: int) -> str:
    """A sentence on what a case takes in a process that has had one."""
    warm = warm_row(setting, repeats)
    wall = statistics.median(stages["wall"] for stages in warm)
    passes = statistics.median(stages["network"] for stages in warm)
    return (
        f"A further case in a warm process (default settings) takes {wall:.1f} s: "
        f"{passes:.1f} s of passes and {wall - passes:.1f} s of overhead, "
        "including reading the image."
    )


def kernel_times(setting: Setting, most: int = 8) -> str:
    """Where the passes of one fold spend their time on the device, Markdown."""
    from torch.profiler import ProfilerActivity, profile

    gpu = setting.device != "cpu"
    options = NnUNetOptions(backend="torch", mirroring=setting.mirroring)
    model = open_model_folder(setting.ours / "task1", setting.folds[:1])
    ensemble = Ensemble(model, device=setting.device, options=options)
    volume = to_lps(read_image(setting.image))
    ensemble.predict(volume, RunContext())
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    with profile(activities=activities) as profiler:
        ensemble.predict(volume, RunContext())
    times = {
        event.key: event.self_device_time_total if gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    total = sum(times.values())
    lines = ["| operation | ms | part |", "|---|--:|--:|"]
    for name, microseconds in sorted(times.items(), key=lambda item: -item[1])[:most]:
        short = name if len(name) <= 60 else f"{name[:57]}..."
        lines.append(f"| `{short}` | {microseconds / 1e3:.1f} | {microseconds / total:.0%} |")
    return "\n".join(lines)


def table(found: Sequence[Row], tumour: int, reference: int = 1) -> str:
    """All rows as Markdown.

    Args:
        found: the measured rows.
        tumour: the label's value.
        reference: number of the row with which labels and time are compared.
    """
    base = found[reference]
    assert base.labels is not None
    seconds = statistics.median(base.seconds)
    gpu = any(row.gpu_memory for row in found)
    header = ["command", "median (range), s", "×", "passes, s", "overhead, s", "memory, GiB"]
    header += (["GPU, GiB"] if gpu else []) + ["labels that differ", "tumour Dice"]
    lines = [f"| {' | '.join(header)} |", "|---|" + "--:|" * (len(header) - 1)]
    for row in found:
        assert row.labels is not None
        middle = statistics.median(row.seconds)
        network = [stages["network"] for stages in row.stages]
        a, b = row.labels == tumour, base.labels == tumour
        differing = np.mean(row.labels != base.labels)
        if row.tumour_only:
            a = row.labels == 1
            differing = np.mean(a != b)
        both = int(a.sum() + b.sum())
        cells = [
            row.name,
            f"{middle:.1f} ({min(row.seconds):.1f}–{max(row.seconds):.1f})",
            f"{seconds / middle:.2f}",
            f"{statistics.median(network):.1f}" if network else "–",
            f"{middle - statistics.median(network):.1f}" if network else "–",
            f"{statistics.median(row.memory) / 2**30:.2f}",
            *([f"{statistics.median(row.gpu_memory) / 2**30:.2f}"] if gpu else []),
            f"{differing:.1e}",
            f"{2 * float((a & b).sum()) / both:.5f}" if both else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine(device: str) -> str:
    """What it ran on, in words."""
    processors = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    names = ["torch", "nnunetv2", *(["openvino"] if is_installed() else [])]
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    gpu = "" if device == "cpu" else f"{torch_device(device).description}; "
    return (
        f"{gpu}{os.cpu_count()} cores ({', '.join(sorted(processors)) or platform.machine()}), "
        f"Python {platform.python_version()}, {packages}"
    )


def update_document(section: str, text: str, path: Path | None = None) -> None:
    """Put a table between its markers of a document (docs/performance.md); a section may be new."""
    path = path or DOCS
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    document = path.read_text(encoding="utf-8")
    if begin not in document:
        document += f"\n## {section}\n\n{begin}\n{end}\n"
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    say(f"wrote {path}")


def demonstration(arguments: argparse.Namespace, scratch: Path) -> str:
    """The bundled networks on a full-size case."""
    image = (arguments.image or bundled_case("task1")).resolve()
    folds = _folds(arguments)
    model = open_model_folder(arguments.model_dir / "task1", folds)
    setting = Setting(
        ours=arguments.model_dir.resolve(),
        stock=with_stock_trainer(model.path, scratch / "stock"),
        image=image,
        folds=folds,
        labels=len(model.labels),
        device=arguments.device,
        before=arguments.before and arguments.before.resolve(),
    )
    found = rows(setting)
    measure(found, arguments.repeats, scratch, setting.device)
    size = "×".join(map(str, read_image(image).geometry.size_xyz))
    head = f"{machine(setting.device)}. Image {size}, {arguments.repeats} interleaved repeats."
    if setting.before is not None:
        return f"{head}\n\n{table(found, tumour=1, reference=0)}"
    text = (
        f"{head}\n\n"
        f"{table(found, tumour_label(model), reference=int(setting.several))}\n\n"
        f"{further_case(setting, arguments.repeats)}"
    )
    return text if setting.device == "cpu" else f"{text}\n\n{kernel_times(setting)}"


def full_size(arguments: argparse.Namespace, scratch: Path) -> str:
    """PANTHER's network, and what packing its checkpoint saves."""
    whole = arguments.device != "cpu"
    folds = _folds(arguments) if whole else (0,)
    stock = full_size_model(scratch / "stock", folds)
    model, ours = open_model_folder(stock), scratch / "ours"
    checkpoint = model.checkpoints[folds[0]].stat().st_size
    graph = {GRAPH_FILE: openvino_graph(model).model_dump_json()} if is_installed() else {}
    packed = sizes(model, write_pack(model, ours / "task1", extra=graph))["pack"] / len(folds)
    one = open_model_folder(stock, folds[:1])
    half = sizes(one, write_pack(one, scratch / "half", half=True))["pack"]
    image = (arguments.image or bundled_case("task1")).resolve()
    passes = f"{len(folds)} folds, mirroring"
    if not whole:
        configuration = model.plans["configurations"][model.configuration]
        volume = two_windows(image, configuration["patch_size"], configuration["spacing"])
        image, passes = scratch / "two_windows.mha", "one fold, no mirroring"
        write_image(volume, image)
    setting = Setting(
        ours, stock, image, folds, len(model.labels), arguments.device, whole, trained=False
    )
    found = rows(setting)
    measure(found, arguments.repeats, scratch, setting.device)
    size = "×".join(map(str, read_image(image).geometry.size_xyz))
    text = (
        f"{machine(setting.device)}. Random weights, {passes}, image {size}"
        f"{'' if whole else ' (two windows)'}, {arguments.repeats} interleaved repeats.\n\n"
        f"{table(found, tumour_label(model), reference=0)}\n\n"
        f"A fold's checkpoint has {checkpoint / 1e6:.1f} MB; in a pack it has "
        f"{packed / 1e6:.1f} MB (1/{checkpoint / packed:.2f}), in half precision "
        f"{half / 1e6:.1f} MB (1/{checkpoint / half:.2f})."
    )
    if not whole:
        return text
    return f"{text}\n\n{further_case(setting, arguments.repeats)}\n\n{kernel_times(setting)}"


def _folds(arguments: argparse.Namespace) -> tuple[int, ...]:
    return tuple(int(fold) for fold in arguments.folds.split(","))


def main() -> int:
    """Measure, print, update the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model-dir", type=Path, default=ROOT / "resources")
    parser.add_argument("--image", type=Path, help="the bundled Task 1 case if not given")
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--full-size", action="store_true", help="PANTHER's network instead")
    parser.add_argument("--before", type=Path, help="another checkout: only it is compared")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    if arguments.before and (arguments.full_size or arguments.update_docs):
        parser.error("--before goes with neither --full-size nor --update-docs")
    arguments.device = torch_device(arguments.device).name
    section = "full-size" if arguments.full_size else "performance"
    if arguments.device != "cpu":
        section += "-gpu"
    with tempfile.TemporaryDirectory() as folder:
        work = full_size if arguments.full_size else demonstration
        text = work(arguments, Path(folder))
    print(text)
    if arguments.update_docs:
        update_document(section, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
