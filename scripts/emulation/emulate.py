"""Starts an image as the platform does, feeds it the bundled case, and judges what it gives.

    ./do_test_run.sh task2 --as-platform [--instance g4dn.xlarge] [--model model.tar.gz]

In one container without network run the platform's published shim (sagemaker-shim, as root), an S3
server (moto) that it fetches from and uploads to, and our entry point, as the image's user. The
limits are those of an instance that the platform offers. The verdict is a table: what was checked,
what was found, what to do. Exit status 1 where the platform would not take the image or its output.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import math
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SHIM_RESULT = ".sagemaker_shim"
RUNTIME = f"runtime/{SHIM_RESULT}/runtime_setup_result.json"

#: Memory of the platform's instances, GB, and whether they have a GPU.
INSTANCES = {
    "g4dn.xlarge": (16, True),
    "g4dn.2xlarge": (32, True),
    "g5.xlarge": (16, True),
    "g5.2xlarge": (32, True),
    "m7i.large": (8, False),
    "r7i.large": (16, False),
    "r7i.xlarge": (32, False),
}
#: A phase's usual limit of a job, and the platform's time for becoming healthy, seconds.
JOB_LIMIT_S, HEALTH_LIMIT_S = 20 * 60, 300
#: Nominal limit of an image, GB, and number of labels of a segmentation.
LARGEST_IMAGE_GB, MOST_LABELS = 10, 64


@dataclass(frozen=True)
class Check:
    """One row of the verdict.

    Attributes:
        name: what was looked at.
        passed: whether the platform would take it.
        found: what is there.
        fix: what to do about it; empty where it passed.
    """

    name: str
    passed: bool
    found: str
    fix: str = ""


def judge_image(inspected: Mapping[str, Any]) -> Iterator[Check]:
    """What the platform looks at before it starts an image.

    Args:
        inspected: an entry of ``docker image inspect``.
    """
    configuration = inspected["Config"]
    api = (configuration.get("Labels") or {}).get("org.grand-challenge.api-method", "exec")
    yield Check(
        "interface",
        api in ("invoke", "exec"),
        api,
        "Label the image org.grand-challenge.api-method=invoke or exec",
    )
    user = configuration.get("User") or ""
    root = user.partition(":")[0] in ("", "root", "0")
    yield Check("user", not root, user or "none", "Give the Dockerfile a USER that is not root")
    architecture = f"{inspected['Os']}/{inspected['Architecture']}"
    fix = "Build with --platform linux/amd64"
    yield Check("architecture", architecture == "linux/amd64", architecture, fix)
    size = inspected["Size"] / 1e9
    fix = "Leave weights to the model upload, and caches and compilers out of the image"
    yield Check("size", size <= LARGEST_IMAGE_GB, f"{size:.1f} GB", fix)


def judge_archive(archive: Path, task: Any) -> Iterator[Check]:
    """Whether the model archive can be unpacked, and holds the task's models."""
    from gc_panther.errors import WeightsError
    from gc_panther.runtime.archives import unpack

    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(archive, Path(folder))
            yield from judge_model(Path(folder), task)
        except WeightsError as error:
            yield Check("model archive", False, error.what, error.fix)


def judge_model(folder: Path, task: Any) -> Iterator[Check]:
    """Whether the uploaded model is found where the platform unpacks it.

    Args:
        folder: what the archive holds.
        task: whose model folders have to lie at its top level.
    """
    for model in task.models:
        there = (folder / model.name).is_dir()
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        fix = f"Pack it with tar -czf model.tar.gz -C MODELS {model.name}"
        yield Check(f"model: {model.name}", there, "there" if there else f"only {found}", fix)


def judge_start(report: Path, facts: Mapping[str, Any], key_hex: str) -> Iterator[Check]:
    """Whether the shim could start the container's process.

    Args:
        report: folder with what was in S3.
        facts: what the run in the container noted.
        key_hex: with which results had to be signed.
    """
    file = report / "s3" / RUNTIME
    if not file.is_file():
        found = f"the shim ended with status {facts['shim_status']} and said nothing"
        yield Check("start", False, found, "Read the log above, or all of log.txt")
        return
    result = json.loads(file.read_text())
    yield Check(
        "start",
        result["return_code"] == 0,
        result["user_safe_error_message"] or f"shim {result['sagemaker_shim_version']}",
        "Read the log above: the process has to start as the image's user and, for invoke, answer "
        f"GET /health on port 4743 with 200 within {HEALTH_LIMIT_S} s",
    )
    expected = hmac.new(bytes.fromhex(key_hex), file.read_bytes(), hashlib.sha256).hexdigest()
    yield Check(
        "signature",
        hmac.compare_digest(expected, facts["signatures"].get(RUNTIME, "")),
        "of the shim's result",
        "Something else than the shim wrote the result",
    )


def judge_case(
    report: Path, case: str, folder: str, values: Sequence[int], size_xyz: Sequence[int]
) -> Iterator[Check]:
    """What the platform makes of one case's output.

    Args:
        report: folder with what was in S3.
        case: the task's name in S3.
        folder: the output socket's relative path.
        values: that the mask may hold.
        size_xyz: of the input image.
    """
    place = report / "s3" / case
    file = place / SHIM_RESULT / "inference_result.json"
    if not file.is_file():
        yield Check(f"{case}: run", False, "it was not run", "See the checks above")
        return
    result = json.loads(file.read_text())
    lines = result.get("user_process_last_stderr_lines", [])
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    seconds = result["invoke_duration"] or result["exec_duration"] or "no time"
    yield Check(
        f"{case}: run",
        result["return_code"] == 0,
        seconds
        if result["return_code"] == 0
        else result["user_safe_error_message"] or last or "it failed",
        "Read the log above, or all of log.txt",
    )
    if result["return_code"] != 0:
        return
    fix = "On success nothing may go to stderr: the platform shows a warning for it"
    yield Check(f"{case}: stderr", not last, last or "empty", fix)
    images = sorted((place / folder).glob("*")) if (place / folder).is_dir() else []
    names = ", ".join(image.name for image in images) or "none"
    fix = f"Write exactly one image to /output/{folder}"
    yield Check(f"{case}: images", len(images) == 1, names, fix)
    if len(images) == 1:
        yield from judge_mask(case, images[0], values, size_xyz)
    for path in sorted(place.rglob("*.json")):
        if SHIM_RESULT not in path.parts:
            yield judge_json(case, path)


def judge_mask(
    case: str, image: Path, values: Sequence[int], size_xyz: Sequence[int]
) -> Iterator[Check]:
    """Type, labels and grid of a mask."""
    import numpy as np
    import SimpleITK as sitk

    try:
        mask = sitk.ReadImage(str(image))
    except RuntimeError:
        yield Check(f"{case}: mask", False, "it cannot be read", "Write an .mha file")
        return
    kind = mask.GetPixelIDTypeAsString()
    good = mask.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8)
    yield Check(f"{case}: type", good, kind, "Write 8-bit integers")
    labels = np.unique(sitk.GetArrayViewFromImage(mask)).tolist()
    shown = f"{len(labels)} labels: {', '.join(f'{label:g}' for label in labels[:5])}"
    good = len(labels) <= MOST_LABELS and set(labels) <= set(values)
    yield Check(f"{case}: labels", good, shown, f"Only {', '.join(map(str, values))} may occur")
    found = "×".join(map(str, mask.GetSize()))
    good = tuple(mask.GetSize()) == tuple(size_xyz)
    yield Check(f"{case}: grid", good, found, "The mask has to lie on the image's grid")


def judge_json(case: str, path: Path) -> Check:
    """Whether a file is JSON as the platform reads it."""

    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}")

    try:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except ValueError as error:
        return Check(f"{case}: {path.name}", False, str(error), "Write UTF-8 and null for NaN")
    return Check(f"{case}: {path.name}", True, "JSON")


def memory_limits(instance: str) -> dict[str, int]:
    """Of an instance: GB in all, MB of data per process, MB of shared memory."""
    gigabytes, _ = INSTANCES[instance]
    return {
        "memory_gb": gigabytes,
        "data_mb": (gigabytes - 1) * 1024,
        "shm_mb": math.floor(gigabytes * 1024 / 2),
    }


def run(image: str, case: Path, work: Path, job: Mapping[str, Any], options: Sequence[str]) -> None:
    """Start the container and wait for its end; what the algorithm says goes to stdout.

    The whole log, with what the shim says of itself, goes to ``log.txt`` in ``work``.
    """
    (work / "report").mkdir(parents=True)
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    python = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", "command -v python3"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    mounts = [
        (HERE / "inside.py", "inside.py", "ro"),
        (HERE / "plain_tar.py", "plain_tar.py", "ro"),
        (packages(), "packages", "ro"),
        (case, "case", "ro"),
        (work / "job.json", "job.json", "ro"),
        (work / "report", "report", "rw"),
    ]
    command = ["docker", "run", "--rm", "--platform", "linux/amd64", "--network", "none"]
    command += ["--user", "0:0", "--entrypoint", python, "--tmpfs"]
    # An empty /tmp for everyone, as on the platform.
    command += ["/tmp:exec,mode=1777"]  # noqa: S108
    command += [*options]
    for source, target, mode in mounts:
        command += ["-v", f"{source}:/emulation/{target}:{mode}"]
    command += [image, "-I", "/emulation/inside.py"]
    with (
        (work / "log.txt").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as container,
    ):
        for line in container.stdout or ():
            log.write(line)
            said = said_by_the_algorithm(line)
            if said:
                print(f"    {said}", flush=True)


def said_by_the_algorithm(line: str) -> str:
    """The algorithm's own words in a line of the shim's log, or nothing."""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict) or entry.get("internal", True):
        return ""
    return str(entry.get("log", "")).strip()


def packages() -> Path:
    """The folder with the shim and moto, installed when first needed."""
    lock = HERE / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = ROOT / "out" / "emulation" / f"packages-{digest}"
    if not folder.is_dir():
        print("==> Installing the platform's shim and moto, once", flush=True)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        # The shim asks for Python 3.12 and works with 3.11, the image's.
        options = [
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--ignore-requires-python",
            "--target",
            str(partial),
        ]
        command = [sys.executable, "-m", "pip", "install", *options, "-r", str(lock)]
        subprocess.run(command, check=True)
        partial.rename(folder)
    return folder


def verdict(checks: Sequence[Check]) -> bool:
    """Print the table; return whether the platform would take it all."""
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "", "found", "what to do")
    for check in checks:
        word = "[green]ok[/green]" if check.passed else "[red]fail[/red]"
        table.add_row(check.name, word, check.found, "" if check.passed else check.fix)
    Console().print(table)
    return all(check.passed for check in checks)


def main() -> int:
    """Emulate, judge, print."""
    import SimpleITK as sitk

    from gc_panther.plugins import create_plugin_manager, find_task

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--image", help="gc-panther-TASK if not given")
    parser.add_argument("--health-timeout", type=int, default=HEALTH_LIMIT_S, help="seconds")
    parser.add_argument("--instance", choices=sorted(INSTANCES), default="g4dn.xlarge")
    parser.add_argument("--model", type=Path, help="model.tar.gz, as it is uploaded")
    parser.add_argument("--shm-mb", type=int, help="shared memory; half of the instance's else")
    arguments = parser.parse_args()
    image = arguments.image or f"gc-panther-{arguments.task}"
    task = find_task(create_plugin_manager(), arguments.task)
    limits, (_, gpu) = memory_limits(arguments.instance), INSTANCES[arguments.instance]
    told = subprocess.run(
        ["docker", "image", "inspect", image], capture_output=True, text=True, check=False
    )
    if told.returncode:
        print(f"error: there is no image {image}. Build it with ./do_build.sh", file=sys.stderr)
        return 2
    (inspected,) = json.loads(told.stdout)
    configuration, checks = inspected["Config"], list(judge_image(inspected))
    api = (configuration.get("Labels") or {}).get("org.grand-challenge.api-method", "exec")
    # A server is asked twice: what is left of the first case must not show in the second.
    cases = ["first", "second"] if api == "invoke" else ["first"]
    job = {
        "api": api,
        "entrypoint": configuration.get("Entrypoint"),
        "cmd": configuration.get("Cmd"),
        "user": configuration.get("User") or "",
        "memory_mb": limits["data_mb"],
        "health_timeout_s": arguments.health_timeout,
        "timeout_s": JOB_LIMIT_S,
        "signing_key_hex": secrets.token_hex(32),
        "cases": cases,
    }
    if arguments.shm_mb:
        limits["shm_mb"] = arguments.shm_mb
    options = ["--memory", f"{limits['memory_gb']}g", "--shm-size", f"{limits['shm_mb']}m"]
    engine = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False).stdout
    options += ["--gpus", "all"] if gpu and "nvidia" in engine else []
    work = ROOT / "out" / "emulation" / arguments.task
    shutil.rmtree(work, ignore_errors=True)
    case = ROOT / "test" / "cases" / arguments.task / "input"
    if arguments.model:
        options += ["-v", f"{arguments.model.resolve()}:/emulation/model.tar.gz:ro"]
        checks += judge_archive(arguments.model, task)
    print(
        f"==> {image} ({api}) as on {arguments.instance}: {limits['memory_gb']} GB, "
        f"{limits['data_mb']} MB of data per process, {limits['shm_mb']} MB of shared memory",
        flush=True,
    )
    run(image, case, work, job, options)
    report = work / "report"
    noted = report / "facts.json"
    facts = json.loads(noted.read_text()) if noted.is_file() else {"shim_status": "none"}
    (given,) = (case / task.interfaces[0].inputs[0].relative_path).glob("*.mha")
    size = sitk.ReadImage(str(given)).GetSize()
    folder = task.interfaces[0].outputs[0].relative_path
    checks += judge_start(report, {"signatures": {}, **facts}, job["signing_key_hex"])
    for name in cases:
        checks += judge_case(report, name, folder, task.mask_values, size)
    good = verdict(checks)
    print("The platform would take it." if good else "The platform would not take it.")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
