"""Cross-validation: every case is labelled by the network that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gc_panther.nnunet.model.folder import read_checkpoint
from gc_panther.nnunet.training.dataset import LabelledCase, raw_cases
from gc_panther.nnunet.training.jobs.worker import Images, PredictJob
from gc_panther.nnunet.training.models.checkpoints import FINAL
from gc_panther.nnunet.training.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: nnU-Net's names of a training's losses.
LOSSES = ("train_losses", "val_losses")


@dataclass(frozen=True)
class HeldOut:
    """A case of a fold's validation part.

    Attributes:
        fold: the only fold whose network has not seen the case.
        case: image and reference.
        label: the label map which that network predicts.
    """

    fold: int
    case: LabelledCase
    label: Path


def predict_held_out(space: Workspace, *, title: str, dataset: str, trainer: str) -> list[HeldOut]:
    """Label the validation part of each fold with that fold's network.

    The images are the data set's own: where it holds crops, crops are labelled.

    Args:
        space: the work folder; label maps that are there are not made again.
        title: of the training; names the stage and the folder below ``validation``.
        dataset: nnU-Net's name of the data set.
        trainer: as in :class:`~gc_panther.nnunet.training.jobs.worker.TrainJob`.

    Returns:
        Every case of a validation part, by fold and name.

    Raises:
        ProcessingError: a prediction failed.
    """
    results = space.results(dataset, trainer)
    by_name = {case.name: case for case in raw_cases(space.raw(dataset))}
    splits = space.splits(dataset)
    folder = space.folder / "validation" / title
    held = [
        HeldOut(fold, by_name[name], folder / f"fold_{fold}" / f"{name}.mha")
        for fold, split in enumerate(splits)
        for name in split["val"]
    ]
    jobs = [
        PredictJob(
            title=f"{title} fold {fold} validation",
            model=results,
            folds=(fold,),
            images=tuple(
                Images(image=one.case.image, label=one.label) for one in held if one.fold == fold
            ),
            device=space.device,
            threads=space.threads,
        )
        for fold in range(len(splits))
    ]
    for one in held:
        _forget_older(one.label, results / f"fold_{one.fold}" / FINAL)
    if not all(one.label.is_file() for one in held):
        space.forget(f"{title}-validate")
    space.stage(f"{title}-validate", partial(space.run, jobs))
    return held


def _forget_older(label: Path, checkpoint: Path) -> None:
    """Remove what a network predicted that has been trained again since."""
    if label.is_file() and label.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns:
        label.unlink()


def curves_of(results: Path, folds: int) -> list[dict[str, list[float]]]:
    """What nnU-Net logged in each fold's training, an entry per epoch.

    Returns:
        One per fold: ``train_losses``, ``val_losses``, and ``pseudo_dice``, the mean over labels
        of nnU-Net's Dice on random patches of the cases held out.
    """
    found = []
    for fold in range(folds):
        logged = read_checkpoint(results / f"fold_{fold}" / FINAL)["logging"]
        dice = np.atleast_2d(np.asarray(logged["dice_per_class_or_region"], dtype=float))
        with np.errstate(invalid="ignore"):
            seen = np.isfinite(dice)
            mean = np.where(seen, dice, 0).sum(1) / np.maximum(seen.sum(1), 1)
        curves = {name: [float(v) for v in logged[name]] for name in LOSSES}
        found.append({**curves, "pseudo_dice": [float(v) for v in mean]})
    return found


def draw_curves(curves: Sequence[Mapping[str, Sequence[float]]]) -> Figure:
    """Losses on the left, pseudo-Dice on the right, one colour per fold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, dice = figure.subplots(1, 2)
    for fold, curve in enumerate(curves):
        colour = f"C{fold % 10}"
        epochs = range(1, len(curve["pseudo_dice"]) + 1)
        losses.plot(epochs, curve["train_losses"], colour, lw=1.5, label=f"fold {fold}")
        losses.plot(epochs, curve["val_losses"], colour, lw=1, ls="--")
        dice.plot(epochs, curve["pseudo_dice"], colour, lw=1.5, label=f"fold {fold}")
    losses.set(xlabel="epoch", title="loss: training —, held out - -")
    dice.set(xlabel="epoch", title="pseudo-Dice, mean of the labels", ylim=(0, 1))
    for axes in (losses, dice):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
