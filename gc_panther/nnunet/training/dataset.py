"""Data sets on disk: PANTHER's folder layout in, nnU-Net's raw layout out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gc_panther.errors import InputError
from gc_panther.files import whole_file
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import PhantomCases, Recipe
from gc_panther.text import count

CHANNEL_SUFFIX = "_0000"
#: PANTHER's folder of images that nobody has labelled.
UNLABELLED = "ImagesTr_unlabeled"


@dataclass(frozen=True)
class LabelledCase:
    """One image and its label map, on disk."""

    name: str
    image: Path
    label: Path


def panther_cases(folder: Path, labels: str = "LabelsTr") -> list[LabelledCase]:
    """The labelled cases of a folder in PANTHER's layout, by name.

    Args:
        folder: holds ``ImagesTr/<name>_0000.mha`` and ``<labels>/<name>.mha``.
        labels: folder of the label maps; phantoms have ``OrgansTr``, too.

    Raises:
        InputError: there are none, or an image has no label map.
    """
    cases = []
    for image in sorted((folder / "ImagesTr").glob(f"*{CHANNEL_SUFFIX}.mha")):
        # Such as macOS' ._10000_0001_0000.mha; the check of the data leaves them out, too.
        if image.name.startswith("."):
            continue
        name = image.name.removesuffix(f"{CHANNEL_SUFFIX}.mha")
        label = folder / labels / f"{name}.mha"
        if not label.is_file():
            raise InputError("an image has no label map", where=image, fix=f"Add {label}")
        cases.append(LabelledCase(name, image, label))
    if not cases:
        raise InputError(
            "there are no images",
            where=folder / "ImagesTr",
            fix="Give a folder in PANTHER's layout: ImagesTr/*_0000.mha and LabelsTr/*.mha",
        )
    return cases


def make_phantoms(
    source: PhantomCases, folder: Path, *, workers: int, organs: bool = False
) -> None:
    """Write the phantoms a recipe asks for; a half-written folder is written anew.

    Args:
        source: what the recipe says.
        folder: is written in PANTHER's layout.
        workers: number of processes.
        organs: whether ``OrgansTr`` is wanted, too.
    """
    import shutil

    from gc_panther.panther.phantom import make_dataset
    from gc_panther.panther.phantom.generate import PROTOCOLS

    options: dict[str, Any] = {}
    if source.contrast is not None:
        options["contrast"] = source.contrast
    if source.varied:
        options["varied"] = True
    if source.spacing_xyz is not None:
        usual = PROTOCOLS[source.task]
        options["spacing_xyz"] = source.spacing_xyz
        options["size_xyz"] = tuple(
            round(n * old / new)
            for n, old, new in zip(
                usual.size_xyz, usual.spacing_xyz, source.spacing_xyz, strict=True
            )
        )
    if folder.exists():
        shutil.rmtree(folder)
    make_dataset(
        source.task,
        folder,
        source.cases,
        source.seed,
        unlabelled=source.unlabelled,
        organs=organs,
        workers=workers,
        **options,
    )


def write_raw_dataset(
    folder: Path, cases: Sequence[LabelledCase], labels: Mapping[str, int]
) -> dict[str, Any]:
    """Write nnU-Net's ``dataset.json``, which points at the images where they are.

    Args:
        folder: nnU-Net's raw data set, ``Dataset123_Name``.
        cases: its cases; images are single-channel and stored in LPS order.
        labels: label values by name.
    """
    document = {
        "channel_names": {"0": "MR"},
        "labels": dict(labels),
        "numTraining": len(cases),
        "file_ending": ".mha",
        "dataset": {
            case.name: {"images": [str(case.image.resolve())], "label": str(case.label.resolve())}
            for case in cases
        },
    }
    write_json(folder / "dataset.json", document)
    return document


def raw_cases(folder: Path) -> list[LabelledCase]:
    """The cases of a raw data set that :func:`write_raw_dataset` wrote."""
    document = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    return [
        LabelledCase(name, Path(files["images"][0]), Path(files["label"]))
        for name, files in document["dataset"].items()
    ]


def make_splits(names: Iterable[str], folds: int, seed: int) -> list[dict[str, list[str]]]:
    """Cross-validation: every name is in the validation part of exactly one fold.

    Cases of one patient (``10000_0001`` and ``10000_0002``) stay together.

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
    request: TrainingRequest, names: Sequence[str], recipe: Recipe
) -> list[dict[str, list[str]]]:
    """The user's cross-validation, or one that the recipe's seed draws.

    Raises:
        InputError: as :func:`read_splits` and :func:`make_splits`.
    """
    if request.splits is not None:
        return read_splits(request.splits, names, recipe.folds)
    return make_splits(names, recipe.folds, recipe.seed)


def read_splits(path: Path, names: Iterable[str], folds: int) -> list[dict[str, list[str]]]:
    """Read a cross-validation from a file in nnU-Net's ``splits_final.json`` format.

    Cases that the file does not name are in no fold.

    Args:
        path: a list of ``{"train": [...], "val": [...]}``, one per fold.
        names: cases that exist.
        folds: how many the recipe trains.

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


def patient_of(name: str) -> str:
    """The patient of a case: ``10000`` of ``10000_0001``, whose last part is the study."""
    return name.split("_")[0]


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file as a whole or not at all."""
    with whole_file(path) as file:
        file.write((json.dumps(document, indent=1) + "\n").encode())
