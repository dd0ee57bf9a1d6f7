"""One exception tree. Every error says what is wrong, where, and what to do about it.

The exit codes of every command are taken from here: 0 is success, 1 is "the work failed"
(:class:`ProcessingError`, or anything unforeseen), 2 is "change what you gave me"
(:class:`UserError` and its children).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: How torch's and OpenVINO's allocators and oneDNN say that there is no memory.
_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate",
    "bad_alloc",
    "could not create a primitive",
)

#: A line of a distribution's metadata, such as ``ray>=2.52; extra == "ray"``.
_OF_AN_EXTRA = re.compile(r"(?P<name>[\w.-]+).*\bextra == [\"'](?P<extra>[\w-]+)")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USER = 2

#: The platform shows the last line of stderr, cut at 1024 characters.
LONGEST_ERROR = 1000


class GCPantherError(Exception):
    """Base of all errors this package raises on purpose.

    Args:
        what: what is wrong, as a short sentence without a final stop.
        where: the file, folder, option or stage it concerns; may be empty.
        fix: what the reader can do about it; may be empty.
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, where: str | Path = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where)
        self.fix = fix

    def __str__(self) -> str:
        """The whole message on one line, as the platform's page shows it."""
        line = self.what if not self.where else f"{self.what}: {self.where}"
        if self.fix:
            line = f"{line}. {self.fix}"
        return _on_one_line(line)


def _on_one_line(text: str) -> str:
    """A text without line ends, and with escapes for what a terminal would obey or cannot show.

    File names may hold all of it.
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in " ".join(text.split())
    )


class ProcessingError(GCPantherError):
    """The inputs were acceptable, but the work could not be finished."""

    exit_code = EXIT_FAILED


class OutputError(ProcessingError):
    """A result failed its checks, or could not be written."""


class UserError(GCPantherError):
    """Something the caller gave has to change before the work can start."""

    exit_code = EXIT_USER


class InputError(UserError):
    """The input folder or image breaks the contract."""


class WeightsError(UserError):
    """A model folder is missing, incomplete, or not safe to load."""


class DeviceError(UserError):
    """The requested device is absent or cannot run the networks."""


class PluginError(UserError):
    """A task is unknown, registered twice, or its plugin cannot be loaded."""


def missing_package(error: BaseException) -> UserError | None:
    """The error to show where a Python package is not installed, or None for another failure."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    # A module of this package that is not there is a fault of this package.
    if package == __package__:
        return None
    extra = _extra_with(package)
    return UserError(
        f"the Python package {package!r} is not installed",
        fix=f"Run pip install 'gc-panther[{extra}]'"
        if extra
        else "Install what the task's distribution and requirements.lock list",
    )


def _extra_with(package: str) -> str:
    """The extra of gc-panther that installs a package; empty if none does."""
    from importlib import metadata

    wanted = package.lower().replace("_", "-")
    try:
        requirements = metadata.requires("gc-panther") or []
    except metadata.PackageNotFoundError:
        return ""
    for requirement in requirements:
        found = _OF_AN_EXTRA.match(requirement)
        if found and found["name"].lower().replace("_", "-") == wanted and found["extra"] != "dev":
            return found["extra"]
    return ""


def describe(error: BaseException) -> tuple[str, int]:
    """The message about a failure, and the exit code.

    Returns:
        One sentence or two, without a line's end, and the code.
    """
    if isinstance(error, GCPantherError):
        return str(error), error.exit_code
    if is_out_of_memory(error):
        return "the machine ran out of memory. Choose an instance with more memory", EXIT_FAILED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "the disk is full. Free some space and start again; nothing finished is lost",
            EXIT_FAILED,
        )
    if isinstance(error, BrokenPipeError):
        return "what is printed cannot be written: its reader has closed the pipe", EXIT_FAILED
    # Python's words for it; a thread's stack counts as data, of which a process may have a limit.
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return (
            "no further thread can be started: memory, or the number of processes, is limited. "
            "Choose an instance with more memory",
            EXIT_FAILED,
        )
    missing = missing_package(error)
    if missing is not None:
        return str(missing), missing.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_FAILED
    return (
        f"internal error ({type(error).__name__}: {error}). "
        "The traceback is in the log on stdout; please report it",
        EXIT_FAILED,
    )


def error_line(message: str) -> str:
    """The one line for stderr."""
    return _on_one_line(f"error: {message}")[:LONGEST_ERROR]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in Python's words or in those of a library."""
    text = str(error).lower()
    said = isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_WORDS)
    return said or isinstance(error, MemoryError)


@contextmanager
def clear_memory_errors(doing: str) -> Iterator[None]:
    """Turn an exhausted memory, however a library says it, into an error that says so.

    Args:
        doing: what goes on in the block, such as "loading the networks".

    Raises:
        ProcessingError: the GPU's or the machine's memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        gpu = "cuda" in str(error).lower()
        raise ProcessingError(
            f"the {'GPU' if gpu else 'machine'} ran out of memory while {doing}",
            fix="Free the GPU, choose one with more memory, or use --device cpu"
            if gpu
            else "Choose an instance with more memory, or give the container more",
        ) from error
