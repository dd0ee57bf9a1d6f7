"""Where a container finds its things."""

from pathlib import Path

from gc_panther.settings import read_settings


def test_what_is_not_set_or_empty_has_its_default():
    for environ in ({}, {"GC_PANTHER_INPUT": "", "GC_PANTHER_SCRATCH": ""}):
        settings = read_settings(environ)
        assert (settings.task, settings.api, settings.scratch) == ("", "", None)
        assert (settings.input, settings.output) == (Path("/input"), Path("/output"))
        assert settings.resources == Path(__file__).parents[2] / "resources"


def test_settings_come_from_the_environment():
    environ = {"GC_PANTHER_TASK": "toy", "GC_PANTHER_API": "exec", "LOG_LEVEL": "DEBUG"}
    settings = read_settings(environ)
    assert (settings.task, settings.api, settings.log_level) == ("toy", "exec", "DEBUG")
