"""Where the log goes: stdout, because stderr is for the one line of a failure."""

from __future__ import annotations

import logging
import sys

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
