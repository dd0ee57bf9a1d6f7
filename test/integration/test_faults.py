"""Faults of the machine and of the weights: a correct mask, or one clear line and nothing written.

Each run is a process of its own on the bundled case, with one fold and without mirroring.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from gc_panther.imaging.images import read_image
from gc_panther.settings import bundled_resources

pytestmark = pytest.mark.slow
CASE = Path("test/cases/task1").resolve()
MASKS = "images/pancreatic-tumor-segmentation"


def run(
    output: Path,
    *options: str,
    given: Path = CASE / "input",
    before: Sequence[str] = (),
    limits: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`gc-panther run` in a process; a hang would be its end, not the test's."""
    command = [sys.executable, "-c", "from gc_panther.cli import main; main()", "run"]
    command += ["--task", "task1", "--device", "cpu", "--folds", "0", "--no-mirroring"]
    command += ["--input", str(given), "--output", str(output), *options]
    return subprocess.run(
        [*before, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=limits,
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_one_clear_line(done: subprocess.CompletedProcess[str], output: Path, said: str) -> None:
    assert done.returncode in (1, 2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert "internal error" not in line
    assert files_in(output) == []


def mask_in(output: Path) -> np.ndarray:
    (file,) = (output / MASKS).glob("*.mha")
    return read_image(file).array_zyx


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The mask without any fault."""
    output = tmp_path_factory.mktemp("faultless")
    done = run(output)
    assert done.returncode == 0, done.stderr
    mask = mask_in(output)
    assert mask.any()
    return mask


def data_limit(mebibytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (mebibytes * 2**20,) * 2)


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_four_gibibytes_of_data_are_enough(
    backend: str, expected: np.ndarray, tmp_path: Path
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    done = run(tmp_path, "--backend", backend, limits=data_limit(4096))
    assert done.returncode == 0, done.stderr
    # Two backends may turn a voxel that is all but tied.
    assert np.mean(mask_in(tmp_path) != expected) < 1e-5


def test_too_little_memory_is_one_clear_line(tmp_path: Path) -> None:
    done = run(tmp_path, "--backend", "torch", limits=data_limit(700))
    assert_one_clear_line(done, tmp_path, "ran out of memory")


def test_one_mebibyte_of_shared_memory_is_enough(expected: np.ndarray, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a small /dev/shm needs the right to mount one")
    done = run(tmp_path, before=before)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(mask_in(tmp_path), expected)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of the bundled weights that may be damaged."""
    folder = tmp_path / "weights"
    shutil.copytree(bundled_resources() / "task1", folder / "task1")
    return folder


def test_a_damaged_pack_is_refused_by_name(weights: Path, tmp_path: Path) -> None:
    file = weights / "task1" / "fold_0.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    done = run(tmp_path / "output", "--model-dir", str(weights))
    assert_one_clear_line(done, tmp_path / "output", "fold_0.safetensors")


def test_a_pack_without_a_fold_is_refused_by_name(weights: Path, tmp_path: Path) -> None:
    (weights / "task1" / "fold_0.safetensors").unlink()
    done = run(tmp_path / "output", "--model-dir", str(weights))
    assert_one_clear_line(done, tmp_path / "output", "fold_0.safetensors")


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_weights_that_are_not_numbers_are_one_clear_line(backend: str, tmp_path: Path) -> None:
    """A training that diverged leaves such a checkpoint; it is a valid file."""
    import torch

    from gc_panther.nnunet.model_folder import open_model_folder

    if backend == "openvino":
        pytest.importorskip("openvino")
    model = open_model_folder(bundled_resources() / "task1", (0,))
    weights = model.read_weights(0)
    name = next(n for n, value in weights.items() if n.startswith("decoder") and value.dim() == 5)
    weights[name] = weights[name].clone()
    weights[name][0, 0] = float("nan")
    folder = tmp_path / "weights" / "task1"
    (folder / "fold_0").mkdir(parents=True)
    for file in ("plans.json", "dataset.json"):
        shutil.copy(model.path / file, folder / file)
    checkpoint = {"network_weights": weights, "trainer_name": "nnUNetTrainer"}
    checkpoint["init_args"] = {"configuration": model.configuration}
    checkpoint["inference_allowed_mirroring_axes"] = model.mirroring_axes
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    done = run(tmp_path / "output", "--model-dir", str(tmp_path / "weights"), "--backend", backend)
    assert_one_clear_line(done, tmp_path / "output", "NaN or infinity")
    assert "fold_0" in done.stderr


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=4k tmpfs "$0" && exec "$@"'
    output = tmp_path / "output"
    output.mkdir()
    before = ["unshare", "--mount", "sh", "-c", script, str(output)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a full disk needs the right to mount one")
    done = run(output, before=before)
    # MetaIO, which writes the image, has its own line before ours.
    done.stderr = done.stderr.strip().splitlines()[-1]
    assert_one_clear_line(done, output, os.fspath(output))


@pytest.mark.parametrize(
    ("size", "file", "said"),
    [
        ("5000 5000 4000", "LOCAL", "too large"),
        ("10 10 10", "%s%s%s%n 1 10 1", "wants the pixels from elsewhere"),
    ],
    ids=["100 GB", "format string"],
)
def test_a_hostile_image_is_refused_in_little_memory(
    size: str, file: str, said: str, tmp_path: Path
) -> None:
    image = tmp_path / "input" / "images" / "abdominal-t1-mri" / "case.mha"
    image.parent.mkdir(parents=True)
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"DimSize = {size}\nElementType = MET_UCHAR\nElementDataFile = {file}\n"
    )
    image.write_bytes(header.encode() + bytes(1000))
    done = run(tmp_path / "output", given=tmp_path / "input", limits=data_limit(3072))
    assert_one_clear_line(done, tmp_path / "output", said)
