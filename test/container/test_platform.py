"""The built images under the platform's own shim, and images that break a rule and have to fail."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulate import ENGINE

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.container, pytest.mark.slow]

#: Writes the given array, without any network: `python3 -c` gets a folder and an array type.
WRITE = (
    "import SimpleITK as s, numpy as n, os; d='/output/images/pancreatic-tumor-segmentation';"
    "os.makedirs(d); i=s.GetImageFromArray(n.zeros((4,4,4),'{kind}'));"
    "[s.WriteImage(i, f'{{d}}/{{k}}.mha') for k in range({count})]"
)
#: One pass per window: what these tests are about is the platform, not the ensemble.
QUICK = "ENV GC_PANTHER_FOLDS=0 GC_PANTHER_MIRRORING=no"
EXEC = "LABEL org.grand-challenge.api-method=exec\n"
WRITE_SHARED = "open('/dev/shm/x', 'wb').write(bytes(8 << 20))"
#: What is added to the image, the check that has to fail, and the options of the emulation.
BROKEN = {
    "root": (
        f'{EXEC}USER 0\nENTRYPOINT ["python3", "-c", "{WRITE.format(kind="uint8", count=1)}"]',
        "user",
        (),
    ),
    "another port": (
        'ENTRYPOINT ["gc-panther", "serve", "--port", "4744"]',
        "start",
        ("--health-timeout", "20"),
    ),
    "slow health": (
        'ENTRYPOINT ["sh", "-c", "sleep 120; exec gc-panther serve"]',
        "start",
        ("--health-timeout", "10"),
    ),
    "two outputs": (
        f'{EXEC}ENTRYPOINT ["python3", "-c", "{WRITE.format(kind="uint8", count=2)}"]',
        "first: images",
        (),
    ),
    "a float mask": (
        f'{EXEC}ENTRYPOINT ["python3", "-c", "{WRITE.format(kind="float32", count=1)}"]',
        "first: type",
        (),
    ),
    "needs the network": (
        f'{EXEC}ENTRYPOINT ["python3", "-c", "import urllib.request as u; '
        "u.urlopen('http://192.0.2.1')\"]",
        "first: run",
        (),
    ),
    "needs shared memory": (
        f'{EXEC}ENTRYPOINT ["python3", "-c", "{WRITE_SHARED}"]',
        "first: run",
        ("--shm-mb", "1"),
    ),
}


def docker(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENGINE, *arguments], input=given, capture_output=True, text=True, check=False
    )


def emulate(task: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "emulation" / "emulate.py"), task, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)


def failing(done: subprocess.CompletedProcess[str]) -> set[str]:
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    return {row[1].strip() for row in rows if row[2].strip() == "fail"}


@pytest.fixture
def derived(built_image: Callable[[str], str]) -> Iterator[Callable[..., str]]:
    """Build an image from a built one, task 1's if no other is named, and lines of a Dockerfile."""
    names: list[str] = []

    def build(lines: str, base: str = "task1") -> str:
        name = f"gc-panther-derived:{uuid.uuid4().hex[:12]}"
        built = docker("build", "-t", name, "-", given=f"FROM {built_image(base)}\n{lines}\n")
        assert built.returncode == 0, built.stderr
        names.append(name)
        return name

    yield build
    for name in names:
        docker("rmi", "--force", name)


# Task 1's server is driven by the page that test_submission.py follows.
@pytest.mark.parametrize(
    ("task", "api"), [("task1", "exec"), ("task2", "exec"), ("task2", "invoke")]
)
def test_the_platform_would_take_the_image_and_its_output(
    task: str, api: str, derived: Callable[..., str]
) -> None:
    image = derived(QUICK, task if api == "invoke" else f"{task}-exec")
    done = emulate(task, "--image", image)
    assert failing(done) == set(), done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{image} ({api}) as on r7i.large" in done.stdout
    assert "The platform would take it." in done.stdout


def test_an_uploaded_model_takes_precedence_over_the_bundled_one(
    tmp_path: Path, derived: Callable[..., str]
) -> None:
    """With one fold less, the archive cannot serve: whoever reads it notices."""
    image = derived("ENV GC_PANTHER_MIRRORING=no", "task1-exec")
    for count, taken in ((5, True), (4, False)):
        model = tmp_path / f"{count}.tar.gz"
        with tarfile.open(model, "w:gz") as archive:
            archive.add(
                ROOT / "resources" / "task1",
                "task1",
                filter=lambda member, last=f"fold_{count}": None if last in member.name else member,
            )
        done = emulate("task1", "--image", image, "--model", str(model))
        assert (done.returncode == 0) == taken, done.stdout + done.stderr
        if not taken:
            assert failing(done) == {"first: run"}
            assert "fold_4.safetensors is missing" in " ".join(done.stdout.split())


def test_an_image_without_cuda_is_refused_for_a_gpu_instance(derived: Callable[..., str]) -> None:
    image = derived(QUICK, "task1-exec")
    done = emulate("task1", "--image", image, "--instance", "g4dn.xlarge")
    assert done.returncode == 1
    assert failing(done) == {"gpu"}
    assert "not tried on a GPU" in done.stdout


def test_start_up_and_case_together_keep_the_limit_of_a_job(
    built_image: Callable[[str], str],
) -> None:
    """The start alone takes more than a second."""
    done = emulate("task1", "--image", built_image("task1"), "--job-limit", "1")
    assert done.returncode == 1
    assert failing(done) & {"start", "time", "first: run"}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_image_that_breaks_a_rule_fails_with_the_right_line(
    fault: str, derived: Callable[[str], str]
) -> None:
    lines, check, options = BROKEN[fault]
    done = emulate("task1", "--image", derived(lines), *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert check in failing(done), done.stdout
    assert "The platform would not take it." in done.stdout
