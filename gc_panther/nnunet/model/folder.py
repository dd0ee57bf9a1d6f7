"""Reads nnU-Net model folders, and refuses what is incomplete or unsafe.

Three layouts are known: weights packs (:mod:`gc_panther.nnunet.model.manifest`), nnU-Net's own
folders::

    plans.json  dataset.json  fold_0/checkpoint_final.pth  fold_1/checkpoint_final.pth  …

and the flat ones in which PANTHER's organisers publish their baseline::

    plans.json  dataset.json  checkpoint_best_PantherTask1_fold_0.pth  …

Where plans or dataset.json are absent, those that every nnU-Net checkpoint carries are used.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gc_panther.errors import WeightsError
from gc_panther.model_identity import MANIFEST, ModelIdentity, read_document, read_identity
from gc_panther.nnunet.model.documents import (
    MOST_LABELS,
    CheckpointFacts,
    Dataset,
    check_plans,
    resolved_configuration,
    validated,
)
from gc_panther.nnunet.model.manifest import (
    PackManifest,
    read_manifest,
    read_packed_weights,
    verify,
)

if TYPE_CHECKING:
    import torch

#: Names of a fold's checkpoint, the preferred one first.
CHECKPOINT_NAMES = ("checkpoint_final.pth", "checkpoint_best.pth")
_FOLD_FOLDER = re.compile(r"fold_(\d+)")
_FLAT_CHECKPOINT = re.compile(r"checkpoint_(?:best|final)_.+_fold_(\d+)\.pth")
#: First bytes of a zip archive, in which torch has stored checkpoints since version 1.6.
_ZIP_MAGIC = b"PK\x03\x04"
_SAME_TRAINING = "Plans, dataset.json and checkpoints have to come from the same training"


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder says about itself; its weights are read by :meth:`read_weights`.

    Attributes:
        path: the folder.
        plans: nnU-Net's plans.
        dataset_json: nnU-Net's description of the training data.
        configuration: name of the plans' configuration, such as ``3d_fullres``.
        trainer_name: name of the class that trained it; it need not be installed.
        mirroring_axes: spatial axes of the network's input that may be mirrored (0 is the first).
        labels: value of each label by its name, background (0) included; the networks have one
            output per label, in the order of the values.
        checkpoints: file of each fold, by fold.
        identity: what the model says about itself.
        pack: the manifest, where the folder is a weights pack.
    """

    path: Path
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    configuration: str
    trainer_name: str
    mirroring_axes: tuple[int, ...]
    labels: Mapping[str, int]
    checkpoints: Mapping[int, Path]
    identity: ModelIdentity = field(default_factory=ModelIdentity)
    pack: PackManifest | None = None

    def read_weights(self, fold: int) -> dict[str, torch.Tensor]:
        """Read the network weights of one fold into memory, on the CPU.

        Tensors that share memory in the file (nnU-Net's decoder refers to its encoder) share it
        here too. A pack's file is checked against its digest, a checkpoint against its checksums.

        Raises:
            WeightsError: the file is damaged, needs code to load, or holds other than plain,
                finite tensors of floating point numbers.
        """
        if self.pack is not None:
            return read_packed_weights(self.path, self.pack, fold)
        from gc_panther.nnunet.model.tensors import read_intact

        path = self.checkpoints[fold]
        return read_intact(read_checkpoint(path)["network_weights"], path)


def is_model_folder(path: Path) -> bool:
    """Whether a folder is laid out as nnU-Net's models or packs are, complete or not."""
    names = ("plans.json", "dataset.json", MANIFEST)
    return any((path / name).exists() for name in names) or any(
        _FOLD_FOLDER.fullmatch(entry.name) or _FLAT_CHECKPOINT.fullmatch(entry.name)
        for entry in path.iterdir()
    )


def open_model_folder(path: Path, folds: tuple[int, ...] | None = None) -> ModelFolder:
    """Open a model folder.

    Every wanted checkpoint is opened, so that a damaged or unsafe one is found now; the weights
    themselves are not read.

    Args:
        path: the folder.
        folds: the folds to use, all of which must be there; None or empty takes all there are.

    Raises:
        WeightsError: a file is missing, damaged or unsafe, or the model is of a kind that is not
            supported (regions, several channels, two-dimensional, cascade).
    """
    try:
        if not path.is_dir():
            raise WeightsError("there is no such model folder", where=path)
        return _open_pack(path, folds) if (path / MANIFEST).is_file() else _open_raw(path, folds)
    except OSError as error:
        raise WeightsError(
            f"the model folder cannot be read ({error.strerror})",
            where=error.filename or path,
            fix="Check the folder and its permissions",
        ) from error


def _open_raw(path: Path, folds: tuple[int, ...] | None) -> ModelFolder:
    checkpoints = _wanted(path, _find_checkpoints(path), folds)
    facts = {fold: _facts(read_checkpoint(file), file) for fold, file in checkpoints.items()}
    first = next(iter(facts.values()))
    for kind, different in (
        ("configurations", {fact.init_args.configuration for fact in facts.values()}),
        ("mirroring axes", {fact.inference_allowed_mirroring_axes for fact in facts.values()}),
    ):
        if len(different) > 1:
            raise WeightsError(
                f"the checkpoints were made with different {kind} "
                f"({', '.join(sorted(map(str, different)))})",
                where=path,
                fix=_SAME_TRAINING,
            )
    plans = _read_json(path, _plans_file(path), first.init_args.plans)
    dataset_json = _read_json(path, path / "dataset.json", first.init_args.dataset_json)
    configuration = first.init_args.configuration
    return ModelFolder(
        path=path,
        plans=plans,
        dataset_json=dataset_json,
        configuration=configuration,
        trainer_name=first.trainer_name,
        mirroring_axes=first.inference_allowed_mirroring_axes or (),
        labels=_checked_labels(path, plans, dataset_json, configuration),
        checkpoints=checkpoints,
        identity=read_identity(path),
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Open an nnU-Net checkpoint without running any code from it.

    The file is mapped into memory, not read, so this is cheap whatever its size. Besides tensors
    and plain values only numpy's numbers and arrays are accepted: nnU-Net's log holds some.

    Raises:
        WeightsError: the file is damaged, needs more than that, or is not an nnU-Net checkpoint.
    """
    import numpy as np
    import torch

    # The two functions that numpy's pickles name; numpy offers them under no public name.
    scalar, reconstruct = (np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0])
    harmless: list[Any] = [
        scalar,
        reconstruct,
        # numpy 1 called its core by another name
        (scalar, "numpy.core.multiarray.scalar"),
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    ]
    try:
        with path.open("rb") as file:
            magic = file.read(len(_ZIP_MAGIC))
        if magic != _ZIP_MAGIC:
            raise WeightsError(
                "the file is not a checkpoint of a current PyTorch (or a download that did not "
                "finish, or a Git LFS pointer)",
                where=path,
                fix="Fetch it again; convert an old one with torch.load(…, weights_only=True) "
                "and torch.save",
            )
        _compare_checksum(path)
        with torch.serialization.safe_globals(harmless):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "the checkpoint needs code to load and was refused, because such a file can do "
            "anything to this machine",
            where=path,
            fix="If you trust its source, convert it where that code is at home: save "
            "network_weights, init_args, trainer_name and inference_allowed_mirroring_axes alone",
        ) from error
    # Damaged archives raise whatever the libraries stumble over first.
    except Exception as error:
        raise WeightsError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            where=path,
            fix="It is incomplete or damaged; copy it again",
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(
        checkpoint.get("network_weights"), Mapping
    ):
        raise WeightsError(
            "the file is not an nnU-Net checkpoint (it has no network_weights)", where=path
        )
    return checkpoint


def _compare_checksum(path: Path) -> None:
    """Compare what says how a checkpoint's tensors belong together with its checksum.

    Raises:
        zipfile.BadZipFile: it differs.
        ValueError: it is compressed, as torch never writes it, and could grow without bounds.
    """
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("the checkpoint is compressed")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                archive.read(name)


def _facts(checkpoint: Mapping[str, Any], path: Path) -> CheckpointFacts:
    known = {name: checkpoint[name] for name in CheckpointFacts.model_fields if name in checkpoint}
    return validated(CheckpointFacts, known, "the checkpoint", path)


def _open_pack(path: Path, folds: tuple[int, ...] | None) -> ModelFolder:
    manifest = read_manifest(path)
    # The folds are checked when they are read.
    small = manifest.files.keys() - set(manifest.folds.values())
    for name in sorted(small | {"plans.json", "dataset.json"}):
        verify(path, manifest, name)
    plans = _read_json(path, path / "plans.json", None)
    dataset_json = _read_json(path, path / "dataset.json", None)
    found = {fold: path / name for fold, name in manifest.folds.items()}
    return ModelFolder(
        path=path,
        plans=plans,
        dataset_json=dataset_json,
        configuration=manifest.configuration,
        trainer_name=manifest.trainer_name,
        mirroring_axes=manifest.mirroring_axes,
        labels=_checked_labels(path, plans, dataset_json, manifest.configuration),
        checkpoints=_wanted(path, found, folds),
        identity=manifest,
        pack=manifest,
    )


def _wanted(path: Path, found: dict[int, Path], folds: tuple[int, ...] | None) -> dict[int, Path]:
    if not found:
        raise WeightsError(
            "the model folder holds no checkpoint",
            where=path,
            fix=f"Expected fold_0/{CHECKPOINT_NAMES[0]} or checkpoint_best_…_fold_0.pth in it",
        )
    wanted = tuple(folds) if folds else tuple(sorted(found))
    missing = [fold for fold in wanted if fold not in found]
    if missing:
        raise WeightsError(
            f"fold {', '.join(map(str, missing))} is missing from the model folder "
            f"(found: {', '.join(map(str, sorted(found)))})",
            where=path,
            fix=f"Put it at {path / f'fold_{missing[0]}' / CHECKPOINT_NAMES[0]}, "
            "or choose among the folds found",
        )
    return {fold: found[fold] for fold in wanted}


def _find_checkpoints(path: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for entry in sorted(path.iterdir()):
        file: Path | None = None
        if match := _FLAT_CHECKPOINT.fullmatch(entry.name):
            file = entry
        elif match := _FOLD_FOLDER.fullmatch(entry.name):
            file = next((f for n in CHECKPOINT_NAMES if (f := entry / n).is_file()), None)
        if match is None or file is None:
            continue
        fold = int(match[1])
        if fold in found:
            raise WeightsError(
                f"two checkpoints claim to be fold {fold} "
                f"({found[fold].relative_to(path)} and {file.relative_to(path)})",
                where=path,
                fix="Keep the checkpoints of one model only in a folder",
            )
        found[fold] = file
    return found


def _plans_file(path: Path) -> Path:
    """``plans.json``, or the only file that is named like one of nnU-Net's planners."""
    named = sorted(path.glob("nnUNet*Plans.json"))
    standard = path / "plans.json"
    return named[0] if len(named) == 1 and not standard.is_file() else standard


def _read_json(folder: Path, file: Path, otherwise: Any) -> Mapping[str, Any]:
    """A JSON object from a file or, where there is no such file, from a checkpoint."""
    document = otherwise
    if file.is_file():
        text = read_document(file)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{file.name} is not valid JSON ({error})", where=file) from error
        if not isinstance(document, dict):
            raise WeightsError(f"{file.name} does not hold a JSON object", where=file)
    if not isinstance(document, dict):
        raise WeightsError(
            f"{file.name} is missing from the model folder",
            where=folder,
            fix="Copy it from nnU-Net's results folder, where it is next to the folds",
        )
    return document


def _checked_labels(
    path: Path, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], configuration: str
) -> dict[str, int]:
    """The labels of a model whose plans and dataset.json can be used.

    Raises:
        WeightsError: a field is wrong, or the model is of a kind that is not supported.
    """
    dataset = validated(Dataset, dataset_json, "dataset.json", path)
    channels = dataset.channel_names or dataset.modality or {}
    if len(channels) != 1:
        raise WeightsError(
            f"the model takes {len(channels)} image channels; only one is supported", where=path
        )
    settings = resolved_configuration(plans, configuration, path)
    if settings.get("previous_stage"):
        raise WeightsError(
            f"configuration {configuration} is a cascade's second stage",
            where=path,
            fix="Only single-stage models are supported",
        )
    if configuration.startswith("2d"):
        raise WeightsError(
            f"configuration {configuration} is two-dimensional",
            where=path,
            fix="Only three-dimensional models are supported",
        )
    check_plans(plans, configuration, path)
    return _labels(path, dataset)


def _labels(path: Path, dataset: Dataset) -> dict[str, int]:
    """The labels without nnU-Net's ``ignore``, which no network has an output for."""
    labels = {name: value for name, value in (dataset.labels or {}).items() if name != "ignore"}
    numbers = {name: value for name, value in labels.items() if isinstance(value, int)}
    if len(numbers) < len(labels) or sorted(numbers.values()) != [*range(len(numbers))]:
        raise WeightsError(
            "dataset.json must number its labels 0, 1, 2, …; regions are not supported",
            where=path,
        )
    if not 2 <= len(numbers) <= MOST_LABELS or numbers.get("background") != 0:
        raise WeightsError(
            "dataset.json must name label 0 'background' and at least one other label, "
            f"{MOST_LABELS} in all at most",
            where=path,
        )
    return numbers
