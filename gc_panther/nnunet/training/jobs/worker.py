"""What runs in a process of its own: preparing a data set, training one network, labelling images.

``python -m gc_panther.nnunet.training.jobs.worker JOB.json``; nnU-Net's folders come by
environment, so that several trainings with different folders can run in parallel.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import math
import shutil
import sys
import time
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from gc_panther.errors import GCPantherError, ProcessingError, describe, error_line
from gc_panther.nnunet.cudnn import GOOD_RELEASES, convolution_faults
from gc_panther.nnunet.training.jobs.engine import CHILD
from gc_panther.nnunet.training.jobs.lock import locked
from gc_panther.nnunet.training.pipeline import ResEnc
from gc_panther.nnunet.training.recipe import Network, Schedule
from gc_panther.processes import end_with_stdin

log = logging.getLogger(__name__)

#: Free bytes with which a failure is the disk's.
FULL_DISK = 2**20

#: Seconds in which the process of an interrupted run may end that did the same job.
LOCK_WAIT = 60.0


class _Job(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str

    @property
    def needs_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return str(getattr(self, "device", "cpu")).startswith("cuda")


class PrepareJob(_Job):
    """Fingerprint, plans and preprocessed data of one raw data set.

    Attributes:
        title: what log lines start with.
        dataset: nnU-Net's name of the data set.
        network: grid and architecture, a size that nnU-Net's planner gets, or a file of plans whose
            network is taken over.
        schedule: goes into the plans.
        facts: go into the plans.
        splits: the cross-validation.
        workers: processes.
    """

    kind: Literal["prepare"] = "prepare"
    dataset: str
    network: Network | ResEnc | Path
    schedule: Schedule
    facts: dict[str, Any] = {}
    splits: list[dict[str, list[str]]]
    workers: int = 1


class TrainJob(_Job):
    """One network.

    Attributes:
        title: what log lines start with.
        dataset: nnU-Net's name of the data set.
        trainer: ``module:class``.
        schedule: given to the trainer where its class does not read the plans itself.
        fold: which part is held out.
        device: torch's name.
        threads: of this process; the work folder sets it.
        seed: of weights and batches.
        start_from: checkpoint to start from.
        keep_heads: whether that checkpoint's segmentation heads are used.
        head_rows: which of their outputs, where that checkpoint has more labels.
    """

    kind: Literal["train"] = "train"
    dataset: str
    trainer: str
    schedule: Schedule
    fold: int
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    start_from: Path | None = None
    keep_heads: bool = False
    head_rows: tuple[int, ...] | None = None


class Images(BaseModel):
    """An image, and the label map to write for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Path
    label: Path


class PredictJob(_Job):
    """Label maps of images, from trained networks and through the engine inference uses.

    Attributes:
        title: what log lines start with.
        model: an exported model folder, or nnU-Net's folder of trained networks.
        folds: whose probabilities are averaged.
        images: what to label; label maps that are there already are left alone.
        device: torch's name.
        threads: of this process.
    """

    kind: Literal["predict"] = "predict"
    model: Path
    folds: tuple[int, ...]
    images: tuple[Images, ...]
    device: str = "cpu"
    threads: int = 1


class CallJob(_Job):
    """A function of a task.

    Attributes:
        title: what log lines start with.
        function: ``module:name``.
        arguments: JSON-compatible, by name.
    """

    kind: Literal["call"] = "call"
    function: str
    arguments: dict[str, Any] = {}

    @property
    def needs_gpu(self) -> bool:
        """Whether the function computes on a GPU."""
        return str(self.arguments.get("device", "cpu")).startswith("cuda")


AnyJob = PrepareJob | TrainJob | PredictJob | CallJob
Job = Annotated[AnyJob, Field(discriminator="kind")]


def prepare(job: PrepareJob) -> None:
    """Run nnU-Net's fingerprint and preprocessing around the job's plans."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    from gc_panther.json_files import write_json
    from gc_panther.nnunet.training.models.plans import CONFIGURATION, PLANS_NAME

    raw = Path(nnUNet_raw) / job.dataset
    out = Path(nnUNet_preprocessed) / job.dataset
    if out.exists():
        # Of an interrupted run; nnU-Net would take a half-written fingerprint for a whole one.
        shutil.rmtree(out)
    extractor = DatasetFingerprintExtractor(job.dataset, job.workers)
    extractor.show_progress_bar = False
    extractor.run()
    write_json(out / "dataset.json", json.loads((raw / "dataset.json").read_text()))
    write_json(out / f"{PLANS_NAME}.json", _plans(job, out / "dataset_fingerprint.json"))
    write_json(out / "splits_final.json", job.splits)
    preprocessor = DefaultPreprocessor(verbose=False)
    preprocessor.show_progress_bar = False
    preprocessor.run(job.dataset, CONFIGURATION, PLANS_NAME, job.workers)


def _plans(job: PrepareJob, fingerprint: Path) -> dict[str, Any]:
    from gc_panther.nnunet.training.models.plans import (
        follow_plans,
        make_plans,
        plan_residual_encoder,
    )

    if isinstance(job.network, Network):
        # Read back: the file has JSON's key types, as the plans will.
        facts = json.loads(fingerprint.read_text())
        return make_plans(job.dataset, job.network, job.schedule, facts, job.facts)
    if isinstance(job.network, Path):
        plans = json.loads(job.network.read_text())
    else:
        plans = plan_residual_encoder(job.dataset, job.network)
    return follow_plans(plans, job.dataset, job.schedule, job.facts)


def train(job: TrainJob) -> None:
    """Train one network with nnU-Net's own loop, from its last checkpoint where there is one."""
    import torch
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results

    from gc_panther.nnunet.training.models.checkpoints import (
        last_checkpoint,
        save_whole,
        seed_all,
        seed_epochs,
    )
    from gc_panther.nnunet.training.models.plans import CONFIGURATION, PLANS_NAME
    from gc_panther.nnunet.training.models.transfer import read_weights, transfer_weights
    from gc_panther.nnunet.training.schedule import apply_schedule

    torch.set_num_threads(job.threads)
    seed_all(job.seed)
    trainer_class = _imported(job.trainer)

    folder = Path(nnUNet_preprocessed) / job.dataset
    plans = json.loads((folder / f"{PLANS_NAME}.json").read_text())
    dataset_json = json.loads((folder / "dataset.json").read_text())
    results = f"{trainer_class.__name__}__{PLANS_NAME}__{CONFIGURATION}"
    fold = Path(nnUNet_results) / job.dataset / results / f"fold_{job.fold}"
    last = last_checkpoint(fold, job.title)
    plans["continue_training"] = last is not None
    trainer = trainer_class(plans, CONFIGURATION, job.fold, dataset_json, torch.device(job.device))
    apply_schedule(trainer, job.schedule)
    trainer.initialize()
    if job.device != "cpu":
        warn_of_cudnn(job.title, torch.__version__, torch.backends.cudnn.version())
    if last is not None:
        trainer.load_checkpoint(str(last))
        log.info("%s: continues at epoch %d", job.title, trainer.current_epoch)
    elif job.start_from is not None:
        report = transfer_weights(
            trainer.network, read_weights(job.start_from), heads=job.keep_heads, rows=job.head_rows
        )
        log.info("%s: starts from %s, %s", job.title, job.start_from, report)
    save_whole(trainer)
    seed_epochs(trainer, job.seed)
    watch_epochs(trainer, job.title)
    trainer.run_training()


def predict(job: PredictJob) -> None:
    """Label the images that have no label map yet, one after the other."""
    import torch

    from gc_panther.case import Volume
    from gc_panther.imaging.images import read_image, write_image
    from gc_panther.imaging.orientation import from_lps, to_lps
    from gc_panther.nnunet.inference.ensemble import Ensemble
    from gc_panther.nnunet.model.folder import open_model_folder
    from gc_panther.nnunet.options import NnUNetOptions
    from gc_panther.task import RunContext

    torch.set_num_threads(job.threads)
    missing = [images for images in job.images if not images.label.is_file()]
    log.info("%s: %d of %d images are left", job.title, len(missing), len(job.images))
    if not missing:
        return
    model = open_model_folder(job.model, job.folds)
    ensemble = Ensemble(model, device=job.device, options=NnUNetOptions())
    for number, images in enumerate(missing, start=1):
        start = time.monotonic()
        volume = read_image(images.image)
        labels = ensemble.predict(to_lps(volume), RunContext()).labels_zyx
        images.label.parent.mkdir(parents=True, exist_ok=True)
        write_image(Volume(from_lps(labels, like=volume.geometry), volume.geometry), images.label)
        seconds = time.monotonic() - start
        log.info(
            "%s: %d/%d, %s, %.0f s", job.title, number, len(missing), images.image.name, seconds
        )


def _imported(name: str) -> Any:
    """What ``module:name`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def watch_epochs(trainer: Any, title: str) -> None:
    """Log the epochs of an ``nnUNetTrainer``, and end a training that can only give a bad network.

    On a CPU one gradient that is not finite makes all weights NaN. On a GPU the gradient scaler
    leaves such steps out, and all of them once the outputs overflow. nnU-Net trains on to the last
    epoch either way, and writes over its checkpoints. One loss alone may be a single bad batch.

    Args:
        trainer: its ``on_epoch_end`` raises :class:`ProcessingError`, before it writes checkpoints,
            where neither the training's nor the validation's loss is finite.
        title: what log lines start with.
    """
    ends_epoch = trainer.on_epoch_end

    def on_epoch_end() -> None:
        value = trainer.logger.get_value
        loss = value("train_losses", step=-1)
        if not (math.isfinite(loss) or math.isfinite(value("val_losses", step=-1))):
            raise ProcessingError(
                f"the training diverged: no loss of epoch {trainer.current_epoch + 1} is finite",
                where=trainer.output_folder,
                fix="Look at the data for extreme values, or choose a lower learning rate",
            )
        dice = " ".join(f"{v:.3f}" for v in value("dice_per_class_or_region", step=-1)[:8])
        line = f"epoch {trainer.current_epoch + 1}/{trainer.num_epochs}"
        ends_epoch()
        seconds = value("epoch_end_timestamps", step=-1) - value("epoch_start_timestamps", step=-1)
        log.info("%s: %s, %.0f s, loss %.3f, pseudo-Dice %s", title, line, seconds, loss, dice)

    trainer.on_epoch_end = on_epoch_end


def warn_of_cudnn(title: str, torch_version: str, cudnn: int | None) -> None:
    """Say that half-precision convolutions, in which nnU-Net trains on a GPU, are known to fail.

    Args:
        title: of the training.
        torch_version: such as ``2.7.1+cu126``.
        cudnn: ``torch.backends.cudnn.version()``.
    """
    faults = convolution_faults(torch_version, cudnn)
    if faults.reason:
        log.warning("%s: %s; %s", title, faults.reason, GOOD_RELEASES)


def run(job: AnyJob) -> None:
    """Do a job in this process."""
    match job:
        case PrepareJob():
            prepare(job)
        case TrainJob():
            train(job)
        case PredictJob():
            predict(job)
        case CallJob():
            _imported(job.function)(**job.arguments)


def main() -> None:
    """Run the job whose file is the first argument; nnU-Net's own prints are not shown."""
    path = Path(sys.argv[1])
    if CHILD in sys.argv[2:]:
        end_with_stdin()
    job: AnyJob = TypeAdapter(Job).validate_json(path.read_bytes())
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        with (
            locked(path.with_suffix(".lock"), f"the job '{job.title}'", wait=LOCK_WAIT),
            path.with_suffix(".log").open("a", encoding="utf-8") as nnunet_log,
            redirect_stdout(nnunet_log),
        ):
            run(job)
    except Exception as error:  # noqa: BLE001 - the process that started this one shows the line
        known = isinstance(error, GCPantherError)
        if not known and shutil.disk_usage(path.parent).free < FULL_DISK:
            # Libraries hide the reason.
            error = OSError(errno.ENOSPC, str(error))
        if not known:
            print(traceback.format_exc(), flush=True)
        message, _ = describe(error)
        sys.exit(error_line(message))


if __name__ == "__main__":
    main()
