"""What the environment may say, and how it is refused."""

from pathlib import Path

import pytest

from gc_panther.errors import UserError
from gc_panther.settings import VARIABLES, read_settings


def test_settings_come_from_one_table():
    settings = read_settings({"GC_PANTHER_TASK": "toy", "GC_PANTHER_MODEL_DIR": ""})
    assert settings.task == "toy"
    assert settings.model_dir is None
    assert settings.input == Path("/input")
    assert settings.resources.name == "resources"
    assert set(VARIABLES) == set(vars(settings))


def test_every_setting_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [variable for variable, _ in VARIABLES.values() if f"`{variable}`" not in text]
    assert not missing


@pytest.mark.parametrize("name", ["require_gpu", "keep_empty", "mirroring"])
def test_a_boolean_is_written_in_five_ways(name):
    variable, _ = VARIABLES[name]
    for words, meant in (("1 true yes y on Y TRUE", True), ("0 false no n off N Off", False)):
        assert {getattr(read_settings({variable: word}), name) for word in words.split()} == {meant}
    with pytest.raises(UserError, match=rf"{variable} is 'maybe'.*1 or 0.*on or off"):
        read_settings({variable: "maybe"})


def test_what_is_not_set_or_empty_has_its_default():
    for environ in ({}, {variable: "" for variable, _ in VARIABLES.values()}):
        settings = read_settings(environ)
        assert (settings.mirroring, settings.require_gpu, settings.keep_empty) == (
            True,
            False,
            None,
        )
        assert (settings.folds, settings.time_limit, settings.step_size) == (None, None, 0.5)


def test_folds_are_numbers_each_of_them_once():
    assert read_settings({"GC_PANTHER_FOLDS": "2, 0,2"}).folds == (2, 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("api", "soap"),
        ("device", "cuda:x"),
        ("combine", "magic"),
        ("folds", "0,,1"),
        ("folds", "-1"),
        ("step_size", "2"),
        ("step_size", "0"),
        ("backend", "abacus"),
        ("mode", "fast"),
        ("time_limit", "soon"),
        ("time_limit", "-3"),
        ("time_limit", "nan"),
        ("time_limit", "inf"),
    ],
)
def test_a_value_that_is_not_valid_is_refused_by_the_name_of_its_variable(name, text):
    variable, _ = VARIABLES[name]
    with pytest.raises(UserError, match=rf"{variable} is '{text}'.*\. \w"):
        read_settings({variable: text})
