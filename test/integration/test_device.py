"""What a run says about the GPU it cannot use; torch's GPU and the driver are stand-ins."""

import functools
import json
from types import SimpleNamespace

import pytest

from gc_panther import session as engine
from gc_panther.runtime.device import select_device

TORCH = SimpleNamespace(
    __version__="2.13.0+cu130",
    version=SimpleNamespace(cuda="13.0"),
    cuda=SimpleNamespace(is_available=lambda: False),
    get_num_threads=lambda: 2,
)


@pytest.fixture
def run(toy_command_line, toy_input, tmp_path, monkeypatch):
    old = functools.partial(select_device, torch=TORCH, driver=lambda: "570.133.20")
    monkeypatch.setattr(engine, "select_device", old)
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
