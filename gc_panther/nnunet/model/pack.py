"""Writes weights packs; :mod:`gc_panther.nnunet.model.manifest` says what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gc_panther import __version__
from gc_panther.errors import UserError, WeightsError
from gc_panther.files import whole_folder
from gc_panther.model_identity import MANIFEST, ModelIdentity
from gc_panther.nnunet.model.folder import ModelFolder
from gc_panther.nnunet.model.manifest import PackedFile, PackManifest, sha256_of

if TYPE_CHECKING:
    import torch

#: Files that are copied along with the folds: what a person reads, what MRSegmentator asks for.
_CARD = "MODEL_CARD.md"
_COMPANIONS = (_CARD, "LICENSE", "version.json")


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
    with whole_folder(out) as part:
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
    return manifest


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
