"""What a plugin provides: a :class:`Task`, and the :class:`Predictor` it loads.

This module is the whole surface a task has to implement. It imports nothing heavy, so that
listing the tasks costs nothing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gc_panther.errors import InputError
from gc_panther.options import Options
from gc_panther.sockets import Interface as Interface
from gc_panther.sockets import Socket as Socket

if TYPE_CHECKING:
    from gc_panther.case import Case, Result, Segmentation


@dataclass(frozen=True)
class ModelRequirement:
    """A model folder that a task needs.

    Attributes:
        name: the folder's name below a weights root (``<root>/<name>``).
        folds: the folds that must be there; a missing one is an error. Empty means all that are
            there, at least one.
        source: where a user gets the real weights, one sentence.
    """

    name: str
    folds: tuple[int, ...]
    source: str = ""


class Progress(Protocol):
    """Receives the advance of long work; the terminal's bar, or nothing."""

    def start(self, label: str, total: int) -> None:
        """A stage of ``total`` steps begins."""

    def advance(self, steps: int = 1) -> None:
        """``steps`` more steps of the current stage are done."""

    def finish(self) -> None:
        """The current stage is over."""


class SilentProgress:
    """A :class:`Progress` that shows nothing."""

    def start(self, label: str, total: int) -> None:
        """Show nothing."""

    def advance(self, steps: int = 1) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""


class StageClock(Protocol):
    """Measures named stages; the session's implementation adds them up."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Measure the enclosed block under ``name``, seconds added up per name."""


class NoClock:
    """A :class:`StageClock` that measures nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run the block."""
        yield


@dataclass(frozen=True)
class _PartClock:
    """A :class:`StageClock` that puts a name before those of the stages."""

    part: str
    clock: StageClock

    def stage(self, name: str) -> AbstractContextManager[None]:
        return self.clock.stage(f"{self.part}: {name}")


@dataclass(frozen=True)
class Runtime:
    """What is settled once per process, before any case is known.

    Attributes:
        device: torch's name of the device, ``"cpu"`` or ``"cuda:0"``, already checked.
        options: the user's choices, an instance of the task's ``Options``.
        models: the verified place of each required model folder, by requirement name.
        scratch: an existing folder for temporary files; never below ``/input`` or ``/output``.
    """

    device: str
    options: Any
    models: Mapping[str, Path]
    scratch: Path


@dataclass(frozen=True)
class RunContext:
    """What a predictor gets with each case.

    Attributes:
        progress: notified of each pass.
        clock: measures the stages.
        deadline: when the predictor should be done, on :func:`time.perf_counter`'s clock; None
            if there is no limit.
    """

    progress: Progress = field(default_factory=SilentProgress)
    clock: StageClock = field(default_factory=NoClock)
    deadline: float | None = None

    def within(self, part: str, *, share: float = 1.0) -> RunContext:
        """The same context for one part of the work.

        Args:
            part: its stages are measured as ``part: stage``.
            share: of the time that is left, from now on, where there is a deadline.
        """
        deadline = self.deadline
        if deadline is not None:
            now = time.perf_counter()
            deadline = now + share * (deadline - now)
        return RunContext(self.progress, _PartClock(part, self.clock), deadline)


class Predictor(Protocol):
    """A loaded model, ready for any number of cases, one at a time."""

    def predict(self, case: Case, run: RunContext) -> Result:
        """Compute the outputs of one case.

        Args:
            case: images as stored; bringing them to the orientation the network expects is the
                predictor's work (``gc_panther.imaging.orientation`` does it).
            run: progress, stage clock and deadline of this case.

        Returns:
            What the case's interface declares: a mask on exactly the grid of the input image.

        Raises:
            gc_panther.errors.GCPantherError: with what was wrong and what to do.
        """


#: Deprecated: the earlier name of :class:`RunContext`.
CaseRun = RunContext


class Segmenter(Protocol):
    """Deprecated: what a task loaded before there was :class:`Predictor`."""

    def segment(self, case: Case, run: RunContext) -> Segmentation:
        """Segment one case."""


class Task(ABC):
    """A task: names, interfaces, weights, and how to load its predictor.

    Attributes:
        name: how the task is called on the command line; lower case, no blanks.
        title: one line for listings.
        interfaces: the input combinations it accepts.
        models: the model folders it needs.
        libraries: the Python packages that compute it and have to be able to use its device, such
            as ``("torch",)``; ``()`` for none. None, where it does not say, is all of those that
            are installed and a plugin can check.
        mask_values: the values its mask may hold, 0 included.
        labels: what each mask value means.
        Options: what a user may choose of this task alone: flags, variables and arguments come from
            the fields of the class, and :attr:`Runtime.options` is an instance of it.
    """

    name: str
    title: str
    interfaces: tuple[Interface, ...]
    models: tuple[ModelRequirement, ...]
    libraries: tuple[str, ...] | None = None
    mask_values: tuple[int, ...] = (0, 1)
    labels: Mapping[int, str] = {0: "background", 1: "foreground"}
    Options: ClassVar[type[Options]] = Options

    @abstractmethod
    def load(self, runtime: Runtime) -> Predictor:
        """Load the networks; heavy imports belong in here.

        Raises:
            gc_panther.errors.WeightsError: a model folder is incomplete or unsafe.
        """

    def interface_for(self, slugs: Iterable[str]) -> Interface | None:
        """The interface with exactly these inputs; None where there is none."""
        key = tuple(sorted(slugs))
        return next((one for one in self.interfaces if one.key == key), None)

    def interface_of(self, case: Case) -> Interface:
        """The interface whose inputs a case holds.

        Raises:
            InputError: there is none.
        """
        interface = self.interface_for(case.images)
        if interface is None:
            given = ", ".join(sorted(case.images))
            raise InputError(
                f"the inputs ({given}) fit no interface of {self.name}", where=case.name
            )
        return interface

    def describe(self) -> dict[str, Any]:
        """JSON-compatible facts for ``gc-panther tasks`` and ``info --json``."""
        return {
            "name": self.name,
            "title": self.title,
            "interfaces": [
                {
                    "inputs": [socket.slug for socket in interface.inputs],
                    "outputs": [socket.slug for socket in interface.outputs],
                }
                for interface in self.interfaces
            ],
            "models": [{"name": m.name, "folds": list(m.folds)} for m in self.models],
            "labels": {str(value): label for value, label in self.labels.items()},
        }
