import io
import logging
import sys

import pytest

from gc_panther.log import TerminalHandler, log_handler
from gc_panther.progress import shown_progress


class Terminal(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def log():
    logger = logging.Logger("a log")
    yield logger
    logger.handlers.clear()


@pytest.fixture
def open_terminal(monkeypatch):
    """Let stdout be a terminal; within a test, because pytest replaces it before each phase."""

    def open_terminal(**variables):
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm", **variables}.items():
            monkeypatch.setenv(name, value)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        return terminal

    return open_terminal


def test_a_file_gets_plain_lines(log, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    log.addHandler(log_handler())
    log.warning("The mask is %s", "empty")
    assert sys.stdout.getvalue() == "The mask is empty\n"


def test_warnings_are_red_on_a_terminal(log, open_terminal):
    terminal = open_terminal()
    log.addHandler(log_handler())
    log.info("[plain] %s", "x" * 200)
    log.warning("unusual")
    plain, warning = terminal.getvalue().splitlines()
    assert plain == "[plain] " + "x" * 200
    assert warning == "\x1b[31munusual\x1b[0m"


def test_no_colours_where_they_are_not_wanted(log, open_terminal):
    terminal = open_terminal(NO_COLOR="1")
    log.addHandler(log_handler())
    log.warning("unusual")
    assert terminal.getvalue() == "unusual\n"


def test_a_line_is_written_above_the_bars_and_not_behind_them(log, open_terminal):
    terminal = open_terminal(NO_COLOR="1")
    log.addHandler(TerminalHandler())
    with shown_progress() as progress:
        progress.start("fold 0", 3)
        progress.advance()
        log.warning("unusual")
        progress.finish()
    lines = terminal.getvalue().splitlines()
    (line,) = (line for line in lines if "unusual" in line)
    # What precedes it on its line takes the bar away.
    assert line.replace("\r", "").replace("\x1b[2K", "") == "unusual"
