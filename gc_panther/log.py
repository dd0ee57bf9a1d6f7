"""Where the log goes: stdout, because stderr is for the one line of a failure."""

from __future__ import annotations

import io
import logging
import sys
import warnings

#: Rich's names of the colours that stand out on a terminal, by level.
COLOURS = {logging.WARNING: "red", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class TerminalHandler(logging.Handler):
    """Writes above the bars of a progress that is shown, with warnings in red."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; Rich knows whether the terminal and its user want colours."""
        from rich.console import Console
        from rich.text import Text

        try:
            console = Console()
            with console.capture() as captured:
                style = COLOURS.get(record.levelno, "")
                console.print(Text(self.format(record), style=style), soft_wrap=True)
            # A console writes past the stand-in that keeps stdout's lines above the bars.
            sys.stdout.write(captured.get())
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)


def log_handler() -> logging.Handler:
    """The handler that suits where stdout goes."""
    return TerminalHandler() if sys.stdout.isatty() else logging.StreamHandler(sys.stdout)


def start_log(level: str) -> None:
    """Send log lines and warnings to stdout, with the time.

    Args:
        level: the least one that is shown, by its name; INFO for names that are unknown.
    """
    number = logging.getLevelName(level.upper())
    # A line that cannot be written, because a name in it is not Unicode or stdout is full, is no
    # reason to fail, nor to fill stderr.
    logging.raiseExceptions = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        handlers=[log_handler()],
        level=number if isinstance(number, int) else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # Says at each start how many threads it would use, if anybody used it.
    logging.getLogger("numexpr").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # Library warnings interest developers of this package, who ask for them with `python -W`, not
    # the reader of a run's log.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
