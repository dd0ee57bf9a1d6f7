"""One declaration of an option: flag, variable, argument, help, table, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from gc_panther.errors import PluginError, UserError
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.options import (
    Option,
    Options,
    RunOptions,
    as_report,
    declared,
    environment_values,
    merged_options,
    options_table,
    read_options,
)
from gc_panther.panther.options import PantherOptions
from gc_panther.settings import Settings

GROUPS = (Settings, RunOptions, PantherOptions)
ALL = [(group, one) for group in GROUPS for one in declared(group).values()]
TEXTUAL = [(group, one) for group, one in ALL if not one.is_boolean]
BOOLEANS = [(group, one) for group, one in ALL if one.is_boolean]
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"

#: Two texts that mean different values, none of them the default.
TEXTS = {
    "device": ("cpu", "cuda:1"),
    "step_size": ("0.25", "1"),
    "time_limit": ("7", "1e3"),
    "folds": ("0,2", "1"),
    "api": ("exec", "invoke"),
    "combine": ("logits", "vote"),
    "backend": ("torch", "openvino"),
    "mode": ("adaptive", "exact"),
}


def named(pairs: Any) -> Any:
    return [pytest.param(*pair, id=pair[1].name) for pair in pairs]


def value(group: Any, name: str, **arguments: Any) -> Any:
    return getattr(read_options(group, **{"environ": {}, **arguments}), name)


class Stranger(Options):
    """What a plugin outside of this repository may declare."""

    percentile: Annotated[float, Field(gt=0, lt=100, description="What is brighter.")] = 99.0
    rounds: Annotated[int, Field(ge=1, description="How often.")] = 1
    colour: Annotated[Literal["red", "blue"], Field(description="Of the picture.")] = "red"
    fast: bool = False


@pytest.mark.parametrize(("group", "one"), named(TEXTUAL))
def test_a_variable_takes_precedence_over_the_default(group: Any, one: Any) -> None:
    first, second = TEXTS.get(one.name, ("here", "there"))
    default = value(group, one.name)
    assert value(group, one.name, environ={one.variable: ""}) == default
    found = [value(group, one.name, environ={one.variable: text}) for text in (first, second)]
    assert found[0] != found[1]
    assert found[0] != default


@pytest.mark.parametrize(("group", "one"), named(pair for pair in TEXTUAL if pair[1].flags))
def test_a_flag_takes_precedence_over_the_variable(group: Any, one: Any) -> None:
    first, second = TEXTS.get(one.name, ("here", "there"))
    both = value(group, one.name, flags={one.name: first}, environ={one.variable: second})
    assert both == value(group, one.name, flags={one.name: first})
    assert both != value(group, one.name, environ={one.variable: second})


@pytest.mark.parametrize(("group", "one"), named(BOOLEANS))
def test_a_boolean_has_both_directions(group: Any, one: Any) -> None:
    assert len(one.flags) == 2
    for words, meant in (("1 true yes y on Y TRUE", True), ("0 false no n off N Off", False)):
        for word in words.split():
            environ = {one.variable: f" {word} "}
            assert value(group, one.name, environ=environ) is (meant != one.option.inverted)
            for flag in (True, False):
                assert value(group, one.name, environ=environ, flags={one.name: flag}) is flag


@pytest.mark.parametrize(
    ("name", "flags", "variable"),
    [
        ("mirroring", ("--mirroring", "--no-mirroring"), "GC_PANTHER_MIRRORING"),
        ("never_empty", ("--never-empty", "--keep-empty"), "GC_PANTHER_KEEP_EMPTY"),
        ("step_size", ("--step-size",), "GC_PANTHER_STEP_SIZE"),
    ],
)
def test_flags_and_variable_come_from_the_name_or_the_declaration(
    name: str, flags: tuple[str, ...], variable: str
) -> None:
    one = declared(PantherOptions)[name]
    assert (one.flags, one.variable) == (flags, variable)


def test_what_only_the_environment_sets_has_no_flag() -> None:
    assert declared(Settings)["scratch"].flags == ()
    assert declared(Settings)["log_level"].variable == "LOG_LEVEL"


def test_only_what_the_platform_starts_is_never_empty_by_default() -> None:
    assert value(PantherOptions, "never_empty") is False
    assert value(PantherOptions, "never_empty", on_platform=True) is True
    for text, meant in (("1", False), ("0", True)):
        environ = {"GC_PANTHER_KEEP_EMPTY": text}
        for on_platform in (False, True):
            found = value(PantherOptions, "never_empty", environ=environ, on_platform=on_platform)
            assert found is meant
    assert not value(PantherOptions, "never_empty", on_platform=True, flags={"never_empty": False})


@pytest.mark.parametrize(
    ("group", "name", "text", "fix"),
    [
        (Settings, "api", "soap", "Choose invoke or exec"),
        (RunOptions, "device", "cuda:x", "Choose auto, cpu, cuda or cuda:N"),
        (RunOptions, "device", "cpu\n", "Choose auto, cpu, cuda or cuda:N"),
        (RunOptions, "time_limit", "soon", "Give a number above 0"),
        (RunOptions, "time_limit", "-3", "Give a number above 0"),
        (RunOptions, "time_limit", "nan", "Give a number above 0"),
        (RunOptions, "time_limit", "inf", "Give a number above 0"),
        (RunOptions, "require_gpu", "maybe", "Use 1 or 0 (true or false, yes or no"),
        (PantherOptions, "never_empty", "maybe", "Use 1 or 0 (true or false, yes or no"),
        (PantherOptions, "combine", "magic", "Choose probabilities, logits or vote"),
        (PantherOptions, "folds", "0,,1", "Write the list of folds as 0,1,2"),
        (PantherOptions, "folds", "-1", "Write the list of folds as 0,1,2"),
        (PantherOptions, "step_size", "2", "Give a number above 0 and at most 1"),
        (PantherOptions, "step_size", "0", "Give a number above 0 and at most 1"),
        (PantherOptions, "backend", "abacus", "Choose auto, torch or openvino"),
        (PantherOptions, "mode", "fast", "Choose exact or adaptive"),
        (Stranger, "percentile", "100", "Give a number above 0 and below 100"),
        (Stranger, "rounds", "1.5", "Give a whole number of at least 1"),
    ],
)
def test_what_is_not_valid_is_refused_by_the_name_it_was_given(
    group: Any, name: str, text: str, fix: str
) -> None:
    one = declared(group)[name]
    said = f"is {text!r}, which is not valid"
    with pytest.raises(UserError) as error:
        read_options(group, environ={one.variable: text})
    assert error.value.what == f"{one.variable} {said}"
    assert error.value.fix.startswith(fix)
    with pytest.raises(UserError) as error:
        group(**{name: text})
    assert error.value.what == f"{name} {said}"
    if one.flags and not one.is_boolean:
        with pytest.raises(UserError) as error:
            read_options(group, {name: text}, {one.variable: text})
        assert error.value.what == f"{one.flags[0]} {said}"


def test_python_arguments_are_checked_and_frozen() -> None:
    options = NnUNetOptions(folds=(2, 0, 2), step_size=1)
    assert options.folds == (2, 0)
    assert NnUNetOptions(folds="2, 0,2") == NnUNetOptions(folds=(2, 0))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"folds is \(0, -1\), which is not valid"):
        NnUNetOptions(folds=(0, -1))
    with pytest.raises(UserError, match=r"no option 'fold'.*combine, folds, .* or mode"):
        NnUNetOptions(fold=(0,))  # type: ignore[call-arg]
    with pytest.raises(UserError, match="no option 'anything'"):
        Options(anything=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        options.combine = "vote"


def test_options_can_be_checked_together() -> None:
    class Together(Stranger):
        @model_validator(mode="after")
        def _fits(self) -> Together:
            if self.fast and self.rounds > 1:
                raise ValueError("fast is one round")
            return self

    with pytest.raises(UserError, match="fast is one round"):
        Together(fast=True, rounds=2)


def test_an_option_needs_a_default() -> None:
    with pytest.raises(TypeError, match="threshold needs a default"):

        class Needy(Options):
            threshold: float


def test_a_boolean_needs_a_flag_for_each_direction() -> None:
    class OneWay(Options):
        fast: Annotated[bool, Option(flag="--fast")] = False

    with pytest.raises(PluginError, match=r"fast has a flag for one direction.*--fast/--no-fast"):
        declared(OneWay)


def test_only_options_are_options() -> None:
    with pytest.raises(PluginError, match="dict is not a subclass"):
        declared(dict)  # type: ignore[arg-type]


@pytest.mark.parametrize(("group", "one"), named(ALL))
def test_every_option_has_a_help_text(group: Any, one: Any) -> None:
    assert one.help.endswith(".")
    assert all(word in one.help for word in one.choices)


def test_what_a_declaration_leaves_out_is_derived() -> None:
    fast, colour = declared(Stranger)["fast"], declared(Stranger)["colour"]
    assert (fast.flags, fast.help, fast.variable) == (
        ("--fast", "--no-fast"),
        "",
        "GC_PANTHER_FAST",
    )
    assert colour.help == "Of the picture: red or blue."
    assert colour.shown_default() == "red"


def test_inherited_options_are_the_same_declaration() -> None:
    merged = merged_options([("one", NnUNetOptions), ("two", PantherOptions), ("core", RunOptions)])
    assert set(merged) == {*PantherOptions.model_fields, *RunOptions.model_fields}
    assert merged["folds"].owner is NnUNetOptions


class Renamed(Options):
    backend: str = "abacus"


class SameFlag(Options):
    gpu: Annotated[str, Option(flag="--device")] = ""


class SameVariable(Options):
    gpu: Annotated[str, Option(variable="GC_PANTHER_DEVICE")] = ""


class AnotherDefault(NnUNetOptions):
    mirroring: bool = False


@pytest.mark.parametrize(
    ("group", "key"),
    [
        (Renamed, "'backend'"),
        (SameFlag, "'--device'"),
        (SameVariable, "'GC_PANTHER_DEVICE'"),
        (AnotherDefault, "'mirroring'"),
    ],
)
def test_two_declarations_of_one_option_are_refused(group: Any, key: str) -> None:
    groups = [("gc-panther", RunOptions), ("task1", PantherOptions), ("stranger", group)]
    with pytest.raises(PluginError) as error:
        merged_options(groups)
    assert f"stranger declare different options {key}" in error.value.what
    assert error.value.where.endswith(group.__name__)


def test_the_report_names_every_option_with_a_value_that_json_has() -> None:
    run, options = RunOptions(model_dir=Path("/models")), PantherOptions(folds=(0, 1))
    report = as_report(run, options)
    assert json.loads(json.dumps(report)) == report
    assert set(report) == {*RunOptions.model_fields, *PantherOptions.model_fields}
    assert (report["model_dir"], report["folds"]) == ("/models", [0, 1])


def test_the_environment_is_shown_in_the_words_of_its_variables() -> None:
    environ = {"GC_PANTHER_FOLDS": "0,1", "GC_PANTHER_MODEL_DIR": "/models"}
    shown = environment_values(GROUPS, environ)
    assert set(shown) == {one.variable for _, one in ALL}
    assert (shown["GC_PANTHER_FOLDS"], shown["GC_PANTHER_MODEL_DIR"]) == ([0, 1], "/models")
    # It depends on the command.
    assert shown["GC_PANTHER_KEEP_EMPTY"] is None
    assert environment_values(GROUPS, {"GC_PANTHER_KEEP_EMPTY": "1"})["GC_PANTHER_KEEP_EMPTY"]


def test_the_documentation_has_the_table_of_the_declarations() -> None:
    """`python scripts/options_table.py` writes it."""
    table = options_table(one for _, one in ALL)
    assert table in PAGE.read_text(encoding="utf-8")
