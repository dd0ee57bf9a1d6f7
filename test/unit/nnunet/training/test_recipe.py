import pytest

from gc_panther.errors import UserError
from gc_panther.nnunet.training.models.plans import make_plans, network_of_plans
from gc_panther.nnunet.training.recipe import (
    PLANS_KEY,
    Network,
    Recipe,
    Schedule,
    describe_schedule,
    parse_recipe,
)

GOOD = """
folds: 3
schedule: {epochs: 2, learning_rate: 0.01}
"""


def test_a_good_recipe_keeps_nnunets_defaults():
    recipe = parse_recipe(GOOD, Recipe, "good.yaml")
    assert recipe.schedule.iterations_per_epoch == 250
    assert recipe.schedule.augmentation == "full"
    assert recipe.schedule.optimizer == "sgd"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("learning_rate: 0.01 -> learning_rate: -0.01", "schedule.learning_rate"),
        ("epochs: 2 -> epochs: 0", "schedule.epochs"),
        ("epochs: 2 -> epoch: 2", "schedule.epoch"),
        ("folds: 3 -> folds: 1", "folds"),
        ("folds: 3 -> folds: 3\ncolour: red", "colour"),
        ("0.01} -> 0.01, augmentation: wild}", "schedule.augmentation"),
        # Keys of earlier versions.
        ("0.01} -> 0.01, precision: bfloat16}", "schedule.precision"),
        ("0.01} -> 0.01, small_patches: {epochs: 1}}", "schedule.small_patches"),
    ],
)
def test_a_fault_is_named_with_its_place(change, named):
    old, new = change.split(" -> ")
    with pytest.raises(UserError, match=r"bad\.yaml") as caught:
        parse_recipe(GOOD.replace(old, new), Recipe, "bad.yaml")
    assert f"{named}:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["folds: [", "just words"])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(UserError):
        parse_recipe(text, Recipe, "x.yaml")


def network(**changes):
    values = {
        "spacing_zyx": (3, 1, 1),
        "patch_zyx": (16, 16, 16),
        "features": (4, 8, 8),
        "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        "kernels": ((3, 3, 3),) * 3,
        "blocks": (1, 1, 1),
        "decoder_convs": (1, 1),
    }
    return Network.model_validate({**values, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"patch_zyx": (18, 16, 16)},
        {"blocks": (1, 1)},
        {"decoder_convs": (1, 1, 1)},
        {"features": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))},
        {"spacing_zyx": (3, 1, 0)},
    ],
)
def test_a_network_that_nnunet_could_not_build_is_refused(change):
    with pytest.raises(ValueError, match="validation error"):
        network(**change)


FINGERPRINT = {
    "spacings": [[3.0, 1.0, 1.0]],
    "shapes_after_crop": [[20, 30, 40]],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}},
}


def test_plans_carry_the_schedule_and_give_the_network_back():
    schedule = Schedule(epochs=7, learning_rate=0.02)
    plans = make_plans("Dataset001_X", network(), schedule, FINGERPRINT, {"seed": 3})
    assert Schedule.model_validate(plans[PLANS_KEY]["schedule"]) == schedule
    assert plans[PLANS_KEY]["seed"] == 3
    assert network_of_plans(plans) == network()


def test_plans_of_another_architecture_are_refused():
    with pytest.raises(UserError, match="no configuration '3d_fullres'"):
        network_of_plans({"configurations": {"2d": {}}})
    other = {"architecture": {"network_class_name": "PlainConvUNet"}}
    with pytest.raises(UserError, match="ResidualEncoderUNet"):
        network_of_plans({"configurations": {"3d_fullres": other}})


def test_a_card_tells_of_a_schedule():
    given = {"epochs": 2, "learning_rate": 0.01, "optimizer": "adamw", "mirror": False}
    assert describe_schedule(Schedule(**given)) == (
        "2 epochs of 250 iterations, adamw from learning rate 0.01, augmentation full without "
        "mirroring"
    )
