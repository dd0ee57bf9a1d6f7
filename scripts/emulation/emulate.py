"""Starts an image as the platform does, gives it a case, and checks what it writes.

    ./do_test_run.sh task2 --as-platform [--instance g4dn.xlarge] [--model model.tar.gz]

In one container without network run the platform's published shim (sagemaker-shim, as root), an S3
server (moto) that it fetches from and uploads to, and our entry point, as the image's user. The
limits are those of an instance that the platform offers. The result is a table: what was checked,
what was found, what to do. Exit status 1 where the platform would not take the image or its output.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_checks import (
    HEALTH_LIMIT_S,
    INSTANCES,
    JOB_LIMIT_S,
    Check,
    check_archive,
    check_case,
    check_gpu,
    check_image,
    check_start,
    check_time,
    default_instance,
    memory_limits,
    report_checks,
)

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
#: docker, or podman, which takes the same commands.
ENGINE = os.environ.get("CONTAINER_ENGINE") or "docker"
#: What is asked in the image: where Python is, and the CUDA version of its torch.
ASK = """command -v python3; python3 -c '
try:
    import torch
    print(torch.version.cuda or "")
except ImportError:
    pass
'"""


@dataclass(frozen=True)
class Image:
    """What is known of an image before it runs.

    Attributes:
        name: its tag.
        inspected: its entry of ``docker image inspect``.
        python: where its Python is.
        cuda: the CUDA version of its torch; empty without CUDA or torch.
    """

    name: str
    inspected: Mapping[str, Any]
    python: str
    cuda: str

    @property
    def api(self) -> str:
        """The interface of the platform that it is labelled with."""
        labels = self.inspected["Config"].get("Labels") or {}
        return str(labels.get("org.grand-challenge.api-method", "exec"))

    @property
    def requires_gpu(self) -> bool:
        """Whether its entry point refuses to run on a CPU."""
        return "GC_PANTHER_REQUIRE_GPU=1" in (self.inspected["Config"].get("Env") or [])


def inspect(name: str) -> Image | None:
    """What the engine knows of an image; None where there is no such image."""
    command = [ENGINE, "image", "inspect", name]
    answered = subprocess.run(command, capture_output=True, text=True, check=False)
    if answered.returncode:
        return None
    (inspected,) = json.loads(answered.stdout)
    command = [ENGINE, "run", "--rm", "--network", "none", "--entrypoint", "sh", name, "-c", ASK]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    python, cuda = [*answer.split("\n"), ""][:2]
    return Image(name, inspected, python.strip(), cuda.strip())


def gpu_options() -> list[str]:
    """Options that give a container the machine's GPUs; none where the engine has none to give."""
    if Path(ENGINE).name == "podman":
        folders = (Path("/etc/cdi"), Path("/var/run/cdi"))
        there = any(file for folder in folders for file in folder.glob("nvidia*"))
        return ["--device", "nvidia.com/gpu=all"] if there else []
    shown = subprocess.run([ENGINE, "info"], capture_output=True, text=True, check=False).stdout
    return ["--gpus", "all"] if "nvidia" in shown else []


def run(
    image: Image, case: Path, work: Path, job: Mapping[str, Any], options: Sequence[str]
) -> None:
    """Start the container and wait for its end; what the algorithm says goes to stdout.

    The whole log, with what the shim says of itself, goes to ``log.txt`` in ``work``.
    """
    (work / "report").mkdir(parents=True)
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    mounts = [
        (HERE / "inside.py", "inside.py", "ro"),
        (HERE / "plain_tar.py", "plain_tar.py", "ro"),
        (packages(), "packages", "ro"),
        (case, "case", "ro"),
        (work / "job.json", "job.json", "ro"),
        (work / "report", "report", "rw"),
    ]
    command = [ENGINE, "run", "--rm", "--platform", "linux/amd64", "--network", "none"]
    command += ["--user", "0:0", "--entrypoint", image.python, "--tmpfs"]
    # An empty /tmp for everyone, as on the platform.
    command += ["/tmp:exec,mode=1777"]  # noqa: S108
    command += [*options]
    for source, target, mode in mounts:
        command += ["-v", f"{source}:/emulation/{target}:{mode}"]
    command += [image.name, "-I", "/emulation/inside.py"]
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
    """What the algorithm itself wrote, of a line of the shim's log; empty for other lines."""
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


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--image", help="gc-panther-TASK if not given")
    parser.add_argument("--input", type=Path, help="the bundled case if not given")
    parser.add_argument(
        "--job-limit",
        type=int,
        default=JOB_LIMIT_S,
        help="seconds for start-up, self-test and case together",
    )
    parser.add_argument("--health-timeout", type=int, default=HEALTH_LIMIT_S, help="seconds")
    parser.add_argument(
        "--instance",
        choices=sorted(INSTANCES),
        help="by default one with a GPU for an image that would use it, one without otherwise",
    )
    parser.add_argument("--model", type=Path, help="model.tar.gz, as uploaded to the platform")
    parser.add_argument("--shm-mb", type=int, help="shared memory; half of the instance's if not")
    return parser.parse_args()


def job_of(image: Image, arguments: argparse.Namespace, data_mb: int) -> dict[str, Any]:
    """The shim's settings."""
    configuration = image.inspected["Config"]
    return {
        "api": image.api,
        "entrypoint": configuration.get("Entrypoint"),
        "cmd": configuration.get("Cmd"),
        "user": configuration.get("User") or "",
        "memory_mb": data_mb,
        "health_timeout_s": min(arguments.health_timeout, arguments.job_limit),
        # Of a case alone; what it took together with the start is checked afterwards.
        "timeout_s": arguments.job_limit,
        "signing_key_hex": secrets.token_hex(32),
        # A server is asked twice: what is left of the first case must not show in the second.
        "cases": ["first", "second"] if image.api == "invoke" else ["first"],
    }


def main() -> int:
    """Emulate, check, print."""
    import SimpleITK as sitk

    from gc_panther.platform.inputs import find_inputs
    from gc_panther.plugins import create_plugin_manager, find_task

    arguments = parse_arguments()
    task = find_task(create_plugin_manager(), arguments.task)
    case = arguments.input or ROOT / "test" / "cases" / arguments.task / "input"
    inputs = find_inputs(case, task)
    image = inspect(arguments.image or f"gc-panther-{arguments.task}")
    if image is None:
        print("error: there is no such image. Build it with ./do_build.sh", file=sys.stderr)
        return 2
    instance = arguments.instance or default_instance(image.cuda)
    limits, (_, has_gpu) = memory_limits(instance), INSTANCES[instance]
    gpus = gpu_options() if has_gpu and image.cuda else []
    checks: list[Check] = list(check_image(image.inspected))
    checks.append(check_gpu(image.cuda, instance, required=image.requires_gpu, tried=bool(gpus)))
    job = job_of(image, arguments, limits["data_mb"])
    if arguments.shm_mb:
        limits["shm_mb"] = arguments.shm_mb
    options = ["--memory", f"{limits['memory_gb']}g", "--shm-size", f"{limits['shm_mb']}m"]
    options += gpus or (["-e", "GC_PANTHER_REQUIRE_GPU=0"] if has_gpu else [])
    work = ROOT / "out" / "emulation" / arguments.task
    shutil.rmtree(work, ignore_errors=True)
    if arguments.model:
        options += ["-v", f"{arguments.model.resolve()}:/emulation/model.tar.gz:ro"]
        checks += check_archive(arguments.model, task)
    print(
        f"==> {image.name} ({image.api}) as on {instance}: {limits['memory_gb']} GB, "
        f"{limits['data_mb']} MB of data per process, {limits['shm_mb']} MB of shared memory"
        + ("" if gpus else "; not tried on a GPU"),
        flush=True,
    )
    run(image, case, work, job, options)
    report = work / "report"
    noted = report / "facts.json"
    facts = json.loads(noted.read_text()) if noted.is_file() else {"shim_status": "none"}
    size = sitk.ReadImage(str(next(iter(inputs.images.values())))).GetSize()
    folder = inputs.interface.outputs[0].relative_path
    checks += check_start(report, {"signatures": {}, **facts}, job["signing_key_hex"])
    for name in job["cases"]:
        checks += check_case(report, name, folder, task.mask_values, size)
    checks += check_time(report, job["cases"], facts.get("seconds"), arguments.job_limit)
    good = report_checks(checks)
    print("The platform would take it." if good else "The platform would not take it.")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
