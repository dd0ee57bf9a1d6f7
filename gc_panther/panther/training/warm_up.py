"""Rounds of training on phantoms before the folds, from which every fold starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gc_panther.nnunet.training.jobs.worker import TrainJob
from gc_panther.nnunet.training.models.export import export_model
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.training.phantoms import make_phantoms
from gc_panther.panther.training.recipe import WarmUp

#: Parts the phantoms of a round are split into; one of them shows how the training goes.
WARM_UP_FOLDS = 10


def train_warm_up(
    space: Workspace,
    warm_up: WarmUp,
    *,
    name: str,
    dataset: str,
    trainer: str,
    prepare: Callable[[Path], None],
    seed: int,
    start: Path | None,
    keep_heads: bool = True,
) -> tuple[float, Path]:
    """Make a round's phantoms, prepare them, train one network and export it.

    Args:
        space: the work folder; finished stages are not repeated.
        warm_up: phantoms and schedule.
        name: of the round, from which its stages and folders are named.
        dataset: nnU-Net's name of the data set.
        trainer: ``module:class``.
        prepare: makes nnU-Net's preprocessed data set, split into :data:`WARM_UP_FOLDS`, of a
            folder of phantoms in PANTHER's layout.
        seed: of weights and batches.
        start: model folder to start from, or None.
        keep_heads: whether that one's segmentation heads are used.

    Returns:
        The seconds it took, and the model folder.
    """
    folder = space.folder / "data" / name
    seconds = space.stage(
        f"{name}-phantoms", lambda: make_phantoms(warm_up.phantoms, folder, workers=space.jobs)
    )
    seconds += space.stage(f"{name}-prepare", lambda: prepare(folder))
    job = TrainJob(
        title=name,
        dataset=dataset,
        trainer=trainer,
        schedule=warm_up.schedule,
        fold=0,
        device=space.device,
        seed=seed,
        start_from=start,
        keep_heads=keep_heads,
    )
    seconds += space.train(name, [job])
    model = export_model(
        space.results(dataset, trainer),
        (0,),
        space.folder / "models" / name,
        card="# Warm-up: what the folds start from\n",
    )
    return seconds, model
