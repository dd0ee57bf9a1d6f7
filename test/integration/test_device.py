"""What a run says about the GPU it cannot use; torch's GPU and the driver are stand-ins."""

import functools
import json
from types import SimpleNamespace

import pytest

from gc_panther.hardware import Driver, Gpu
from gc_panther.nnunet import device as torch_check
from gc_panther.runtime import device as policy

TORCH = SimpleNamespace(
    __version__="2.13.0+cu130",
    version=SimpleNamespace(cuda="13.0"),
    cuda=SimpleNamespace(is_available=lambda: False),
    get_num_threads=lambda: 2,
)


@pytest.fixture
def run(toy_command_line, toy_input, tmp_path, monkeypatch):
    check = functools.partial(torch_check.check_torch, torch=TORCH)
    monkeypatch.setattr(torch_check, "check_torch", check)
    gpus = (Gpu("Tesla T4", (7, 5), 15 * 2**30, 16 * 2**30),)
    monkeypatch.setattr(policy, "find_driver", lambda: Driver("570.133.20", gpus))
    command = ["run", "--task", "toy", "--input", str(toy_input)]
    command += ["--output", str(tmp_path / "output"), "--report", str(tmp_path / "report.json")]
    return lambda: toy_command_line(command)


def test_a_required_gpu_that_is_unusable_ends_in_one_line(run, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GC_PANTHER_REQUIRE_GPU", "1")
    assert run() == 2
    (line,) = capfd.readouterr().err.splitlines()
    for named in ("torch 2.13.0+cu130", "CUDA 13.0", "driver 570.133.20", "needs driver 580"):
        assert named in line
    assert list((tmp_path / "output").glob("*")) == []


def test_the_cpu_of_a_machine_with_a_driver_is_a_warning(run, tmp_path, caplog):
    assert run() == 0
    (record,) = [found for found in caplog.records if "No GPU is used" in found.getMessage()]
    assert record.levelname == "WARNING"
    device = json.loads((tmp_path / "report.json").read_text())["device"]
    assert device["name"] == "cpu"
    assert "CUDA 13.0 needs driver 580 or newer" in device["notes"][0]


def test_a_task_without_torch_runs_on_a_gpu_that_torch_cannot_use(
    run, toy_plugin, tmp_path, monkeypatch
):
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "libraries", ())
    monkeypatch.setenv("GC_PANTHER_REQUIRE_GPU", "1")
    assert run() == 0
    device = json.loads((tmp_path / "report.json").read_text())["device"]
    assert device["name"] == "cuda:0"
    assert device["description"] == "Tesla T4, 15.0 of 16.0 GiB free"
