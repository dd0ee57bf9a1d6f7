"""Weights packs: what inference needs of a model folder, and nothing else.

A checkpoint of nnU-Net is twice as large as its network (the optimizer's momentum), stores
nothing by which damage would be noticed, and is a pickle. A pack holds::

    pack.json               what it is made of, with the size and SHA-256 of every other file
    plans.json  dataset.json  MODEL_CARD.md …
    fold_0.safetensors  fold_1.safetensors  …

Tensors that are one in memory (nnU-Net's decoder refers to its encoder) are stored once; the
manifest knows their other names. The same model folder always gives the same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gc_panther.errors import WeightsError, is_out_of_memory
from gc_panther.model_identity import (
    MANIFEST,
    ModelIdentity,
    read_document,
    validation_problem,
)
from gc_panther.nnunet.model.documents import MirroringAxes

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "float16"]


def _file_name(name: str) -> str:
    if name in ("", ".", "..") or not name.isprintable() or "/" in name:
        raise ValueError("is not the name of a file in the pack")
    if len(name.encode(errors="replace")) > 255:
        raise ValueError("is longer than a file's name can be")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackedFile(_Section):
    """One file of a pack.

    Attributes:
        bytes: its size.
        sha256: its digest, hexadecimal.
    """

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PackManifest(ModelIdentity):
    """What ``pack.json`` says, kind, title, licence and model card among it.

    Attributes:
        format: distinguishes a pack from other folders.
        version: of the format.
        precision: of the weights.
        configuration: name of the plans' configuration.
        trainer_name: class that trained the networks.
        mirroring_axes: spatial axes of the network's input that may be mirrored.
        folds: file of each fold.
        aliases: further names of stored tensors, by name.
        files: every other file of the pack.
        provenance: where it comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["gc_panther weights pack"] = "gc_panther weights pack"
    version: Literal[1] = 1
    precision: Precision
    configuration: Annotated[str, Field(max_length=200)]
    trainer_name: str
    mirroring_axes: MirroringAxes
    folds: dict[Annotated[int, Field(ge=0, le=10**6)], FileName]
    aliases: dict[str, str]
    files: dict[FileName, PackedFile]
    provenance: dict[str, Any]


def read_manifest(folder: Path) -> PackManifest:
    """Read ``pack.json`` and check that every file it names is there in its size.

    Raises:
        WeightsError: a file is missing, has another size, or is not what the manifest wants.
    """
    path = folder / MANIFEST
    text = read_document(path)
    try:
        manifest = PackManifest.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(
            "the manifest of the weights pack is damaged or of another version "
            f"({validation_problem(error)})",
            where=path,
            fix="Copy the pack again, or make it again with gc-panther pack",
        ) from error
    unknown = sorted(set(manifest.folds.values()) - manifest.files.keys())
    if unknown:
        raise WeightsError(f"the manifest lacks the digest of {unknown[0]}", where=path)
    for name, wanted in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise WeightsError(
                f"{name} is missing from the weights pack", where=folder, fix="Copy the pack again"
            )
        if file.stat().st_size != wanted.bytes:
            raise WeightsError(
                f"{name} has {file.stat().st_size} bytes, the pack's manifest says {wanted.bytes}",
                where=file,
                fix="The copy is incomplete or was changed; copy the pack again",
            )
    return manifest


def verify(folder: Path, manifest: PackManifest, name: str) -> None:
    """Check the content of one file.

    Raises:
        WeightsError: it is not the file that was packed.
    """
    if name not in manifest.files:
        raise WeightsError(f"the manifest does not know {name}", where=folder / MANIFEST)
    try:
        found = sha256_of(folder / name)
    except OSError as error:
        raise WeightsError(
            f"{name} cannot be read ({error.strerror})", where=folder / name
        ) from error
    if found != manifest.files[name].sha256:
        raise WeightsError(
            f"{name} is not the file that was packed (its SHA-256 differs)",
            where=folder / name,
            fix="It is damaged or was changed; copy the pack again",
        )


def read_packed_weights(folder: Path, manifest: PackManifest, fold: int) -> dict[str, torch.Tensor]:
    """The weights of one fold, single precision, mapped from the file where they are stored so.

    Raises:
        WeightsError: the file is not the one that was packed, or holds other than sound weights.
    """
    from safetensors.torch import load_file

    from gc_panther.nnunet.model.tensors import sound_weights

    path = folder / manifest.folds[fold]
    verify(folder, manifest, path.name)
    try:
        stored = load_file(path)
    # Whatever the library says to a file that is not its own.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"the packed weights cannot be read ({type(error).__name__})",
            where=path,
            fix="Copy the pack again, or make it again with gc-panther pack",
        ) from error
    weights = sound_weights(stored, path)
    missing = sorted(set(manifest.aliases.values()) - weights.keys())
    if missing:
        raise WeightsError(
            f"the manifest refers to a tensor that the pack lacks ({missing[0][:80]})", where=path
        )
    return {**weights, **{name: weights[to] for name, to in manifest.aliases.items()}}


def sha256_of(path: Path) -> str:
    """The digest of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
