"""What a plugin provides: a :class:`Task`, and the :class:`Segmenter` it loads.

This module is the whole surface a task has to implement. It imports nothing heavy, so that
listing the tasks costs nothing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from gc_panther.options import Options

if TYPE_CHECKING:
    from gc_panther.case import Case, Segmentation

SocketKind = Literal["Image", "File", "Value"]


@dataclass(frozen=True)
class Socket:
    """One named input or output of an algorithm, as Grand Challenge defines it.

    Attributes:
        slug: the platform's identifier, such as ``abdominal-t1-mri``.
        relative_path: where the value lies below ``/input`` or ``/output``.
        kind: the platform's super kind.
        title: what a person reads.
    """

    slug: str
    relative_path: str
    kind: SocketKind = "Image"
    title: str = ""


@dataclass(frozen=True)
class Interface:
    """One combination of inputs an algorithm accepts, and what it writes for them."""

    inputs: tuple[Socket, ...]
    outputs: tuple[Socket, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The platform's key of an interface: the sorted slugs of its inputs."""
        return tuple(sorted(socket.slug for socket in self.inputs))


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
    """Measures named stages; the engine's implementation also logs them."""

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
class CaseRun:
    """What accompanies one case on its way through a segmenter.

    Attributes:
        progress: told of each pass.
        clock: measures the stages.
        deadline: when the segmenter should be done, on :func:`time.perf_counter`'s clock; None
            where it may take its time.
    """

    progress: Progress = field(default_factory=SilentProgress)
    clock: StageClock = field(default_factory=NoClock)
    deadline: float | None = None

    def within(self, part: str, *, share: float = 1.0) -> CaseRun:
        """The same run for one part of the work.

        Args:
            part: its stages are measured as ``part: stage``.
            share: of the time that is left, from now on, where there is a deadline.
        """
        deadline = self.deadline
        if deadline is not None:
            now = time.perf_counter()
            deadline = now + share * (deadline - now)
        return CaseRun(self.progress, _PartClock(part, self.clock), deadline)


class Segmenter(Protocol):
    """A loaded model, ready for any number of cases, one at a time."""

    def segment(self, case: Case, run: CaseRun) -> Segmentation:
        """Segment one case.

        Args:
            case: images as stored; bringing them to the orientation the network expects is the
                segmenter's work (``gc_panther.imaging.orientation`` does it).
            run: progress and stage clock of this case.

        Returns:
            A mask on exactly the grid of the input image.

        Raises:
            gc_panther.errors.GCPantherError: with what was wrong and what to do.
        """


class Task(ABC):
    """A segmentation task: names, interfaces, weights, and how to load its segmenter.

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
    def load(self, runtime: Runtime) -> Segmenter:
        """Load the networks; heavy imports belong in here.

        Raises:
            gc_panther.errors.WeightsError: a model folder is incomplete or unsafe.
        """

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
