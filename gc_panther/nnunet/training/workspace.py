"""The work folder of a training: stages that run once, and the processes they start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from gc_panther.errors import UserError
from gc_panther.json_files import write_json
from gc_panther.nnunet.training.jobs.engine import Engine, LocalEngine, Process
from gc_panther.nnunet.training.jobs.worker import AnyJob, TrainJob
from gc_panther.nnunet.training.models.checkpoints import FINAL
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Recipe
from gc_panther.nnunet.training.record import Files, claim

log = logging.getLogger(__name__)

#: Processes per training that nnU-Net takes by default to make batches.
NNUNET_BATCH_MAKERS = 12


@dataclass(frozen=True)
class Workspace:
    """A work folder that belongs to one task and one recipe.

    Attributes:
        folder: holds everything; may be deleted when the models are exported.
        jobs: how many trainings run at the same time; they share the machine's cores.
        device: torch's name, as the jobs see it.
        engine: runs the jobs.
    """

    folder: Path
    jobs: int = 1
    device: str = "cpu"
    engine: Engine = field(default_factory=LocalEngine)

    @classmethod
    def of(cls, request: TrainingRequest) -> Self:
        """The work folder that a user asked for.

        Raises:
            UserError: there is no such engine.
            DeviceError: PyTorch sees no such GPU.
        """
        engine = make_engine(request.engine, request.work, request.jobs, request.device)
        # A job sees the GPU that the engine chose and no other.
        return cls(request.work, request.jobs, request.device.partition(":")[0], engine)

    def claim(
        self,
        task: str,
        recipe: Recipe,
        request: TrainingRequest,
        files: Mapping[str, Files],
        check: Callable[[], None],
    ) -> None:
        """Mark the folder as this recipe's, its splits' and its files'.

        Raises:
            UserError: it was begun with others; their stages must not be mistaken for these. Or
                ``check`` raises it.
        """
        claim(self.folder, task, recipe, request, files, check)

    def stage(self, name: str, work: Callable[[], None]) -> float:
        """Do ``work`` unless it was finished in an earlier run; return the seconds it took."""
        import json

        marker = self._marker(name)
        if marker.is_file():
            log.info("%s: finished earlier", name)
            return float(json.loads(marker.read_text(encoding="utf-8"))["seconds"])
        log.info("%s: begins", name)
        start = time.monotonic()
        work()
        seconds = time.monotonic() - start
        write_json(marker, {"seconds": round(seconds, 1)})
        log.info("%s: finished in %.0f s", name, seconds)
        return seconds

    def forget(self, name: str) -> None:
        """Let a stage be done again."""
        self._marker(name).unlink(missing_ok=True)

    def train(self, title: str, jobs: Sequence[TrainJob]) -> float:
        """Train the networks that have no final checkpoint yet; return the seconds it took.

        Each gets its share of the cores. The share is the same in a run that finds some finished,
        because the number of threads changes what sums are rounded to.
        """
        threads = self.engine.threads(len(jobs))
        jobs = [job.model_copy(update={"threads": threads}) for job in jobs]
        missing = [job for job in jobs if not self._final_checkpoint(job).is_file()]
        if missing:
            # A fold's folder that was deleted is asked for again.
            self.forget(f"{title}-train")
        return self.stage(f"{title}-train", lambda: self.run(missing))

    @property
    def threads(self) -> int:
        """Threads of each job where there are as many as run at the same time."""
        return self.engine.threads(self.jobs)

    def raw(self, dataset: str) -> Path:
        """nnU-Net's folder of a raw data set."""
        return self.folder / "nnUNet_raw" / dataset

    def results(self, dataset: str, trainer: str) -> Path:
        """nnU-Net's folder of trained networks; ``trainer`` as in :class:`TrainJob`."""
        from gc_panther.nnunet.training.models.plans import CONFIGURATION, PLANS_NAME

        name = f"{trainer.partition(':')[2]}__{PLANS_NAME}__{CONFIGURATION}"
        return self.folder / "nnUNet_results" / dataset / name

    def splits(self, dataset: str) -> list[dict[str, list[str]]]:
        """The cross-validation of a data set that is prepared."""
        import json

        path = self.folder / "nnUNet_preprocessed" / dataset / "splits_final.json"
        return list(json.loads(path.read_text(encoding="utf-8")))

    def plans(self, dataset: str) -> dict[str, Any]:
        """nnU-Net's plans of a data set that is prepared."""
        import json

        from gc_panther.nnunet.training.models.plans import PLANS_NAME

        path = self.folder / "nnUNet_preprocessed" / dataset / f"{PLANS_NAME}.json"
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def run(self, jobs: Sequence[AnyJob]) -> None:
        """Run jobs that do not need each other in processes of their own.

        Raises:
            ProcessingError: one failed; the others are finished first.
        """
        failures = self.engine.run([self._process(job) for job in jobs])
        if failures:
            raise failures[0]

    def _process(self, job: AnyJob) -> Process:
        path = self.folder.resolve() / "jobs" / f"{job.title.replace(' ', '_')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job.model_dump_json(indent=1), encoding="utf-8")
        threads = str(getattr(job, "threads", self.threads))
        folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return Process(
            title=job.title,
            module="gc_panther.nnunet.training.jobs.worker",
            arguments=(str(path),),
            environment={
                **{name: str(self.folder.resolve() / name) for name in folders},
                "nnUNet_n_proc_DA": str(self._batch_makers(job)),
                "nnUNet_def_n_proc": threads,
                "nnUNet_compile": "0",
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
            },
            gpu=job.needs_gpu,
            log=path.with_suffix(".log"),
        )

    def _batch_makers(self, job: AnyJob) -> int:
        """Processes that make batches, 0 for none besides the training's own."""
        if isinstance(job, TrainJob) and self.device == "cpu":
            # Batches are made between a training's steps, in a fixed order. It would wait for the
            # processor anyway; a GPU would wait for the batches.
            return 0
        return min(NNUNET_BATCH_MAKERS, getattr(job, "threads", self.threads))

    def _marker(self, stage: str) -> Path:
        return self.folder / "finished" / f"{stage}.json"

    def _final_checkpoint(self, job: TrainJob) -> Path:
        return self.results(job.dataset, job.trainer) / f"fold_{job.fold}" / FINAL


def make_engine(name: str, folder: Path, jobs: int, device: str) -> Engine:
    """The engine of a name.

    Args:
        name: ``local`` or ``ray``.
        folder: in which all processes work.
        jobs: how many may run on a machine at the same time.
        device: torch's name.

    Raises:
        UserError: there is none of that name.
    """
    if name == "local":
        return LocalEngine(jobs, device)
    if name == "ray":
        from gc_panther.nnunet.training.jobs.ray_engine import RayEngine

        return RayEngine(folder, jobs)
    raise UserError(f"there is no engine {name!r}", fix="Known: local, ray")
