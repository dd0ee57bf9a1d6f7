"""Cross-validation in nnU-Net's ``splits_final.json`` format: drawn, read, and for students."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gc_panther.errors import InputError
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import Recipe
from gc_panther.text import count

#: Gives the patient of a case by its name.
PatientOf = Callable[[str], str]


def make_splits(
    names: Iterable[str], folds: int, seed: int, *, patient_of: PatientOf
) -> list[dict[str, list[str]]]:
    """Cross-validation: every name is in the validation part of exactly one fold.

    Args:
        names: of the cases.
        folds: how many.
        seed: of the draw.
        patient_of: gives a case's patient; cases of one patient stay together.

    Raises:
        InputError: there are fewer patients than folds.
    """
    by_patient: dict[str, list[str]] = {}
    for name in sorted(names):
        by_patient.setdefault(patient_of(name), []).append(name)
    if len(by_patient) < folds:
        raise InputError(
            f"{count(len(by_patient), 'patient')} cannot be split into {count(folds, 'fold')}",
            fix="Give more data or choose fewer folds",
        )
    patients = list(by_patient)
    random.Random(seed).shuffle(patients)  # noqa: S311 - a split, not a secret
    parts = [
        sorted(n for p in patients[fold::folds] for n in by_patient[p]) for fold in range(folds)
    ]
    return [
        {"train": sorted(n for part in parts if part is not held for n in part), "val": held}
        for held in parts
    ]


def choose_splits(
    request: TrainingRequest, names: Sequence[str], recipe: Recipe, *, patient_of: PatientOf
) -> list[dict[str, list[str]]]:
    """The user's cross-validation, or one that the recipe's seed draws.

    Args:
        request: names the user's file, or None.
        names: cases that exist.
        recipe: number of folds, and seed.
        patient_of: as for :func:`make_splits`.

    Raises:
        InputError: as :func:`read_splits` and :func:`make_splits`.
    """
    if request.splits is not None:
        return read_splits(request.splits, names, recipe.folds, patient_of=patient_of)
    return make_splits(names, recipe.folds, recipe.seed, patient_of=patient_of)


def read_splits(
    path: Path, names: Iterable[str], folds: int, *, patient_of: PatientOf
) -> list[dict[str, list[str]]]:
    """Read a cross-validation from a file in nnU-Net's ``splits_final.json`` format.

    Cases that the file does not name are in no fold.

    Args:
        path: a list of ``{"train": [...], "val": [...]}``, one per fold.
        names: cases that exist.
        folds: how many the recipe trains.
        patient_of: as for :func:`make_splits`.

    Raises:
        InputError: it is not such a file, it names an unknown case, or a patient of a fold's
            validation part is in its training part.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        splits = [
            {part: sorted(set(map(str, fold[part]))) for part in ("train", "val")}
            for fold in document
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the splits cannot be read",
            where=path,
            fix='Give a JSON list of {"train": [names], "val": [names]}, one per fold',
        ) from error
    if len(splits) != folds:
        raise InputError(
            f"the file has {count(len(splits), 'fold')}, the recipe {folds}",
            where=path,
            fix="Give as many folds as the recipe trains",
        )
    known = set(names)
    for number, fold in enumerate(splits):
        if not fold["train"] or not fold["val"]:
            raise InputError(f"a part of fold {number} is empty", where=path, fix="Fill it")
        unknown = sorted({*fold["train"], *fold["val"]} - known)
        if unknown:
            raise InputError(
                f"fold {number} names {count(len(unknown), 'unknown case')}, such as {unknown[0]}",
                where=path,
                fix=f"Use names such as {min(known, default='none')}",
            )
        both = {patient_of(n) for n in fold["train"]} & {patient_of(n) for n in fold["val"]}
        if both:
            raise InputError(
                f"patient {min(both)} is in both parts of fold {number}",
                where=path,
                fix="Move all studies of a patient to one part",
            )
    return splits


def student_splits(
    splits: Sequence[Mapping[str, Sequence[str]]], pseudo: Iterable[str], *, patient_of: PatientOf
) -> list[dict[str, list[str]]]:
    """The teachers' cross-validation, with the pseudo-labelled cases to train on.

    They are never in the validation part, and a fold does not learn from a patient of its
    validation part either.

    Args:
        splits: nnU-Net's ``splits_final.json``.
        pseudo: names of the pseudo-labelled cases.
        patient_of: as for :func:`make_splits`.
    """
    names = sorted(pseudo)
    extended = []
    for split in splits:
        held = {patient_of(name) for name in split["val"]}
        further = [name for name in names if patient_of(name) not in held]
        extended.append({"train": sorted([*split["train"], *further]), "val": list(split["val"])})
    return extended
