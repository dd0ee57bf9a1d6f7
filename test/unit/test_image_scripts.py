"""do_build.sh, do_test_run.sh and do_save.sh, with an engine that only notes what it is asked.

They run in a copy of the checkout without weights, so that each kind of source can be changed.
test/container builds and runs real images.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from script_checkout import BASE, ROOT, Checkout, make_checkout

from gc_panther.nnunet.cudnn import convolution_faults


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def build_cpu(checkout: Checkout, *options: str) -> None:
    checkout.prints("none")
    done = checkout.run("do_build.sh", "task1", "--device", "cpu", *options)
    assert done.returncode == 0, done.stderr


def build_arguments(words: list[str]) -> dict[str, str]:
    pairs = itertools.pairwise(words)
    return dict(value.split("=", 1) for option, value in pairs if option == "--build-arg")


def test_an_image_is_built_for_the_platform_s_gpus(checkout: Checkout) -> None:
    done = checkout.run("do_build.sh", "task1", TORCH_INDEX_URL="https://example.org/cpu")
    assert done.returncode == 0, done.stderr
    (built,) = checkout.asked("build")
    assert build_arguments(built) == {
        "API": "invoke",
        "BASE_IMAGE": BASE,
        "DEVICE": "gpu",
        "TORCH_LOCK": "requirements-torch-gpu.lock",
        "REQUIRE_GPU": "1",
    }
    assert checkout.image()["org.gc-panther.device"] == "gpu"
    assert "sbom.py gc-panther-task1" in done.stdout


def test_an_image_for_cpus_has_the_newer_torch_of_pytorch_s_index(checkout: Checkout) -> None:
    build_cpu(checkout)
    arguments = build_arguments(checkout.asked("build")[0])
    assert arguments["TORCH_LOCK"] == "requirements-torch.lock"
    assert arguments["REQUIRE_GPU"] == "0"
    assert arguments["TORCH_INDEX_URL"].endswith("/whl/cpu")


def test_the_lock_for_gpus_has_a_cudnn_without_known_faults() -> None:
    lock = (ROOT / "requirements-torch-gpu.lock").read_text()
    torch = re.search(r"^torch==(\S+)", lock, re.MULTILINE)
    cudnn = re.search(r"^nvidia-cudnn-cu12==(\d+)\.(\d+)\.(\d+)", lock, re.MULTILINE)
    assert torch and cudnn
    major, minor, patch = map(int, cudnn.groups())
    faults = convolution_faults(torch[1], 10_000 * major + 100 * minor + patch)
    assert (faults.half, faults.tf32) == ("right", False)


@pytest.mark.parametrize("task", ["task1", "task2"])
def test_the_dockerfile_s_defaults_are_those_of_the_platform(task: str) -> None:
    text = (ROOT / f"Dockerfile.{task}").read_text()
    for line in ("DEVICE=gpu", "TORCH_LOCK=requirements-torch-gpu.lock", "REQUIRE_GPU=1"):
        assert f"ARG {line}\n" in text
    assert "GC_PANTHER_REQUIRE_GPU=${REQUIRE_GPU}" in text


@pytest.mark.parametrize(("device", "cuda"), [("gpu", "none"), ("cpu", "13.0")])
def test_the_wrong_torch_leaves_the_image_that_was_there(
    device: str, cuda: str, checkout: Checkout
) -> None:
    assert checkout.run("do_build.sh", "task1").returncode == 0
    before = checkout.image()
    checkout.change("gc_panther/__init__.py")
    checkout.prints(cuda)
    done = checkout.run("do_build.sh", "task1", "--device", device)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the image's torch ")
    assert checkout.image() == before
    assert not list((checkout.engine / "images").glob("*candidate*"))


#: A file of each kind that an image is made from.
SOURCES = [
    "gc_panther/__init__.py",
    "tasks/task1/pyproject.toml",
    "resources/task1/plans.json",
    "requirements.lock",
    "requirements-torch-gpu.lock",
    "Dockerfile.task1",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["do_save.sh"], ["do_test_run.sh", "--as-platform"]], ids=lambda words: words[0]
)
def test_whatever_changed_is_built_again_before_it_is_saved_or_tried(
    command: list[str], checkout: Checkout
) -> None:
    command = [command[0], "task1", *command[1:]]
    assert checkout.run("do_build.sh", "task1").returncode == 0
    done = checkout.run(*command)
    assert done.returncode == 0, done.stderr
    assert checkout.asked("build") == []
    assert "emulate.py task1 --image gc-panther-task1" in done.stdout
    for path in SOURCES:
        checkout.change(path)
        assert checkout.run(*command).returncode == 0
        assert len(checkout.asked("build")) == 1, path


def test_what_is_not_in_the_image_builds_nothing_again(checkout: Checkout) -> None:
    assert checkout.run("do_build.sh", "task1").returncode == 0
    for path in ("tasks/task2/pyproject.toml", "resources/task2/plans.json", "do_save.sh"):
        checkout.change(path)
    checkout.change("requirements-torch.lock")
    assert "is up to date" in checkout.run("do_build.sh", "task1").stdout
    assert checkout.asked("build") == []


def test_no_cache_builds_again_and_leaves_an_image_that_is_up_to_date(checkout: Checkout) -> None:
    assert checkout.run("do_build.sh", "task1").returncode == 0
    assert checkout.run("do_build.sh", "task1", "--no-cache").returncode == 0
    assert "--no-cache" in checkout.asked("build")[0]
    assert checkout.run("do_build.sh", "task1").returncode == 0
    assert checkout.asked("build") == []


@pytest.mark.parametrize(
    "command",
    [["do_test_run.sh"], ["do_test_run.sh", "--as-platform"], ["do_save.sh", "--no-check"]],
    ids=" ".join,
)
def test_interface_device_and_base_of_an_image_are_kept(
    command: list[str], checkout: Checkout
) -> None:
    checkout.add_image("other", Id="sha256:other")
    checkout.prints("none")
    exec_on_cpu = ("--api", "exec", "--device", "cpu", "--tag", "mine")
    done = checkout.run("do_build.sh", "task1", *exec_on_cpu, BASE_IMAGE="other")
    assert done.returncode == 0, done.stderr
    checkout.change("gc_panther/__init__.py")
    done = checkout.run(command[0], "task1", *command[1:], "--tag", "mine")
    assert done.returncode == 0, done.stderr
    (built,) = checkout.asked("build")
    kept = {"API": "exec", "DEVICE": "cpu", "BASE_IMAGE": "other"}
    assert build_arguments(built).items() >= kept.items()
    assert checkout.image("mine")["org.grand-challenge.api-method"] == "exec"


@pytest.mark.parametrize("command", [["do_test_run.sh", "--as-platform"], ["do_save.sh"]])
def test_an_image_of_unknown_sources_is_refused(command: list[str], checkout: Checkout) -> None:
    checkout.add_image("gc-panther-task1")
    done = checkout.run(command[0], "task1", *command[1:])
    assert done.returncode == 1
    assert "does not say what it was built from" in done.stderr
    assert checkout.asked("build") == []


@pytest.mark.parametrize(
    "command", [["do_test_run.sh"], ["do_test_run.sh", "--as-platform"], ["do_save.sh"]]
)
def test_a_build_that_fails_is_an_error(command: list[str], checkout: Checkout) -> None:
    (checkout.engine / "fails-build").touch()
    done = checkout.run(command[0], "task1", *command[1:])
    assert done.returncode == 1
    assert "gc-panther-task1 could not be built (see above)" in done.stderr
    assert checkout.asked("create") == checkout.asked("save") == []


@pytest.mark.parametrize(
    "options", [("--as-platform",), ("--device", "gpu"), ("--tag", "mine")], ids=" ".join
)
def test_a_container_that_was_asked_for_needs_an_engine(
    options: tuple[str, ...], checkout: Checkout
) -> None:
    (checkout.engine / "fails-info").touch()
    done = checkout.run("do_test_run.sh", "task1", *options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {' '.join(options[:2])}".removesuffix(" mine"))
    assert "no engine (docker) answers" in done.stderr


def test_without_an_engine_the_first_command_runs_in_the_environment(checkout: Checkout) -> None:
    (checkout.engine / "fails-info").touch()
    done = checkout.run("do_test_run.sh", "task1")
    assert done.returncode == 0, done.stderr
    assert "gc-panther run --task task1 --device cpu" in done.stdout
    assert "not tried on a GPU" in done.stdout


def test_the_first_command_builds_for_the_cpu_and_needs_no_gpu(checkout: Checkout) -> None:
    checkout.prints("none")
    done = checkout.run("do_test_run.sh", "task1")
    assert done.returncode == 0, done.stderr
    assert build_arguments(checkout.asked("build")[0])["DEVICE"] == "cpu"
    (created,) = checkout.asked("create")
    assert "GC_PANTHER_REQUIRE_GPU=0" in created
    for restriction in ("none", "--read-only", "64m"):
        assert restriction in created
    assert "not tried on a GPU" in done.stdout


def test_an_image_for_gpus_is_given_them(checkout: Checkout) -> None:
    done = checkout.run("do_test_run.sh", "task1", "--device", "gpu")
    assert done.returncode == 0, done.stderr
    (created,) = checkout.asked("create")
    assert "--gpus" in created
    assert "GC_PANTHER_REQUIRE_GPU=0" not in created
    assert "not tried on a GPU" not in done.stdout
    checkout.prints("none")
    build_cpu(checkout)
    done = checkout.run("do_test_run.sh", "task1", "--device", "gpu")
    assert done.returncode == 1
    assert "is built for CPUs" in done.stderr


def test_a_case_and_a_model_of_one_s_own(checkout: Checkout, tmp_path: Path) -> None:
    build_cpu(checkout)
    given, model = tmp_path / "a case", tmp_path / "a model"
    given.mkdir()
    model.mkdir()
    options = ("--input", str(given), "--model", str(model))
    done = checkout.run("do_test_run.sh", "task1", *options)
    assert done.returncode == 0, done.stderr
    (created,) = checkout.asked("create")
    assert f"{given}:/input:ro" in created
    assert f"{model}:/opt/ml/model:ro" in created
    # Only the bundled case has a reference.
    assert done.stdout.count("reference.mha") == 0
    done = checkout.run("do_test_run.sh", "task1", *options, GC_PANTHER_NO_DOCKER="1")
    assert f"--model-dir {model} --input {given} " in done.stdout
    (model / "task1").mkdir()
    done = checkout.run("do_test_run.sh", "task1", "--as-platform", *options)
    assert done.returncode == 0, done.stderr
    assert f"emulate.py task1 --image gc-panther-task1 --input {given} " in done.stdout
    assert "/model.tar.gz" in done.stdout


def test_the_limits_reach_the_container_and_the_emulator(checkout: Checkout) -> None:
    build_cpu(checkout)
    limits = ("--job-limit", "600", "--health-timeout", "60")
    assert checkout.run("do_test_run.sh", "task1", *limits).returncode == 0
    (executed,) = checkout.asked("exec")
    assert executed[-4:] == list(limits)
    done = checkout.run("do_test_run.sh", "task1", "--as-platform", *limits)
    assert " ".join(limits) in done.stdout


def test_a_run_beyond_the_limit_of_a_job_is_an_error(checkout: Checkout) -> None:
    (checkout.root / ".venv" / "bin" / "gc-panther").write_text("#!/bin/sh\nexec sleep 300\n")
    options = ("--job-limit", "1")
    done = checkout.run("do_test_run.sh", "task1", *options, GC_PANTHER_NO_DOCKER="1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: not done within 1 s, the limit for start-up, self-test")


@pytest.mark.parametrize(
    "options",
    [
        ("--job-limit", "soon"),
        ("--job-limit", "0"),
        ("--health-timeout",),
        ("--instance", "g4dn.xlarge"),
        ("--input", "/nowhere"),
        ("--as-plattform",),
        ("--device", "tpu"),
    ],
    ids=" ".join,
)
def test_options_that_are_wrong_are_one_line_and_exit_2(
    options: tuple[str, ...], checkout: Checkout
) -> None:
    done = checkout.run("do_test_run.sh", "task1", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert options[0] in done.stderr
    assert checkout.asked() == []


def test_saving_says_sizes_and_gpu_memory(checkout: Checkout) -> None:
    done = checkout.run("do_save.sh", "task1")
    assert done.returncode == 0, done.stderr
    # Nothing was built before: it is built for the platform's GPUs.
    assert build_arguments(checkout.asked("build")[0])["DEVICE"] == "gpu"
    assert "2.0GB unpacked" in done.stdout
    assert "the platform takes 10GB" in done.stdout
    (estimated,) = [words for words in checkout.asked("run") if words[-1] == "/models/task1"]
    assert "gc_panther.nnunet.model.gpu_memory" in estimated
    assert "warning" not in done.stderr
    saved = sorted(path.name for path in (checkout.root / "out" / "save").iterdir())
    assert saved == ["task1.sha256", "task1_0.1.0_20260102T030405.tar.gz", "task1_model.tar.gz"]


def test_what_changes_while_it_is_saved_is_noticed(checkout: Checkout) -> None:
    """The image that was tried is another one than was saved."""
    assert checkout.run("do_build.sh", "task1").returncode == 0
    emulate = checkout.root / "scripts" / "emulation" / "emulate.py"
    emulate.write_text(
        "import os, pathlib\n"
        "image = pathlib.Path(os.environ['STAND_IN'], 'images', 'gc-panther-task1', 'Id')\n"
        "image.write_text('sha256:another')\n"
    )
    done = checkout.run("do_save.sh", "task1")
    assert done.returncode == 1
    assert "another image was tried than saved" in done.stderr


@pytest.mark.parametrize(("cuda", "word"), [("none", "no CUDA"), ("13.0", "CUDA 13.0")])
def test_saving_warns_of_a_build_that_the_platform_s_gpu_may_not_run(
    cuda: str, word: str, checkout: Checkout
) -> None:
    assert checkout.run("do_build.sh", "task1").returncode == 0
    checkout.prints(cuda)
    done = checkout.run("do_save.sh", "task1", "--no-check")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: the image's torch ")
    assert word in done.stderr


def test_an_image_over_the_platform_s_limit_is_not_saved(checkout: Checkout) -> None:
    assert checkout.run("do_build.sh", "task1").returncode == 0
    checkout.add_image("gc-panther-task1", Size="10000000001")
    done = checkout.run("do_save.sh", "task1")
    assert done.returncode == 1
    assert "the image is too large: 11GB unpacked" in done.stderr
    assert not list((checkout.root / "out" / "save").iterdir())


@pytest.fixture
def podman(checkout: Checkout) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs scripts with an engine called podman, while docker would fail."""
    programs = Path(checkout.environment["PATH"].partition(":")[0])
    (programs / "docker").rename(programs / "podman")
    (programs / "docker").write_text("#!/bin/sh\nexit 99\n")
    (programs / "docker").chmod(0o755)
    return lambda *words: checkout.run(*words, CONTAINER_ENGINE="podman")


def test_podman_takes_the_place_of_docker(
    podman: Callable[..., subprocess.CompletedProcess[str]], checkout: Checkout
) -> None:
    for words in (["do_build.sh", "task1"], ["do_test_run.sh", "task1"], ["do_save.sh", "task1"]):
        done = podman(*words)
        assert done.returncode == 0, done.stderr
    assert podman("do_test_run.sh", "task1", "--device", "gpu").returncode == 0
    (created,) = checkout.asked("create")
    assert "nvidia.com/gpu=all" in created
    # It has no such option.
    assert "--quiet" not in checkout.asked("cp")[0]


@pytest.mark.slow
def test_a_container_test_that_is_asked_for_fails_without_an_engine() -> None:
    """In a run of all tests it is skipped, with the reason."""
    options = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-k", "says_what_it_was_built")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test/container/test_images.py"],
        cwd=ROOT,
        env={**os.environ, "CONTAINER_ENGINE": "no-engine"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "no container engine (no-engine) answers" in done.stdout
