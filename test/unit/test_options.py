"""Which of flag, variable and default counts."""

import pytest

from gc_panther.errors import UserError
from gc_panther.options import GivenOptions
from gc_panther.settings import read_settings

#: Field, name in the inference options or choices, flags for on and off, variable.
BOOLEANS = [
    ("mirroring", "GC_PANTHER_MIRRORING", "--mirroring", "--no-mirroring"),
    ("require_gpu", "GC_PANTHER_REQUIRE_GPU", "--require-gpu", "--no-require-gpu"),
    ("keep_empty", "GC_PANTHER_KEEP_EMPTY", "--keep-empty", "--never-empty"),
]
DEFAULTS = {"mirroring": True, "require_gpu": False, "keep_empty": False}


@pytest.fixture
def chosen(monkeypatch, toy_command_line):
    """What the engine is given by a command line: ``chosen(command, arguments)``."""
    from gc_panther.commands import predict, run

    seen = []

    class Stop(UserError):
        pass

    def stop(task, manager, settings, choices, **_):
        seen.append(choices)
        raise Stop("enough")

    monkeypatch.setattr(run, "run", stop)
    monkeypatch.setattr(predict, "predict", stop)

    def call(arguments, command=("run", "--task", "toy")):
        assert toy_command_line([*command, *arguments]) == 2
        return seen.pop()

    return call


def value(choices, field):
    return getattr(choices if hasattr(choices, field) else choices.options, field)


@pytest.mark.parametrize(("field", "variable", "on", "off"), BOOLEANS)
def test_a_flag_takes_precedence_over_a_variable_over_the_default(
    chosen, monkeypatch, field, variable, on, off
):
    assert value(chosen([]), field) is DEFAULTS[field]
    assert value(chosen([on]), field) is True
    assert value(chosen([off]), field) is False
    for text, meant in (("y", True), ("n", False)):
        monkeypatch.setenv(variable, text)
        assert value(chosen([]), field) is meant
        assert value(chosen([on]), field) is True
        assert value(chosen([off]), field) is False


def test_only_what_fills_the_platforms_output_is_never_empty_by_default(chosen, monkeypatch):
    predict = ("predict", "toy", "scan.mha", "-o", "mask.mha")
    assert chosen([]).options.keep_empty is False
    assert chosen([], predict).options.keep_empty is True
    assert chosen(["--never-empty"], predict).options.keep_empty is False
    monkeypatch.setenv("GC_PANTHER_KEEP_EMPTY", "0")
    assert chosen([], predict).options.keep_empty is False


def test_other_options_come_from_flag_then_variable():
    settings = read_settings({"GC_PANTHER_FOLDS": "0,1", "GC_PANTHER_STEP_SIZE": "0.25"})
    given = GivenOptions(folds="3", time_limit=5.0)
    choices = given.choices(settings, never_empty=True)
    assert (choices.options.folds, choices.options.step_size) == ((3,), 0.25)
    assert choices.time_limit == 5.0
    assert GivenOptions().choices(settings, never_empty=True).options.folds == (0, 1)


def test_a_time_limit_is_finite():
    with pytest.raises(UserError, match="--time-limit is inf"):
        GivenOptions(time_limit=float("inf")).choices(read_settings({}), never_empty=True)


@pytest.mark.parametrize("command", ["run", "serve", "predict", "cohort"])
def test_every_command_that_segments_has_all_options(command, toy_command_line, capfd):
    from dataclasses import fields

    assert toy_command_line([command, "--help"]) == 0
    text = capfd.readouterr().out
    for field in fields(GivenOptions):
        assert f"--{field.name.replace('_', '-')}" in text
