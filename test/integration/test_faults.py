"""Faults of the machine and of the weights: a correct mask, or one clear line and nothing written.

Each run has one fold and no mirroring, on the surroundings of the bundled case's tumour. It is a
process of its own where limits of the machine are tested; for memory, with the whole case.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundled import CASES, small_input

from gc_panther import cli
from gc_panther.imaging.images import read_image
from gc_panther.settings import bundled_resources

pytestmark = pytest.mark.slow
WHOLE = CASES / "task1" / "input"
MASKS = "images/pancreatic-tumor-segmentation"
#: Seconds that only a run which hangs waits.
PATIENCE = 600


def arguments(given: Path, output: Path, *options: str) -> list[str]:
    """Of `gc-panther`, to segment the image in an input folder."""
    words = ["run", "--task", "task1", "--device", "cpu", "--folds", "0", "--no-mirroring"]
    return [*words, "--input", str(given), "--output", str(output), *options]


def run(
    given: Path,
    output: Path,
    *options: str,
    before: Sequence[str] = (),
    limits: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`gc-panther run` in a process; a hang would be its end, not the test's."""
    command = [sys.executable, "-c", "from gc_panther.cli import main; main()"]
    return subprocess.run(
        [*before, *command, *arguments(given, output, *options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        preexec_fn=limits,
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_one_clear_line(code: int, stderr: str, output: Path, said: str) -> None:
    assert code in (1, 2)
    (line,) = stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert "internal error" not in line
    assert files_in(output) == []


def mask_in(output: Path) -> np.ndarray:
    (file,) = (output / MASKS).glob("*.mha")
    return read_image(file).array_zyx


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input folder whose image is soon segmented."""
    return small_input("task1", tmp_path_factory.mktemp("small") / "input")


@pytest.fixture(scope="module")
def expected(small: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The mask of the small image without any fault."""
    output = tmp_path_factory.mktemp("faultless")
    assert cli.invoke(arguments(small, output)) == 0
    mask = mask_in(output)
    assert mask.any()
    return mask


def data_limit(mebibytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (mebibytes * 2**20,) * 2)


def test_four_gibibytes_of_data_are_enough(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    masks = []
    for backend in ("openvino", "torch"):
        output = tmp_path / backend
        done = run(WHOLE, output, "--backend", backend, limits=data_limit(4096))
        assert done.returncode == 0, done.stderr
        masks.append(mask_in(output))
    assert masks[0].any()
    # Two backends may turn a voxel that is all but tied.
    assert np.mean(masks[0] != masks[1]) < 1e-5


def test_too_little_memory_is_one_clear_line(tmp_path: Path) -> None:
    # A build with CUDA takes more before there is any image.
    limit = 600 if torch.version.cuda is None else 1150
    done = run(WHOLE, tmp_path, "--backend", "torch", limits=data_limit(limit))
    assert_one_clear_line(done.returncode, done.stderr, tmp_path, "GB are available")


def test_one_mebibyte_of_shared_memory_is_enough(
    small: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a small /dev/shm needs the right to mount one")
    done = run(small, tmp_path, before=before)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(mask_in(tmp_path), expected)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of the bundled weights that may be damaged."""
    folder = tmp_path / "weights"
    shutil.copytree(bundled_resources() / "task1", folder / "task1")
    return folder


def test_a_damaged_pack_is_refused_by_name(
    small: Path, weights: Path, tmp_path: Path, capfd: Any
) -> None:
    file = weights / "task1" / "fold_0.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    code = cli.invoke(arguments(small, tmp_path / "output", "--model-dir", str(weights)))
    assert_one_clear_line(code, capfd.readouterr().err, tmp_path / "output", "fold_0.safetensors")


def test_a_pack_without_a_fold_is_refused_by_name(
    small: Path, weights: Path, tmp_path: Path, capfd: Any
) -> None:
    (weights / "task1" / "fold_0.safetensors").unlink()
    code = cli.invoke(arguments(small, tmp_path / "output", "--model-dir", str(weights)))
    assert_one_clear_line(code, capfd.readouterr().err, tmp_path / "output", "fold_0.safetensors")


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_weights_that_are_not_numbers_are_one_clear_line(
    backend: str, small: Path, tmp_path: Path, capfd: Any
) -> None:
    """A training that diverged leaves such a checkpoint; it is a valid file."""
    import torch

    from gc_panther.nnunet.model.folder import open_model_folder

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
    output, models = tmp_path / "output", str(tmp_path / "weights")
    code = cli.invoke(arguments(small, output, "--model-dir", models, "--backend", backend))
    stderr = capfd.readouterr().err
    assert_one_clear_line(code, stderr, output, "NaN or infinity")
    assert "fold_0" in stderr


def test_a_full_disk_leaves_nothing_half_written(small: Path, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=4k tmpfs "$0" && exec "$@"'
    output = tmp_path / "output"
    output.mkdir()
    before = ["unshare", "--mount", "sh", "-c", script, str(output)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a full disk needs the right to mount one")
    done = run(small, output, before=before)
    # MetaIO, which writes the image, has its own line before ours.
    last = done.stderr.strip().splitlines()[-1]
    assert_one_clear_line(done.returncode, last, output, os.fspath(output))
