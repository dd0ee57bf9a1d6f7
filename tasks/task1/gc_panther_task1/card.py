"""The model card of task 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gc_panther.nnunet.training.models.export import model_card, pseudo_dice
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import describe_schedule
from gc_panther.text import count
from gc_panther_task1.recipe import LABELS, TITLE, Task1Recipe


def write_card(
    recipe: Task1Recipe,
    request: TrainingRequest,
    seconds: float,
    results: Path,
    cases: int,
    *,
    learnt: Sequence[str],
    splits: str,
    validation: str,
    rounds: str,
) -> str:
    """The text of ``MODEL_CARD.md``.

    Args:
        recipe: as chosen.
        request: preset, data and device.
        seconds: wall time of the training.
        results: nnU-Net's folder of the exported networks.
        cases: how many are labelled.
        learnt: a line about the pseudo-labels of each round of students up to the exported one.
        splits: a line about the cross-validation's parts.
        validation: a table of the exported round's cross-validation.
        rounds: what each round came to and which is exported, where there are students.
    """
    synthetic = request.data is None
    data = [f"{count(cases, 'labelled case')}, {count(recipe.folds, 'fold')}"]
    if synthetic and recipe.phantoms is not None:
        made = f"{count(cases, 'phantom')} of seed {recipe.phantoms.seed}"
        data = [f"{made}, {count(recipe.folds, 'fold')}"]
    warm_ups = recipe.warm_up if request.start_from is None else ()
    data += [
        f"warm-up: {count(warm_up.phantoms.cases, 'further phantom')} "
        f"of seed {warm_up.phantoms.seed}"
        for warm_up in warm_ups
    ]
    data += [*learnt, splits]
    training: list[Any] = [
        f"recipe: preset `{request.preset}`, seed {recipe.seed}; each checkpoint's plans hold it",
        f"each fold: {describe_schedule(recipe.schedule)}",
    ]
    training += [f"warm-up: {describe_schedule(warm_up.schedule)}" for warm_up in warm_ups]
    training += [
        f"round {number} of students: {describe_schedule(student.schedule)}; weights "
        + ("of the teachers" if student.start == "teacher" else "random")
        for number, student in enumerate(recipe.students[: len(learnt)], start=1)
    ]
    training.append(
        f"wall time: {seconds / 60:.0f} min on {request.device}, {request.jobs} at a time"
    )
    return model_card(
        TITLE,
        purpose="An ensemble of small residual encoder U-Nets for PANTHER's task 1, trained by "
        "nnU-Net's code through `nnUNetTrainer_Student`.",
        command=f"gc-panther train task1 --preset {request.preset} --work WORK --export models",
        data=data,
        training=training,
        results={f"fold {k}": pseudo_dice(results, k) for k in range(recipe.folds)},
        labels=LABELS,
        synthetic=synthetic,
        validation=validation,
        rounds=rounds,
    )
