"""The built images, started as the platform starts them. `./do_build.sh TASK` builds one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from emulate import ENGINE

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = "images/pancreatic-tumor-segmentation"
AS_THE_PLATFORM = shlex.split(
    "--network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "
    "--pids-limit 256 --shm-size 1m -e GC_PANTHER_DEVICE=cpu -e GC_PANTHER_REQUIRE_GPU=0 -v /output"
)

#: One pass per window: what these tests are about is the container, not the ensemble.
QUICK = {"GC_PANTHER_FOLDS": "0", "GC_PANTHER_MIRRORING": "no"}

pytestmark = [pytest.mark.container, pytest.mark.slow]


def docker(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENGINE, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(params=["task1", "task2"])
def task(request, built_image):
    """A task whose image is there."""
    built_image(request.param)
    return request.param


def api_of(task: str) -> str:
    label = '{{index .Config.Labels "org.grand-challenge.api-method"}}'
    return docker("image", "inspect", "-f", label, f"gc-panther-{task}").stdout.strip()


def run_image(task: str, given: Path, out: Path, *options: str):
    """Exit status, stdout and stderr of one start, by the interface that the image has; /output
    is copied to ``out``.
    """
    created = docker(
        "create",
        *AS_THE_PLATFORM,
        *(word for name, value in QUICK.items() for word in ("-e", f"{name}={value}")),
        *options,
        *("-v", f"{given}:/input:ro", f"gc-panther-{task}"),
    )
    assert created.returncode == 0, created.stderr
    container = created.stdout.strip()
    try:
        if api_of(task) == "invoke":
            ran = invoke(container)
        else:
            ran = docker("start", "--attach", container)
        docker("cp", f"{container}:/output/.", str(out))
    finally:
        docker("rm", "--force", "--volumes", container)
    return ran


def invoke(container: str) -> subprocess.CompletedProcess[str]:
    """What an exec image would give: 0, or not, and the container's streams."""
    assert docker("start", container).returncode == 0
    client = (ROOT / "scripts" / "invoke.py").read_text()
    asked = subprocess.run(
        [ENGINE, "exec", "-i", container, "python3", "-"],
        input=client,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    stopped = docker("stop", "--time", "5", container)
    assert stopped.returncode == 0, stopped.stderr
    state = docker("inspect", "-f", "{{.State.ExitCode}}", container).stdout.strip()
    assert state == "0", f"the idle server ended with {state}"
    logs = docker("logs", container)
    return subprocess.CompletedProcess(
        asked.args, asked.returncode, asked.stdout + logs.stdout, logs.stderr
    )


def test_the_mask_is_the_one_the_command_line_writes_whoever_the_user_is(task, tmp_path):
    given = ROOT / "test" / "cases" / task / "input"
    command_line = str(Path(sys.executable).with_name("gc-panther"))
    with_cli = [command_line, "run", "--task", task, "--device", "cpu"]
    subprocess.run(
        [*with_cli, "--input", str(given), "--output", str(tmp_path / "cli")],
        env={**os.environ, **QUICK},
        check=True,
        capture_output=True,
    )
    (expected,) = (tmp_path / "cli" / OUTPUT).iterdir()
    for user, options in {
        "the image's": ("--memory", "8g"),
        "known nowhere": ("--user", "54321:54321", "--shm-size", "64m"),
    }.items():
        ran = run_image(task, given, tmp_path / user, *options)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        (mask,) = (tmp_path / user / OUTPUT).iterdir()
        assert mask.read_bytes() == expected.read_bytes(), user
    (image,) = (given / "images").rglob("*.mha")
    image, mask = sitk.ReadImage(str(image)), sitk.ReadImage(str(mask))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetPixelID() == sitk.sitkUInt8


def test_a_damaged_image_ends_in_one_line_and_nothing_in_output(task, tmp_path):
    given = tmp_path / "input"
    shutil.copytree(ROOT / "test" / "cases" / task / "input", given)
    (image,) = (given / "images").rglob("*.mha")
    image.write_bytes(image.read_bytes()[:5000])
    ran = run_image(task, given, tmp_path / "out")
    assert ran.returncode == (1 if api_of(task) == "invoke" else 2)
    # ITK says something of its own before.
    assert ran.stderr.splitlines()[-1].startswith("error: the image file is damaged")
    assert not list((tmp_path / "out").iterdir())


def test_doctor_finds_the_container_ready_for_a_user_that_is_known_nowhere(task):
    shown = docker(
        *("run", "--rm", *AS_THE_PLATFORM, "--user", "54321:54321"),
        *("--entrypoint", "gc-panther", f"gc-panther-{task}", "doctor", "--json"),
    )
    findings = {finding["check"]: finding for finding in json.loads(shown.stdout)}
    assert findings["user"]["found"] == "54321"
    assert findings["interface"]["found"].startswith("invoke: port 4743 is free")
    assert findings["image size"]["found"].startswith(("1.", "2."))
    assert findings[f"offline trial {task}"]["verdict"] == "ok"
    failed = [check for check, finding in findings.items() if finding["verdict"] == "fail"]
    assert failed == []
    assert shown.returncode == 0


def test_an_image_without_cuda_does_not_start_where_a_gpu_is_required(task):
    """As on the platform: a line and an end, no case on the CPU until the time limit."""
    image = f"gc-panther-{task}"
    options = ("-e", "GC_PANTHER_REQUIRE_GPU=1", "-e", "GC_PANTHER_DEVICE=auto", "-v", "/output")
    ran = docker("run", "--rm", "--network", "none", *options, image, timeout=120)
    assert ran.returncode in (1, 2)
    assert ran.stderr.splitlines()[-1].startswith("error: ")


def test_the_image_says_what_it_was_built_for(task):
    label = '{{index .Config.Labels "org.gc-panther.device"}}'
    device = docker("image", "inspect", "-f", label, f"gc-panther-{task}").stdout.strip()
    environment = docker("image", "inspect", "-f", "{{.Config.Env}}", f"gc-panther-{task}").stdout
    assert f"GC_PANTHER_REQUIRE_GPU={int(device == 'gpu')}" in environment


#: What an image may add to its base without CUDA, MB.
LARGEST = {"task1": 1600, "task2": 1700}


def test_the_image_holds_what_runs_and_no_more(task):
    """Size above the base; no tests, headers or pip. A CUDA build of torch has no such limit."""
    script = (
        "import subprocess, sys, pathlib; "
        "print(subprocess.check_output(['du', '-sb', '/opt'], text=True).split()[0]); "
        "site = pathlib.Path(sys.prefix) / 'lib' / f'python3.{sys.version_info[1]}/site-packages'; "
        "print(*(p for n in ('tests', 'include', 'pip', '__pycache__') for p in site.rglob(n))); "
        "import torch; print(torch.version.cuda)"
    )
    shown = docker(
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "python3",
        f"gc-panther-{task}",
        "-c",
        script,
    )
    assert shown.returncode == 0, shown.stderr
    size, superfluous, cuda = shown.stdout.split("\n")[:3]
    print(f"gc-panther-{task}: {int(size) / 1e6:.0f} MB above its base")
    assert superfluous == ""
    if cuda == "None":
        assert int(size) / 1e6 <= LARGEST[task]
