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
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gc_panther import __version__
from gc_panther.errors import UserError, WeightsError
from gc_panther.model_identity import (
    MANIFEST,
    ModelIdentity,
    read_document,
    validation_problem,
)
from gc_panther.nnunet.model.documents import MirroringAxes

if TYPE_CHECKING:
    import torch

    from gc_panther.nnunet.model.folder import ModelFolder

Precision = Literal["float32", "float16"]

#: Files that are copied along with the folds: what a person reads, what MRSegmentator asks for.
_CARD = "MODEL_CARD.md"
_COMPANIONS = (_CARD, "LICENSE", "version.json")


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


def write_pack(
    model: ModelFolder,
    out: Path,
    *,
    half: bool = False,
    extra: Mapping[str, str] | None = None,
    identity: ModelIdentity | None = None,
) -> PackManifest:
    """Pack the folds of a model folder.

    Args:
        model: an opened folder, itself a pack or not.
        out: folder to make; it appears when all is written.
        half: store the weights in half precision, for deployment on GPUs; they are rounded.
        extra: further text files by name.
        identity: what the pack says about itself; by default what the folder says.

    Returns:
        The manifest.

    Raises:
        UserError: the folder is there already.
        WeightsError: a checkpoint is damaged, or half precision cannot hold its weights.
    """
    import torch
    from safetensors.torch import save_file

    if out.exists():
        raise UserError("the pack's folder is there already", where=out, fix="Name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        part.chmod(0o755)
        for name, document in (("plans.json", model.plans), ("dataset.json", model.dataset_json)):
            text = json.dumps(document, indent=1, sort_keys=True) + "\n"
            (part / name).write_text(text, encoding="utf-8")
        for name, text in (extra or {}).items():
            (part / name).write_text(text, encoding="utf-8")
        identity = identity or model.identity
        for name in dict.fromkeys((*_COMPANIONS, Path(identity.model_card).name)):
            if name and (model.path / name).is_file():
                shutil.copyfile(model.path / name, part / name)
        if not identity.model_card and (part / _CARD).is_file():
            identity = identity.model_copy(update={"model_card": _CARD})
        aliases = _common_aliases(model)
        sources = {}
        for fold, checkpoint in model.checkpoints.items():
            weights = {
                name: value.contiguous()
                for name, value in model.read_weights(fold).items()
                if name not in aliases
            }
            if half:
                weights = {name: _halved(name, value) for name, value in weights.items()}
            file = part / f"fold_{fold}.safetensors"
            save_file(weights, file, {"format": "pt"})
            # Readable for the container's user, as the other files are.
            file.chmod(0o644)
            sources[str(fold)] = {"file": checkpoint.name, "sha256": sha256_of(checkpoint)}
            del weights
        manifest = PackManifest(
            **identity.model_dump(include=set(ModelIdentity.model_fields)),
            precision="float16" if half else "float32",
            configuration=model.configuration,
            trainer_name=model.trainer_name,
            mirroring_axes=model.mirroring_axes,
            folds={fold: f"fold_{fold}.safetensors" for fold in model.checkpoints},
            aliases=aliases,
            files={
                path.name: PackedFile(bytes=path.stat().st_size, sha256=sha256_of(path))
                for path in sorted(part.iterdir())
            },
            provenance={
                "packed_by": f"gc_panther {__version__}, torch {torch.__version__}",
                "folder": model.path.resolve().name,
                "checkpoints": sources,
            },
        )
        text = manifest.model_dump_json(indent=1) + "\n"
        (part / MANIFEST).write_text(text, encoding="utf-8")
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return manifest


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


def _common_aliases(model: ModelFolder) -> dict[str, str]:
    """Names that refer to another name's tensor in every fold."""
    common: dict[str, str] | None = None
    for fold in model.checkpoints:
        first: dict[tuple[Any, ...], str] = {}
        aliases = {}
        for name, value in model.read_weights(fold).items():
            place = (
                value.untyped_storage().data_ptr(),
                value.storage_offset(),
                value.shape,
                value.stride(),
            )
            if value.numel() and first.setdefault(place, name) != name:
                aliases[name] = first[place]
        common = aliases if common is None else dict(common.items() & aliases.items())
    return dict(sorted((common or {}).items()))


def _halved(name: str, value: torch.Tensor) -> torch.Tensor:
    import torch

    if not value.is_floating_point():
        return value
    halved = value.half()
    if not bool(torch.isfinite(halved).all()):
        raise WeightsError(
            f"a weight is too large for half precision (in {name[:80]})",
            fix="Pack the model without --half",
        )
    return halved


def sizes(model: ModelFolder, manifest: PackManifest) -> Mapping[str, int]:
    """Bytes of the checkpoints and of the packed folds."""
    return {
        "checkpoints": sum(path.stat().st_size for path in model.checkpoints.values()),
        "pack": sum(manifest.files[name].bytes for name in manifest.folds.values()),
    }
