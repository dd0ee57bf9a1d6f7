"""Many different cases in one container, one after the other, and what becomes of its memory.

    ./do_build.sh task1 --device cpu
    python benchmarks/soak.py --tasks task1 --cases 200 --update-docs

The container is started once, with the platform's restrictions, and asked with POST /invoke for
each case. A case is a block of a phantom around its tumour, with a size, voxel spacing and type of
its own. Every output is checked: one mask, uint8 of 0 and 1, on the image's grid, not empty.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compare_inference import machine, update_document
from phantoms import SEED, phantom_files, say
from warm import ROOT

from gc_panther.case import Geometry, Volume
from gc_panther.errors import GCPantherError
from gc_panther.imaging.images import read_image, write_image

#: What the platform forbids, and a little more; the user is known nowhere in the image.
RESTRICTED = shlex.split(
    "--network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "
    "--pids-limit 256 --user 12345:12345"
)
MASKS = "images/pancreatic-tumor-segmentation"
#: Phantoms that the blocks are taken of.
PATIENTS = 10
#: Memory is compared with what it was after this case: the first ones fill caches.
SETTLED = 20
PIXELS = (np.int16, np.uint16, np.float32)


@dataclass(frozen=True)
class Served:
    """A case as the container served it.

    Attributes:
        seconds: from the request to the answer.
        resident: memory of the container's processes afterwards, bytes.
        failure: what was wrong; empty where nothing was.
    """

    seconds: float
    resident: int
    failure: str = ""


def block(image: Volume, label: Volume, rng: np.random.Generator) -> Volume:
    """A part of an image, with its tumour inside, as another scan of another patient."""
    tumour = np.argwhere(label.array_zyx == 1)
    middle, shape = tumour.mean(0), np.array(image.array_zyx.shape)
    size = np.minimum(shape, (shape * rng.uniform(0.35, 0.7, 3)).astype(int))
    start = np.clip((middle - size * rng.uniform(0.3, 0.7, 3)).astype(int), 0, shape - size)
    part = image.array_zyx[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]
    spacing = np.array(image.geometry.spacing_xyz) * rng.uniform(0.9, 1.1, 3)
    x, y, z = (float(mm) for mm in spacing)
    return Volume(
        part.astype(PIXELS[rng.integers(len(PIXELS))]),
        Geometry(part.shape[::-1], (x, y, z), tuple(rng.uniform(-200, 200, 3))),
    )


def put(task: str, image: Volume, folder: Path) -> None:
    """Make of ``folder`` the platform's /input with this image and nothing else."""
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    (given,) = json.loads((ROOT / "test" / "cases" / task / "input" / "inputs.json").read_text())
    key = str(uuid.uuid4())
    given["image"] = {"pk": key, "name": f"{key}.mha"}
    path = folder / given["socket"]["relative_path"] / f"{key}.mha"
    path.parent.mkdir(parents=True)
    write_image(image, path)
    (folder / "inputs.json").write_text(json.dumps([given]))


def wrong_with(output: Path, image: Volume) -> str:
    """Why the platform, or a reader, would not take what lies in /output; empty if they would."""
    files = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file())
    masks = [name for name in files if name.startswith("images/")]
    if len(masks) != 1 or not masks[0].startswith(f"{MASKS}/") or "results.json" not in files:
        return f"/output holds {files}"
    try:
        mask = read_image(output / masks[0])
    except GCPantherError as error:
        return str(error)
    if mask.array_zyx.dtype != np.uint8 or set(np.unique(mask.array_zyx)) != {0, 1}:
        return f"{mask.array_zyx.dtype} of {np.unique(mask.array_zyx)[:5]}"
    return "" if mask.geometry.matches(image.geometry) else "another grid than the image's"


def docker(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the Docker client; never raises."""
    return subprocess.run(
        ["docker", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def serving(image: str, given: Path, output: Path) -> Iterator[str]:
    """A container of the image that answers the invoke interface.

    Raises:
        SystemExit: it cannot be started.
    """
    mounts = ["-v", f"{given}:/input:ro", "-v", f"{output}:/output"]
    started = docker("run", "--detach", *RESTRICTED, "-e", "GC_PANTHER_DEVICE=cpu", *mounts, image)
    if started.returncode != 0:
        raise SystemExit(f"{image} does not start: {started.stderr.strip()}")
    container = started.stdout.strip()
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def resident(container: str) -> int:
    """Memory of all processes in the container, bytes."""
    _, *lines = docker("top", container, "-eo", "pid,rss").stdout.splitlines()
    return sum(int(line.split()[1]) for line in lines) * 1024


def soak(task: str, image: str, cases: int, seed: int, work: Path) -> list[Served]:
    """Serve the cases, one after the other."""
    client = (ROOT / "scripts" / "invoke.py").read_text()
    served: list[Served] = []
    with tempfile.TemporaryDirectory() as scratch:
        given, output = Path(scratch, "input"), Path(scratch, "output")
        Path(scratch).chmod(0o755)
        given.mkdir()
        output.mkdir()
        output.chmod(0o777)
        with serving(image, given, output) as container:
            for number in range(cases):
                name, path, label = phantom_files(task, number % PATIENTS, seed, work)
                rng = np.random.default_rng([seed, number])
                part = block(read_image(path), read_image(label), rng)
                put(task, part, given)
                begin = time.monotonic()
                asked = docker("exec", "-i", container, "python3", "-", stdin=client)
                seconds = time.monotonic() - begin
                failure = (asked.stdout + asked.stderr).strip() if asked.returncode else ""
                failure = failure or wrong_with(output, part)
                served.append(Served(seconds, resident(container), failure))
                say(
                    f"{task} {number + 1}/{cases} block of {name}, {part.geometry.size_xyz}: "
                    f"{seconds:.1f} s, {served[-1].resident / 2**20:.0f} MiB {failure}"
                )
                # The container's user owns what it has written; it empties the folder itself.
                docker("exec", container, "sh", "-c", "rm -rf /output/* /output/.[!.]*")
    return served


def report(task: str, served: list[Served]) -> str:
    """One row of the table."""
    settled, last = served[min(SETTLED, len(served)) - 1].resident, served[-1].resident
    highest = max(one.resident for one in served)
    failures = sum(bool(one.failure) for one in served)
    seconds = float(np.median([one.seconds for one in served]))
    return (
        f"| {task} | {len(served)} | {failures} | {seconds:.1f} | {settled / 2**20:.0f} "
        f"| {last / 2**20:.0f} | {last / settled:.3f} | {highest / 2**20:.0f} |"
    )


def main() -> int:
    """Measure, print the table; return 1 where a case failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["task1", "task2"])
    parser.add_argument("--image", default="gc-panther-{task}", help="{task} stands for the task")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "accuracy")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    lines = [
        f"{machine('cpu')}. Blocks of {PATIENTS} phantoms of seed {arguments.seed}.",
        "",
        "| task | cases | failures | s per case, median "
        f"| MiB after case {SETTLED} | after the last | growth | highest |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    failed = False
    for task in arguments.tasks:
        image = arguments.image.format(task=task)
        served = soak(task, image, arguments.cases, arguments.seed, arguments.work)
        failed = failed or any(one.failure for one in served)
        lines.append(report(task, served))
    text = "\n".join(lines)
    print(text)
    if arguments.update_docs:
        update_document("soak", text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
