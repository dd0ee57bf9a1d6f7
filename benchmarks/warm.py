"""A task in a warm process, through the session behind the command line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from gc_panther.case import Case, Result, Volume
from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.runtime.weights import find_models, weight_roots
from gc_panther.session import Choices, Session
from gc_panther.settings import read_settings
from gc_panther.task import Task

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class WarmTask:
    """An installed task and its weights; the networks are loaded when the first case needs them.

    Attributes:
        name: the task's name.
        choices: device and weights.
    """

    name: str
    choices: Choices
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def task(self) -> Task:
        return find_task(create_plugin_manager(), self.name)

    @cached_property
    def models(self) -> Mapping[str, Path]:
        """The model folders, by requirement name."""
        roots = weight_roots(read_settings(), self.choices.run.model_dir)
        return find_models(self.task, roots, explicit=self.choices.run.model_dir is not None)

    @cached_property
    def _session(self) -> Session:
        session = Session(self.task, create_plugin_manager(), read_settings(), self.choices)
        return self._stack.enter_context(session)

    def segment(self, name: str, image: Volume) -> tuple[Result, float]:
        """Segment one image; return also the seconds it took, loading left out."""
        result, report = self._run(name, image)
        return result, report["seconds"]["segment"]

    def report(self, name: str, image: Volume) -> dict[str, Any]:
        """The run report of one image."""
        return self._run(name, image)[1]

    def _run(self, name: str, image: Volume) -> tuple[Result, dict[str, Any]]:
        slug = self.task.interfaces[0].inputs[0].slug
        return self._session.run(Case(name, {slug: image}))
