"""An engine for tests that do not test processes: it runs the jobs of a training in this one.

A job of a test computes for a tenth of a second; a process for it imports torch and nnU-Net for
several.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from gc_panther.errors import ProcessingError
from gc_panther.nnunet.training.jobs.engine import Process


class InProcessEngine:
    """Runs jobs one after the other, with one thread; a failure is raised where it happens.

    Attributes:
        titles: of the jobs that were run.
    """

    def __init__(self) -> None:
        self.titles: list[str] = []

    def threads(self, processes: int) -> int:
        """One, whatever the machine has: a job is too small for more."""
        return 1

    def run(self, processes: Sequence[Process]) -> list[ProcessingError]:
        """Run all of them from their job files, as the worker's ``main`` does."""
        from pydantic import TypeAdapter

        from gc_panther.nnunet.training.jobs import worker

        for process in processes:
            assert process.module == worker.__name__
            self.titles.append(process.title)
            job = TypeAdapter(worker.Job).validate_json(Path(process.arguments[0]).read_bytes())
            with (
                Path(process.log).open("a", encoding="utf-8") as log,
                redirect_stdout(log),
                as_in_a_process_of_its_own(process),
            ):
                worker.run(job)
        return []


@pytest.fixture
def engine_in_process(monkeypatch: pytest.MonkeyPatch) -> InProcessEngine:
    """Every training of the test runs its jobs in this process."""
    engine = InProcessEngine()
    monkeypatch.setattr("gc_panther.nnunet.training.workspace.make_engine", lambda *_: engine)
    return engine


@contextmanager
def as_in_a_process_of_its_own(process: Process) -> Iterator[None]:
    """Let a job find its environment, and leave this process as it was."""
    import numpy as np
    import torch
    from quick_nnunet import quick_nnunet

    threads, numbers = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    with (
        mock.patch.dict(os.environ, process.environment),
        torch.random.fork_rng(devices=()),
        quick_nnunet(),
    ):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(numbers[0])
            np.random.set_state(numbers[1])
