"""A model to fine-tune from has to be of the training's network and preprocessing."""

import pytest
import torch
from gc_panther_task1.training import Task1Recipe, Task1Training
from gc_panther_task2.training import Task2Recipe, Task2Training
from tiny_models import NETWORK, SCHEDULE, add_case, network_of, write_model

from gc_panther.errors import UserError, WeightsError
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.training.models.plans import (
    CONFIGURATION,
    network_configuration,
    network_of_plans,
)
from gc_panther.nnunet.training.models.starts import require_same_network
from gc_panther.nnunet.training.models.transfer import HEADS
from gc_panther.nnunet.training.pipeline import TrainingRequest

#: A network of the same tensors on another grid, so that no weight shows the difference.
COARSE = NETWORK.model_copy(update={"spacing_zyx": (6.0, 6.0, 6.0)})
WIDE = NETWORK.model_copy(update={"features": (2, 4, 8)})
DEEP = NETWORK.model_copy(
    update={
        "features": (2, 4, 4, 4),
        "strides": (*NETWORK.strides, (2, 2, 2)),
        "kernels": (*NETWORK.kernels, (3, 3, 3)),
        "blocks": (1, 1, 1, 1),
        "decoder_convs": (1, 1, 1),
    }
)


def check(folder, network=NETWORK):
    require_same_network(open_model_folder(folder), network_configuration(network))


def setting(key, value):
    def change(plans):
        plans["configurations"][CONFIGURATION][key] = value

    return change


def argument(key, value):
    def change(plans):
        plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"][key] = value

    return change


def order(plans):
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]


CHANGES = [
    (setting("spacing", [6.0, 3.0, 3.0]), "spacing in mm 6×3×3 instead of 3×1×1"),
    (setting("patch_size", [16, 16, 32]), "patch 16×16×32 instead of 16×16×16"),
    (
        setting("normalization_schemes", ["CTNormalization"]),
        "normalization CTNormalization instead of ZScoreNormalization",
    ),
    (setting("use_mask_for_norm", [True]), "normalization within a mask True instead of False"),
    (argument("strides", [[1, 1, 1], [1, 2, 2], [2, 2, 2]]), "strides .*1×2×2.* instead of"),
    (argument("kernel_sizes", [[1, 3, 3]] * 3), "kernels .*1×3×3.* instead of"),
    (argument("features_per_stage", [2, 4, 8]), "features 2×4×8 instead of 2×4×4"),
    (argument("conv_bias", False), "conv_bias False instead of True"),
    (order, "order of axes 2×0×1 instead of 0×1×2"),
]


def test_a_model_of_the_same_network_is_accepted(tmp_path):
    check(write_model(tmp_path / "m"))
    # Rounded on the way through another program.
    check(write_model(tmp_path / "r", change=setting("spacing", [3.000001, 1, 1])))


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_each_difference_is_refused_by_name(tmp_path, change, what):
    folder = write_model(tmp_path / "m", change=change)
    with pytest.raises(WeightsError, match=what) as caught:
        check(folder)
    assert caught.value.where == str(folder)
    assert "3d_fullres" in caught.value.what


def test_all_differences_are_named_at_once(tmp_path):
    def change(plans):
        setting("spacing", [6.0, 3.0, 3.0])(plans)
        setting("normalization_schemes", ["CTNormalization"])(plans)

    with pytest.raises(WeightsError, match=r"spacing .*; normalization CTNormalization"):
        check(write_model(tmp_path / "m", change=change))


def test_the_configuration_of_the_checkpoint_counts(tmp_path):
    def add_coarse(plans):
        # As nnU-Net writes what differs from another configuration.
        plans["configurations"]["3d_lowres"] = {
            "inherits_from": CONFIGURATION,
            "spacing": [6.0, 6.0, 6.0],
        }

    folder = write_model(tmp_path / "m", change=add_coarse, configuration="3d_lowres")
    with pytest.raises(WeightsError, match=r"3d_lowres .*spacing in mm 6×6×6 instead of 3×1×1"):
        check(folder)
    model = open_model_folder(folder)
    assert network_of_plans(model.plans, model.configuration) == COARSE
    check(folder, COARSE)


@pytest.mark.parametrize("lost", ["patch_size", "architecture", "batch_size"])
def test_plans_without_a_part_are_refused_in_one_line(lost):
    configuration = network_configuration(NETWORK)
    del configuration[lost]
    with pytest.raises(WeightsError, match="3d_fullres"):
        network_of_plans({"configurations": {CONFIGURATION: configuration}})


@pytest.mark.parametrize("other", [WIDE, DEEP])
def test_weights_of_another_network_are_refused_with_count_and_names(tmp_path, other):
    """Plans and weights that do not belong together, of which many tensors fit."""
    weights = network_of(other).state_dict()
    folder = write_model(tmp_path / "m", weights=weights)
    own = network_of(NETWORK).state_dict()
    names = {name for name in {*own, *weights} if HEADS not in name}
    fitting = [n for n in names if n in own and n in weights and own[n].shape == weights[n].shape]
    assert fitting
    with pytest.raises(WeightsError, match=f"{len(fitting)} of {len(names)} tensors fit") as caught:
        check(folder)
    assert "coder." in caught.value.what
    assert "more" in caught.value.what
    assert caught.value.where.endswith("checkpoint_final.pth")


def test_heads_of_other_labels_are_accepted(tmp_path):
    labels = {"background": 0, "tumour": 1}
    check(write_model(tmp_path / "m", labels=labels))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for name in ("10000_0001", "10001_0001"):
        add_case(folder, name)
    return folder


def test_task_1_refuses_before_any_work(tmp_path, data):
    recipe = Task1Recipe(folds=2, schedule=SCHEDULE, network=NETWORK)
    start = write_model(tmp_path / "m", COARSE)
    request = TrainingRequest("t", tmp_path / "w", tmp_path / "o", data=data, start_from=start)
    with pytest.raises(UserError, match="spacing in mm 6×6×6 instead of 3×1×1"):
        Task1Training().train_recipe(recipe, request)
    assert not request.work.exists()


def test_a_planned_network_is_compared_when_it_is_planned(tmp_path, data, monkeypatch):
    from gc_panther.nnunet.training.workspace import Workspace

    def planned(self, dataset):
        configuration = network_configuration(COARSE)
        return {"configurations": {CONFIGURATION: configuration}, "transpose_forward": [0, 1, 2]}

    monkeypatch.setattr(Workspace, "run", lambda self, jobs: None)
    monkeypatch.setattr(Workspace, "plans", planned)
    recipe = Task1Recipe(folds=2, schedule=SCHEDULE, network="M")
    start = write_model(tmp_path / "m")
    request = TrainingRequest("t", tmp_path / "w", tmp_path / "o", data=data, start_from=start)
    with pytest.raises(UserError, match="spacing in mm 3×1×1 instead of 6×6×6"):
        Task1Training().train_recipe(recipe, request)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (setting("normalization_schemes", ["CTNormalization"]), "CTNormalization instead of"),
        (argument("conv_bias", False), "conv_bias False"),
        (order, "order of axes"),
    ],
)
def test_task_2_refuses_before_any_work(tmp_path, change, what):
    start = write_model(tmp_path / "m", change=change)
    recipe = Task2Recipe(folds=2, schedule=SCHEDULE)
    request = TrainingRequest("t", tmp_path / "w", tmp_path / "o", data=tmp_path, start_from=start)
    with pytest.raises(UserError, match=what):
        Task2Training().train_recipe(recipe, request)
    assert not request.work.exists()


def test_task_2_takes_the_network_of_the_checkpoint_s_configuration(tmp_path, monkeypatch):
    def add_coarse(plans):
        plans["configurations"]["3d_lowres"] = {
            "inherits_from": CONFIGURATION,
            "spacing": [6.0, 6.0, 6.0],
        }

    start = write_model(tmp_path / "m", change=add_coarse, configuration="3d_lowres")
    taken = []
    monkeypatch.setattr(
        "gc_panther_task2.training._train_folds",
        lambda space, recipe, request, model, network, crops: taken.append(network),
    )
    data = tmp_path / "data"
    for name in ("10303", "10304"):
        add_case(data, name)
    request = TrainingRequest("t", tmp_path / "w", tmp_path / "o", data=data, start_from=start)
    Task2Training().train_recipe(Task2Recipe(folds=2, schedule=SCHEDULE), request)
    assert taken == [COARSE]


def test_several_channels_are_refused(tmp_path):
    import json

    folder = write_model(tmp_path / "m")
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["channel_names"] = {"0": "T1", "1": "T2"}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(WeightsError, match="2 image channels"):
        check(folder)


def test_nan_weights_are_refused(tmp_path):
    weights = network_of(NETWORK).state_dict()
    next(iter(weights.values())).fill_(torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        check(write_model(tmp_path / "m", weights=weights))
