"""``run`` and ``predict`` as processes: what they write for valid and for invalid input."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther.imaging.images import read_image
from gc_panther.runtime.weights import model_digest
from gc_panther.task import ModelRequirement

CommandLine = Callable[[list[str]], int]
MASKS = "images/toy-mask"


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def run(command_line: CommandLine, folder: Path, output: Path, *more: str) -> int:
    return command_line(
        ["run", "--task", "toy", "--device", "cpu"]
        + ["--input", str(folder), "--output", str(output), *more]
    )


def test_run_writes_one_mask_and_results(
    toy_command_line: CommandLine, toy_input: Path, toy_plugin: Any, tmp_path: Path, capfd: Any
) -> None:
    toy_plugin.report_extra = {"from": "a plugin"}
    output, report = tmp_path / "output", tmp_path / "report.json"
    assert run(toy_command_line, toy_input, output, "--report", str(report)) == 0
    assert files_in(output) == [f"{MASKS}/0f0e.mha", "results.json"]

    image = read_image(toy_input / "images/toy-folder/0f0e.mha")
    mask = read_image(output / MASKS / "0f0e.mha")
    assert mask.geometry == image.geometry
    assert np.array_equal(mask.array_zyx, (image.array_zyx > 250).astype(np.uint8))

    (result,) = json.loads((output / "results.json").read_text())
    assert result["outputs"] == [{"type": "metaio_image", "filename": "0f0e.mha"}]
    assert result["notes"] == ["a note"]

    written = json.loads(report.read_text())
    assert written["case"] == "patient one"
    assert written["toy"] == 1
    assert written["from"] == "a plugin"
    voxels = int(mask.array_zyx.sum())
    assert written["labels"]["foreground"]["voxels"] == voxels
    assert written["labels"]["foreground"]["volume_mm3"] == pytest.approx(voxels * 5.625)
    assert written["versions"]["torch"]
    assert (written["options"]["device"], written["options"]["mirroring"]) == ("cpu", True)
    assert written["options"]["time_limit"] is None
    assert written["seconds"]["total"] >= written["seconds"]["segment"]

    calls = [name for name, *_ in toy_plugin.calls]
    assert calls == ["check", "before", "after"]
    assert capfd.readouterr().err == ""


def test_a_second_run_replaces_the_first_result(
    toy_command_line: CommandLine, toy_input: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert run(toy_command_line, toy_input, tmp_path / "output") == 0
    assert files_in(tmp_path / "output") == [f"{MASKS}/0f0e.mha", "results.json"]


def _no_image(folder: Path) -> None:
    (folder / "0f0e.mha").unlink()


def _two_images(folder: Path) -> None:
    (folder / "second.mha").write_bytes((folder / "0f0e.mha").read_bytes())


def _empty_file(folder: Path) -> None:
    (folder / "0f0e.mha").write_bytes(b"")


def _truncated_file(folder: Path) -> None:
    path = folder / "0f0e.mha"
    path.write_bytes(path.read_bytes()[:-40])


def _image(array: np.ndarray, *, vector: bool = False) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        image = sitk.GetImageFromArray(array, isVector=vector)
        sitk.WriteImage(image, str(folder / "0f0e.mha"))

    return write


def _unknown_socket(folder: Path) -> None:
    inputs = folder.parents[1] / "inputs.json"
    inputs.write_text(inputs.read_text().replace("toy-mri", "knee-mri"))


NOT_FINITE = np.full((3, 4, 5), np.nan, np.float32)
BAD_INPUTS = {
    "no image": (_no_image, "exactly one image"),
    "two images": (_two_images, "exactly one image"),
    "2-D": (_image(np.zeros((4, 5), np.int16)), "not a volume"),
    "4-D": (_image(np.zeros((2, 3, 4, 5), np.int16)), "not a volume"),
    "RGB": (_image(np.zeros((3, 4, 5, 3), np.uint8), vector=True), "several values per voxel"),
    "empty file": (_empty_file, "empty"),
    "truncated file": (_truncated_file, "cannot be read"),
    "NaN": (_image(NOT_FINITE), "NaN or infinite"),
    "infinity": (_image(np.where(NOT_FINITE > 0, 0, np.inf).astype(np.float32)), "NaN or infinite"),
    "unknown socket": (_unknown_socket, "fit no interface"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_input_gives_one_line_and_leaves_the_output_empty(
    kind: str,
    toy_command_line: CommandLine,
    toy_input: Path,
    toy_plugin: Any,
    tmp_path: Path,
    capfd: Any,
) -> None:
    spoil, said = BAD_INPUTS[kind]
    spoil(toy_input / "images/toy-folder")
    assert run(toy_command_line, toy_input, tmp_path / "output") == 2
    # ITK may write a line of its own before; the platform shows the last one.
    *before, last = capfd.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert not any(line.startswith("error: ") for line in before)
    assert said in last
    assert not (tmp_path / "output").exists() or files_in(tmp_path / "output") == []
    assert toy_plugin.calls[-1][0] == "error"


def test_a_case_that_a_plugin_refuses_is_refused(
    toy_command_line: CommandLine, toy_input: Path, toy_plugin: Any, tmp_path: Path, capfd: Any
) -> None:
    toy_plugin.problems = ["this is a knee"]
    assert run(toy_command_line, toy_input, tmp_path / "output") == 2
    assert "this is a knee" in capfd.readouterr().err
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda mask: mask + 7, "values [7, 8]"),
        (lambda mask: mask.astype(np.float32), "float32"),
        (lambda mask: (_ for _ in ()).throw(MemoryError()), "ran out of memory"),
        (lambda mask: 1 / 0, "internal error (ZeroDivisionError"),
    ],
)
def test_a_failing_task_leaves_nothing_and_exits_with_one(
    change: Any,
    said: str,
    toy_command_line: CommandLine,
    toy_input: Path,
    toy_plugin: Any,
    tmp_path: Path,
    capfd: Any,
) -> None:
    toy_plugin.change = change
    output = tmp_path / "output"
    # What an earlier run left must not be taken for this one's result.
    (output / MASKS).mkdir(parents=True)
    (output / MASKS / "0f0e.mha").touch()
    assert run(toy_command_line, toy_input, output) == 1
    stderr = capfd.readouterr().err
    assert said in stderr
    assert stderr.count("\n") == 1
    assert files_in(output) == []


def test_a_failure_on_the_way_takes_back_what_was_written(
    toy_command_line: CommandLine,
    toy_input: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    from gc_panther import files

    staged = files._staged

    def full(path: Path, content: bytes) -> Any:
        if path.name == "results.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return staged(path, content)

    monkeypatch.setattr(files, "_staged", full)
    assert run(toy_command_line, toy_input, tmp_path / "output") == 1
    assert "No space left on device" in capfd.readouterr().err
    assert files_in(tmp_path / "output") == []


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nrrd"])
def test_predict_writes_a_mask_on_the_images_grid(
    ending: str,
    toy_command_line: CommandLine,
    write_volume: Callable[..., Path],
    tmp_path: Path,
) -> None:
    turn = np.deg2rad(20)
    direction = (np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1)
    image = write_volume(
        tmp_path / f"scan{ending}", direction=direction, origin_xyz=(-40.0, 12.0, 7.5)
    )
    mask, picture = tmp_path / f"mask{ending}", tmp_path / "mask.png"
    arguments = ["predict", "toy", str(image), "-o", str(mask), "--picture", str(picture)]
    assert toy_command_line([*arguments, "--device", "cpu"]) == 0
    given, written = read_image(image), read_image(mask)
    assert written.geometry.matches(given.geometry)
    assert np.array_equal(written.array_zyx, given.array_zyx > 250)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "scan.mha"], "would replace the image"),
        (["-o", "./folder/../scan.mha"], "would replace the image"),
        (["-o", "nowhere/mask.mha"], "folder does not exist"),
        (["-o", "folder"], "is a folder"),
        (["-o", "scan.mha/mask.mha"], "Not a directory"),
        (["-o", "n" * 252 + ".mha"], "File name too long"),
        (["-o", "d/" * 3000 + "m.mha"], "File name too long"),
        (["-o", "loop/mask.mha"], "symbolic links"),
        # Permission bits do not bind root; /proc takes no files from anybody.
        (["-o", "/proc/mask.mha"], "cannot be written"),
        (["-o", "mask.mha", "--report", "folder"], "is a folder"),
        (["-o", "mask.mha", "--picture", "folder"], "is a folder"),
        (["-o", "mask.mha", "--report", "mask.mha"], "the report would replace the mask"),
        (["-o", "mask.mha", "--report", "folder/../mask.mha"], "would replace the mask"),
        (["-o", "mask.mha", "--report", "p", "--picture", "p"], "would replace the report"),
        (["-o", "mask.mha", "--report", "scan.mha"], "the report would replace the image"),
        (["-o", "mask.mhd"], "masks are not written as .mhd"),
        (["-o", "mask.mha", "--combine", "magic"], "--combine is 'magic'"),
        (["-o", "mask.mha", "--step-size", "0"], "--step-size is '0'"),
        (["-o", "mask.mha", "--folds", "x"], "--folds is 'x', which is not valid"),
        (["-o", "mask.mha", "--device", "abacus"], "--device is 'abacus'"),
    ],
)
def test_predict_refuses_before_it_works(
    more: list[str],
    said: str,
    toy_command_line: CommandLine,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = write_volume(tmp_path / "scan.mha").read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    assert toy_command_line(["predict", "toy", "scan.mha", *more]) == 2
    assert said in capfd.readouterr().err
    assert files_in(tmp_path) == ["scan.mha"]
    assert (tmp_path / "scan.mha").read_bytes() == before


def test_plugins_add_commands(toy_command_line: CommandLine, capfd: Any) -> None:
    assert toy_command_line(["toy-command"]) == 0
    assert "toy says hello" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command"),
        (["predict", "toy"], "Missing argument"),
        (["run"], "no task was chosen"),
        (["run", "--task", "nope"], "no task 'nope'"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: list[str], said: str, toy_command_line: CommandLine, capfd: Any
) -> None:
    assert toy_command_line(arguments) == 2
    stderr = capfd.readouterr().err
    assert said in stderr
    assert stderr.count("\n") == 1


@pytest.fixture
def toy_model(toy_plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model that the toy task needs and does not read."""
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "models", (ModelRequirement("net", ()),))
    folder = tmp_path / "models" / "net"
    folder.mkdir(parents=True)
    (folder / "weights.onnx").write_bytes(b"weights")
    monkeypatch.setenv("GC_PANTHER_MODEL_DIR", str(folder.parent))
    return folder


DEMONSTRATION = "demonstration weights, trained on synthetic images, not for patients"


def test_demonstration_weights_are_named_wherever_they_are_used(
    toy_command_line: CommandLine,
    toy_input: Path,
    toy_model: Path,
    tmp_path: Path,
    capfd: Any,
    caplog: Any,
) -> None:
    identity = {"kind": "demonstration", "title": "Toy", "licence": "MIT", "model_card": "card.md"}
    (toy_model / "model.json").write_text(json.dumps(identity))
    report = tmp_path / "report.json"
    assert run(toy_command_line, toy_input, tmp_path / "output", "--report", str(report)) == 0
    assert f"{DEMONSTRATION} (net)" in caplog.messages
    written = json.loads(report.read_text())
    assert written["warnings"] == [f"{DEMONSTRATION} (net)"]
    expected = {"path": str(toy_model), "digest": model_digest(toy_model), **identity}
    assert written["models"] == {"net": expected}

    capfd.readouterr()
    assert toy_command_line(["info", "--json"]) == 0
    tasks = json.loads(capfd.readouterr().out)["tasks"]
    (weights,) = [task["weights"]["net"] for task in tasks if task["name"] == "toy"]
    assert weights.items() >= {"path": str(toy_model), **identity}.items()
    assert DEMONSTRATION in weights["description"]


def test_weights_that_say_nothing_are_of_unknown_origin(
    toy_command_line: CommandLine, toy_input: Path, toy_model: Path, tmp_path: Path, caplog: Any
) -> None:
    report = tmp_path / "report.json"
    assert run(toy_command_line, toy_input, tmp_path / "output", "--report", str(report)) == 0
    assert "demonstration" not in caplog.text
    written = json.loads(report.read_text())
    assert written["warnings"] == []
    assert written["models"]["net"]["kind"] == "unknown origin"


def test_info_and_doctor_speak_json(
    toy_command_line: CommandLine, capfd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert toy_command_line(["info", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert "toy" in [task["name"] for task in facts["tasks"]]
    # No weights anywhere: the tasks cannot run, and doctor's exit code says so.
    monkeypatch.setenv("GC_PANTHER_RESOURCES", str(tmp_path))
    assert toy_command_line(["doctor", "--json", "--device", "cpu"]) == 1
    captured = capfd.readouterr()
    failed = {f["check"] for f in json.loads(captured.out) if f["verdict"] == "fail"}
    assert failed == {"weights task1", "weights task2", "weights mrsegmentator"}
    assert captured.err.startswith("error: not ready")


def gc_panther(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("gc-panther")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_python_runs_the_command_line_as_a_module() -> None:
    command = [sys.executable, "-m", "gc_panther"]
    tasks = subprocess.run([*command, "tasks"], capture_output=True, text=True, check=False)
    assert (tasks.returncode, tasks.stdout) == (0, gc_panther("tasks").stdout)
    wrong = subprocess.run([*command, "predikt"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: No such command 'predikt'")


def test_the_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from gc_panther.cli import invoke; "
        "codes = [invoke([c]) for c in ('--help', 'info', 'tasks')]; "
        "heavy = {'torch', 'nnunetv2', 'SimpleITK', 'pandas', 'scipy'} & set(sys.modules); "
        "sys.exit(f'{codes} {heavy}' if any(codes) or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_data_flow_of_a_case_imports_neither_evalutils_nor_pandas() -> None:
    """evalutils is an extra, and a case waits for what is imported."""
    code = (
        "import sys; import gc_panther.commands.run, gc_panther.commands.serve, "
        "gc_panther.commands.predict, gc_panther.commands.cohort; "
        "heavy = {'evalutils', 'pandas', 'torch', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_weights_folder_with_a_missing_fold_is_refused(
    toy_command_line: CommandLine,
    tiny_model_folder: Callable[..., Path],
    write_volume: Callable[..., Path],
    tmp_path: Path,
    capfd: Any,
) -> None:
    folder = tiny_model_folder(folds=(0, 1, 2, 4))
    image = write_volume(tmp_path / "scan.mha")
    mask = tmp_path / "mask.mha"
    given = ["--model-dir", str(folder), "--device", "cpu"]
    assert toy_command_line(["predict", "task1", str(image), "-o", str(mask), *given]) == 2
    stderr = capfd.readouterr().err
    assert "3" in stderr
    assert str(folder) in stderr
    assert stderr.count("\n") == 1
    assert not mask.exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_weights_that_carry_code_are_refused_and_the_code_is_not_run(
    toy_command_line: CommandLine,
    tiny_model_folder: Callable[..., Path],
    write_volume: Callable[..., Path],
    tmp_path: Path,
    capfd: Any,
) -> None:
    import torch

    folder = tiny_model_folder(folds=(0, 1, 2, 3, 4))
    proof = tmp_path / "the code ran"
    file = folder / "fold_2" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    torch.save({**checkpoint, "extra": Evil(proof)}, file)
    image = write_volume(tmp_path / "scan.mha")
    mask = tmp_path / "mask.mha"
    given = ["--model-dir", str(folder), "--device", "cpu"]
    assert toy_command_line(["predict", "task1", str(image), "-o", str(mask), *given]) == 2
    stderr = capfd.readouterr().err
    assert str(file) in stderr
    assert stderr.count("\n") == 1
    assert not proof.exists()
    assert not mask.exists()


def test_a_time_limit_reaches_the_predictor(
    toy_command_line: CommandLine,
    toy_input: Path,
    toy_plugin: Any,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setenv("GC_PANTHER_TIME_LIMIT", "100000000")
    before = time.perf_counter()
    assert run(toy_command_line, toy_input, tmp_path / "output") == 0
    assert toy_plugin.runs[-1].deadline > before
    monkeypatch.delenv("GC_PANTHER_TIME_LIMIT")
    assert run(toy_command_line, toy_input, tmp_path / "again") == 0
    assert toy_plugin.runs[-1].deadline is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GC_PANTHER_TIME_LIMIT", "soon"),
        ("GC_PANTHER_TIME_LIMIT", "-3"),
        ("GC_PANTHER_FOLDS", "a,b"),
        ("GC_PANTHER_TASK", "nope"),
        ("GC_PANTHER_MODEL_DIR", "/nowhere"),
    ],
)
def test_a_setting_that_is_not_valid_is_refused_by_the_name_of_its_variable(
    variable: str,
    value: str,
    toy_command_line: CommandLine,
    toy_input: Path,
    tmp_path: Path,
    monkeypatch: Any,
    capfd: Any,
) -> None:
    monkeypatch.setenv("GC_PANTHER_TASK", "toy")
    monkeypatch.setenv(variable, value)
    output = tmp_path / "output"
    arguments = ["run", "--input", str(toy_input), "--output", str(output)]
    assert toy_command_line(arguments) == 2
    stderr = capfd.readouterr().err
    assert variable in stderr
    assert stderr.count("\n") == 1
    assert not output.exists() or not files_in(output)
