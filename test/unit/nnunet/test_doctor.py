"""What doctor says of nnU-Net's models."""

import pytest

from gc_panther.findings import Finding
from gc_panther.hardware import Device
from gc_panther.nnunet.doctor import examine_models
from gc_panther.nnunet.inference import ensemble
from gc_panther.nnunet.inference.precision import Choice, Trial
from gc_panther.task import ModelRequirement, Task

GPU = Device("cuda:0", "Tesla T4, 15.0 of 16.0 GiB free")


class WithModels(Task):
    """A task with one model, of which all folds that are there are used."""

    name = "with models"
    title = "With models"
    interfaces = ()
    models = (ModelRequirement("net", (), "Get it at home"),)

    def load(self, runtime):
        raise AssertionError("doctor's rows load nothing")


def examined(folder, device=None):
    return list(examine_models(WithModels(), {"net": folder}, device))


def test_the_folds_that_can_be_read_are_a_row(tiny_model_folder):
    folder = tiny_model_folder(folds=(0, 2))
    assert examined(folder) == [Finding("folds net", "ok", "0, 2")]
    assert examined(folder, Device("cpu", "CPU, 2 threads")) == examined(folder)


@pytest.mark.parametrize(
    ("choice", "verdict", "found"),
    [
        (
            Choice("half", "", Trial(2e-4, 0.3)),
            "ok",
            "half; off by 2.0e-04, 0.30 of float32's time",
        ),
        (Choice("float32", "cuDNN is wrong"), "warn", "float32: cuDNN is wrong"),
    ],
)
def test_the_precision_of_each_network_is_a_row(
    tiny_model_folder, monkeypatch, choice, verdict, found
):
    """The GPU and what it measures are stand-ins."""
    monkeypatch.setattr(ensemble, "precision_on_this_gpu", lambda *_: choice)
    _, row = examined(tiny_model_folder(folds=(0,)), GPU)
    assert row == Finding("precision net", verdict, found)


def test_a_model_that_is_missing_or_another_librarys_has_no_row(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"weights")
    assert examined(tmp_path, GPU) == []
    assert list(examine_models(WithModels(), {}, GPU)) == []


def test_a_damaged_model_is_a_row(tmp_path):
    (tmp_path / "plans.json").write_text("{}")
    (found,) = examined(tmp_path, GPU)
    assert (found.check, found.verdict) == ("folds net", "fail")
    assert "holds no checkpoint" in found.found


def test_an_error_that_nobody_foresaw_is_a_row(tiny_model_folder, monkeypatch):
    def fail(*_):
        raise LookupError("no such layer")

    monkeypatch.setattr(ensemble, "precision_on_this_gpu", fail)
    folds, precision = examined(tiny_model_folder(folds=(0,)), GPU)
    assert folds.verdict == "ok"
    assert (precision.check, precision.verdict) == ("precision net", "fail")
    assert precision.found == "LookupError: no such layer"
