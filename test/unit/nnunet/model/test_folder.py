import collections
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gc_panther.errors import EXIT_USER, WeightsError
from gc_panther.nnunet.model.folder import is_model_folder, open_model_folder, read_checkpoint


@pytest.fixture
def folder(tiny_model_folder):
    return tiny_model_folder(folds=(0, 1))


def checkpoint_of(folder, fold=0):
    return folder / f"fold_{fold}" / "checkpoint_final.pth"


def change(folder, fold=0, **values):
    """Rewrite a checkpoint with other top-level values."""
    path = checkpoint_of(folder, fold)
    torch.save({**torch.load(path, weights_only=True), **values}, path)
    return path


def refused(folder, folds=None):
    """The message with which a folder is refused, always one line that names the place."""
    with pytest.raises(WeightsError) as caught:
        open_model_folder(folder, folds)
    message = str(caught.value)
    assert caught.value.exit_code == EXIT_USER
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_a_plain_model_folder(folder):
    model = open_model_folder(folder)
    assert model.path == folder
    assert model.configuration == "3d_fullres"
    assert model.trainer_name == "nnUNetTrainer_Student"
    assert model.mirroring_axes == (0, 1, 2)
    assert model.labels == {"background": 0, "tumour": 1, "pancreas": 2}
    assert model.checkpoints == {0: checkpoint_of(folder, 0), 1: checkpoint_of(folder, 1)}


def test_folds_are_those_asked_for_in_that_order(folder):
    assert list(open_model_folder(folder, (1,)).checkpoints) == [1]
    assert list(open_model_folder(folder, (1, 0)).checkpoints) == [1, 0]


def test_best_checkpoints_are_taken_where_there_is_no_final_one(folder):
    best = checkpoint_of(folder, 1).with_name("checkpoint_best.pth")
    shutil.copy(checkpoint_of(folder, 1), best)
    assert open_model_folder(folder).checkpoints[1] == checkpoint_of(folder, 1)
    checkpoint_of(folder, 1).unlink()
    assert open_model_folder(folder).checkpoints[1] == best


@pytest.fixture
def flat(folder):
    """The organisers' layout."""
    for fold in (0, 1):
        checkpoint_of(folder, fold).rename(folder / f"checkpoint_best_PantherTask1_fold_{fold}.pth")
        (folder / f"fold_{fold}").rmdir()
    return folder


@pytest.mark.parametrize("plans", ["plans.json", "nnUNetResEncUNetMPlans.json"])
def test_the_organisers_flat_layout(plans, flat):
    (flat / "plans.json").rename(flat / plans)
    model = open_model_folder(flat)
    assert [path.name for path in model.checkpoints.values()] == [
        "checkpoint_best_PantherTask1_fold_0.pth",
        "checkpoint_best_PantherTask1_fold_1.pth",
    ]
    assert model.plans["plans_name"] == "nnUNetPlans"


def test_a_checkpoint_s_own_plans_serve_where_files_are_missing(flat):
    expected = open_model_folder(flat)
    (flat / "plans.json").unlink()
    (flat / "dataset.json").unlink()
    model = open_model_folder(flat)
    assert model.plans == expected.plans
    assert model.labels == expected.labels


def test_checkpoints_of_two_tasks_in_one_folder(flat):
    shutil.copy(
        flat / "checkpoint_best_PantherTask1_fold_0.pth",
        flat / "checkpoint_best_PantherTask2_fold_0.pth",
    )
    message = refused(flat)
    assert "fold 0" in message
    assert "PantherTask1" in message
    assert "PantherTask2" in message


def test_a_missing_fold(folder):
    message = refused(folder, (0, 1, 3, 4))
    assert "fold 3, 4 is missing" in message
    assert "found: 0, 1" in message
    assert "fold_3/checkpoint_final.pth" in message


def test_no_folder_no_checkpoint_no_plans(folder, tmp_path):
    assert "no such model folder" in refused(tmp_path / "nowhere")
    assert "no checkpoint" in refused(tmp_path)
    change(folder, init_args={"configuration": "3d_fullres"})
    (folder / "plans.json").unlink()
    assert "plans.json is missing" in refused(folder)


def test_a_folder_that_cannot_be_listed(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "cannot be read (Permission denied)" in refused(folder)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "not valid JSON"), ("[1]", "plans.json does not hold a JSON object")]
)
def test_plans_that_are_no_json_object(folder, text, said):
    (folder / "plans.json").write_text(text)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("plans.json", True),
        ("dataset.json", True),
        ("pack.json", True),
        ("fold_0/checkpoint_final.pth", True),
        ("fold_all/checkpoint_final.pth", False),
        ("notes.txt", False),
    ],
)
def test_a_model_folder_is_known_by_any_of_its_files(tmp_path, name, is_one):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert is_model_folder(tmp_path) == is_one


def test_a_real_checkpoint_with_everything_nnunet_saves(folder):
    weights = torch.load(checkpoint_of(folder), weights_only=True)["network_weights"]
    momentum = {0: {"momentum_buffer": torch.ones(3)}}
    path = change(
        folder,
        optimizer_state={"state": momentum, "param_groups": [{"lr": 0.01, "params": [0]}]},
        grad_scaler_state=None,
        logging={
            "train_losses": [np.float32(0.5)],
            "dice_per_class_or_region": [[np.float64(0.1), np.float64("nan")]],
            "ema_fg_dice": np.array([0.25]),
        },
        _best_ema=np.float64(0.7),
        current_epoch=np.int64(3),
    )
    assert read_checkpoint(path)["_best_ema"] == 0.7
    assert open_model_folder(folder).read_weights(0).keys() == weights.keys()


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
@pytest.mark.parametrize("fold", [0, 1])
def test_a_checkpoint_that_carries_code_is_refused_and_not_run(save, fold, folder, tmp_path):
    trace = tmp_path / "trace"
    content = torch.load(checkpoint_of(folder, fold), weights_only=True)
    save({**content, "logging": Harmful(f"touch {trace}")}, checkpoint_of(folder, fold))
    message = refused(folder)
    assert str(checkpoint_of(folder, fold)) in message
    assert not trace.exists()
    # Unsafe on purpose, and all it runs is `touch` in this test's folder: without it nobody would
    # know whether the file that was refused above could have done anything.
    if save is torch.save:
        torch.load(checkpoint_of(folder, fold), weights_only=False)
    else:
        pickle.loads(checkpoint_of(folder, fold).read_bytes())  # noqa: S301
    assert trace.exists(), "the checkpoint was not as harmful as the test believes"


def test_a_checkpoint_that_needs_a_class_is_refused(folder):
    change(folder, logging=collections.Counter("a"), extra=Harmful)
    assert "needs code to load" in refused(folder)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint(part, folder):
    path = checkpoint_of(folder, 1)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refused(folder)


def test_a_git_lfs_pointer(folder):
    checkpoint_of(folder).write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "Git LFS pointer" in refused(folder)


def test_another_kind_of_file(folder):
    torch.save({"state_dict": {}}, checkpoint_of(folder))
    assert "not an nnU-Net checkpoint" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, folder):
    weights = torch.load(checkpoint_of(folder, 1), weights_only=True)["network_weights"]
    last = list(weights)[-1]
    weights[last] = weights[last].clone()
    weights[last].flatten()[0] = value
    change(folder, 1, network_weights=weights)
    model = open_model_folder(folder)
    assert model.read_weights(0)
    with pytest.raises(WeightsError, match="NaN or infinity") as caught:
        model.read_weights(1)
    assert caught.value.where == str(checkpoint_of(folder, 1))


def test_tensors_that_share_memory_still_do(folder):
    weights = open_model_folder(folder).read_weights(0)
    encoder = [name for name in weights if name.startswith("encoder.")]
    assert encoder
    assert all(
        weights[name].data_ptr() == weights[f"decoder.{name}"].data_ptr() for name in encoder
    )
    storages = {value.untyped_storage().data_ptr() for value in weights.values()}
    assert len(storages) < len(weights)


def test_reading_weights_lets_go_of_the_file(folder):
    weights = open_model_folder(folder).read_weights(0)
    before = {name: value.clone() for name, value in weights.items()}
    path = checkpoint_of(folder)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert all(torch.equal(value, before[name]) for name, value in weights.items())


def test_names_of_a_compiled_network(folder):
    weights = torch.load(checkpoint_of(folder), weights_only=True)["network_weights"]
    change(folder, network_weights={f"_orig_mod.{name}": w for name, w in weights.items()})
    assert open_model_folder(folder).read_weights(0).keys() == weights.keys()


def test_checkpoints_of_another_configuration(folder):
    change(folder, 1, init_args={"configuration": "3d_lowres"})
    assert "3d_lowres" in refused(folder)


def write_dataset(folder, **values):
    dataset = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**dataset, **values}))


def test_the_ignore_label_is_none_of_the_networks(folder):
    write_dataset(folder, labels={"background": 0, "tumour": 1, "pancreas": 2, "ignore": 3})
    assert open_model_folder(folder).labels == {"background": 0, "tumour": 1, "pancreas": 2}


@pytest.mark.parametrize(
    "values",
    [
        {"labels": {"background": 0, "whole": [1, 2], "tumour": 1}},
        {"labels": {"background": 0, "tumour": 2}},
        {"labels": {"background": 0}},
        {"labels": {"tumour": 0, "pancreas": 1}},
        {"labels": None},
        {"channel_names": {"0": "T1", "1": "T2"}},
    ],
    ids=["regions", "gap", "no foreground", "no background", "none", "two channels"],
)
def test_models_of_another_kind(values, folder):
    write_dataset(folder, **values)
    refused(folder)


@pytest.mark.parametrize("name", ["2d", "3d_cascade_fullres"])
def test_configurations_of_another_kind(name, folder):
    plans = json.loads((folder / "plans.json").read_text())
    settings = {**plans["configurations"]["3d_fullres"], "previous_stage": "3d_lowres"}
    if name == "2d":
        del settings["previous_stage"]
    plans["configurations"] = {name: settings}
    (folder / "plans.json").write_text(json.dumps(plans))
    for fold in (0, 1):
        change(folder, fold, init_args={"configuration": name})
    assert name in refused(folder)
