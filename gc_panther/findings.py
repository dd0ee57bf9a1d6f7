"""The one record of what a check found and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gc_panther.errors import GCPantherError, missing_package

logger = logging.getLogger(__name__)

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was checked: a name, or a file of a data set, relative to its folder.
        verdict: ``fail`` means that the work cannot be done with it.
        found: what is there, or what is wrong with it.
        fix: what to do about it; empty where nothing has to be done.
    """

    check: str
    verdict: Verdict
    found: str
    fix: str = ""

    @property
    def failed(self) -> bool:
        """Whether the verdict is ``fail``."""
        return self.verdict == "fail"


def failure(check: str, error: Exception) -> Finding:
    """The finding for an error, foreseen or not.

    Args:
        check: what was checked.
        error: what it ended in.
    """
    if isinstance(error, GCPantherError):
        found = f"{error.what}: {error.where}" if error.where else error.what
        return Finding(check, "fail", found, error.fix)
    logger.debug("%s", check, exc_info=error)
    missing = missing_package(error)
    if missing is not None:
        return Finding(check, "fail", missing.what, missing.fix)
    found = " ".join(f"{type(error).__name__}: {error}".split())
    fix = "LOG_LEVEL=DEBUG shows the traceback; report it to the author of what failed"
    return Finding(check, "fail", found, fix)


def checked(check: str, find: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds, and its failure where it cannot be finished.

    Args:
        check: what the failure is about.
        find: the check; whatever it raises must not hide what others find.
    """
    findings = []
    try:
        for finding in find():
            findings.append(finding)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        findings.append(failure(check, error))
    return findings
