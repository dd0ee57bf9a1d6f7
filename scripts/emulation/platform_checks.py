"""What the platform checks of an image and of its output, one function for each stage."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

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
#: The first version of CUDA that the driver of the platform's T4 is not known to run.
TOO_NEW_CUDA = 13
#: Nominal limit of an image, GB, and number of labels of a segmentation.
LARGEST_IMAGE_GB, MOST_LABELS = 10, 64


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: what was checked.
        passed: whether the platform would take it.
        found: what is there.
        fix: what to do about it; empty where it passed.
    """

    name: str
    passed: bool
    found: str
    fix: str = ""


def check_image(inspected: Mapping[str, Any]) -> Iterator[Check]:
    """What the platform checks before it starts an image.

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


def check_gpu(cuda: str, instance: str, *, required: bool, tried: bool) -> Check:
    """Whether an image would use the GPU of an instance, and needs none where there is none.

    Args:
        cuda: the CUDA version of the image's torch; empty without CUDA.
        instance: the platform's name.
        required: whether the image refuses to start without a GPU.
        tried: whether it is going to run on a GPU here.
    """
    _, has_gpu = INSTANCES[instance]
    if not has_gpu:
        found = f"required by the image, and {instance} has none" if required else "none needed"
        fix = "Choose an instance with a GPU, or build with ./do_build.sh TASK --device cpu"
        return Check("gpu", not required, found, fix)
    found = f"CUDA {cuda}" if cuda else "torch without CUDA"
    fix = (
        "The driver of the platform's T4 is not known to run CUDA 13: build with ./do_build.sh TASK"
        if cuda
        else f"It would run on the CPU of {instance}: build with ./do_build.sh TASK --device gpu"
    )
    return Check("gpu", runs_there(cuda), found + ("" if tried else ", not tried on a GPU"), fix)


def runs_there(cuda: str) -> bool:
    """Whether a build of torch is known to use the platform's GPUs; empty without CUDA."""
    return bool(cuda) and int(cuda.partition(".")[0]) < TOO_NEW_CUDA


def default_instance(cuda: str) -> str:
    """The instance that an image is for, by the CUDA version of its torch."""
    return "g4dn.xlarge" if runs_there(cuda) else "r7i.large"


def check_archive(archive: Path, task: Any) -> Iterator[Check]:
    """Whether the model archive can be unpacked, and holds the task's models."""
    from gc_panther.errors import WeightsError
    from gc_panther.runtime.archives import unpack

    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(archive, Path(folder))
            yield from check_model(Path(folder), task)
        except WeightsError as error:
            yield Check("model archive", False, error.what, error.fix)


def check_model(folder: Path, task: Any) -> Iterator[Check]:
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


def check_start(report: Path, facts: Mapping[str, Any], key_hex: str) -> Iterator[Check]:
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


def check_case(
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
        yield from check_mask(case, images[0], values, size_xyz)
    for path in sorted(place.rglob("*.json")):
        if SHIM_RESULT not in path.parts:
            yield check_json(case, path)


def check_time(
    report: Path, cases: Sequence[str], seconds: float | None, limit: float
) -> Iterator[Check]:
    """Whether start-up, self-test and case together keep the limit of a job.

    Args:
        report: folder with what was in S3.
        cases: the tasks' names in S3.
        seconds: from the start of the shim to its end; None where it was not measured.
        limit: of the job, seconds.
    """
    taken = [found for case in cases if (found := _case_seconds(report, case)) is not None]
    if seconds is None or len(taken) < len(cases):
        return
    start = max(0.0, seconds - sum(taken))
    total = start + max(taken)
    found = f"start-up and self-test {start:.0f} s, case {max(taken):.0f} s, of {limit:g} s"
    fix = "Ask the challenge for its limit (--job-limit), or set GC_PANTHER_TIME_LIMIT in the image"
    yield Check("time", total <= limit, found, fix)


def _case_seconds(report: Path, case: str) -> float | None:
    """What the shim measured of a case that succeeded."""
    file = report / "s3" / case / SHIM_RESULT / "inference_result.json"
    if not file.is_file():
        return None
    result = json.loads(file.read_text())
    duration = result["invoke_duration"] or result["exec_duration"]
    if result["return_code"] != 0 or not duration:
        return None
    return TypeAdapter(timedelta).validate_python(duration).total_seconds()


def check_mask(
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


def check_json(case: str, path: Path) -> Check:
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


def report_checks(checks: Sequence[Check]) -> bool:
    """Print the table; return whether the platform would take it all."""
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "", "found", "what to do")
    for check in checks:
        word = "[green]ok[/green]" if check.passed else "[red]fail[/red]"
        table.add_row(check.name, word, check.found, "" if check.passed else check.fix)
    Console().print(table)
    return all(check.passed for check in checks)
