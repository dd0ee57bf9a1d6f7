import pytest

from gc_panther.errors import UserError
from gc_panther.nnunet.training.recipe import parse_recipe
from gc_panther.panther.training.recipe import PantherRecipe

RECIPE = "{{folds: 3, schedule: {{epochs: 2, learning_rate: 0.01}}, phantoms: {}}}"


def test_phantoms_of_a_recipe():
    text = RECIPE.format("{task: task1, cases: 4, seed: 7}")
    phantoms = parse_recipe(text, PantherRecipe, "good.yaml").phantoms
    assert (phantoms.task, phantoms.cases, phantoms.seed, phantoms.unlabelled) == ("task1", 4, 7, 0)


def test_phantoms_of_an_unknown_task_are_refused():
    text = RECIPE.format("{task: task9, cases: 1, seed: 0}")
    with pytest.raises(UserError, match=r"phantoms\.task:"):
        parse_recipe(text, PantherRecipe, "bad.yaml")
