"""Finished networks as plain nnU-Net model folders without optimizer state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gc_panther.errors import ProcessingError
from gc_panther.files import whole_folder
from gc_panther.json_files import write_json
from gc_panther.model_identity import IDENTITY_FILE, ModelIdentity
from gc_panther.nnunet.model.folder import read_checkpoint
from gc_panther.nnunet.training.models.checkpoints import read_whole
from gc_panther.nnunet.training.models.transfer import HEADS
from gc_panther.text import count

MODEL_CARD = "MODEL_CARD.md"
#: A logit far below all that occur. nnU-Net adds up ten times as much per window in half precision,
#: which ends at 65504.
NEVER = -100.0


def export_model(
    results: Path,
    folds: Sequence[int],
    out: Path,
    *,
    card: str,
    labels: Mapping[str, int] | None = None,
    extra: Mapping[str, Any] | None = None,
    identity: ModelIdentity | None = None,
) -> Path:
    """Write a model folder; an older one of the same name is replaced when all is written.

    ``plans.json``, ``dataset.json``, ``fold_k/checkpoint_final.pth``, ``MODEL_CARD.md`` and
    ``model.json``.
    The checkpoints load with ``weights_only=True``, and in ``nnUNetPredictor``.

    Args:
        results: nnU-Net's folder of the trained networks.
        folds: which of them.
        out: folder to write.
        card: text of the model card.
        labels: a larger label table to export for; labels that were not trained get an output
            that never wins. Names decide which output is which.
        extra: further JSON files by name.
        identity: what the model says about itself.

    Raises:
        ProcessingError: a checkpoint is missing or holds weights that are not finite.
    """
    plans = json.loads((results / "plans.json").read_text(encoding="utf-8"))
    dataset = json.loads((results / "dataset.json").read_text(encoding="utf-8"))
    # The paths of the training images mean nothing elsewhere.
    dataset.pop("dataset", None)
    outputs = None
    if labels is not None:
        outputs = {value: labels[name] for name, value in dataset["labels"].items()}
        dataset["labels"] = dict(labels)
    with whole_folder(out, replace=True) as part:
        write_json(part / "plans.json", plans)
        write_json(part / "dataset.json", dataset)
        for fold in folds:
            _export_checkpoint(results, fold, part, plans, dataset, outputs)
        for name, document in (extra or {}).items():
            write_json(part / name, document)
        (part / MODEL_CARD).write_text(card, encoding="utf-8")
        write_json(part / IDENTITY_FILE, (identity or ModelIdentity()).model_dump())
    return out


def _export_checkpoint(
    results: Path,
    fold: int,
    out: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    outputs: Mapping[int, int] | None,
) -> None:
    import torch

    source = results / f"fold_{fold}" / "checkpoint_final.pth"
    if not source.is_file():
        raise ProcessingError(
            "a fold is not trained", where=source, fix="Run the same command again to continue"
        )
    content = read_whole(source)
    weights = content["network_weights"]
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ProcessingError(
            "the training diverged", where=source, fix="Choose a lower learning rate"
        )
    if outputs is not None:
        weights = widen_heads(weights, outputs, len(dataset["labels"]))
    target = out / f"fold_{fold}" / "checkpoint_final.pth"
    target.parent.mkdir()
    torch.save(
        {
            "network_weights": weights,
            "trainer_name": content["trainer_name"],
            "init_args": {
                "plans": plans,
                "configuration": content["init_args"]["configuration"],
                "fold": fold,
                "dataset_json": dataset,
            },
            "inference_allowed_mirroring_axes": content["inference_allowed_mirroring_axes"],
        },
        target,
    )


def widen_heads(
    weights: Mapping[str, Any], outputs: Mapping[int, int], classes: int
) -> dict[str, Any]:
    """Give segmentation heads more outputs; the new ones never have the largest value.

    Args:
        weights: a network's state.
        outputs: for each old output, its number among the new ones.
        classes: number of new outputs.
    """
    import torch

    old, new = list(outputs), list(outputs.values())
    wide = dict(weights)
    for name, tensor in weights.items():
        if HEADS in name:
            fill = NEVER if name.endswith(".bias") else 0.0
            wide[name] = torch.full((classes, *tensor.shape[1:]), fill, dtype=tensor.dtype)
            wide[name][new] = tensor[old]
    return wide


def pseudo_dice(results: Path, fold: int) -> dict[str, float]:
    """nnU-Net's pseudo-Dice per label name, mean of a training's last five epochs."""
    import numpy as np

    content = read_checkpoint(results / f"fold_{fold}" / "checkpoint_final.pth")
    labels = content["init_args"]["dataset_json"]["labels"]
    names = [name for name, value in sorted(labels.items(), key=lambda item: item[1]) if value > 0]
    last = np.asarray(content["logging"]["dice_per_class_or_region"][-5:], dtype=float)
    present = np.isfinite(last).any(axis=0)
    return {
        name: round(float(np.nanmean(last[:, index])), 3)
        for index, name in enumerate(names)
        if present[index]
    }


def _commit() -> str:
    """The commit of the source, where that is a checkout: ``, commit 0123456789ab``."""
    import subprocess

    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        said = [
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {said[0].strip()}{' with changes' if said[1].strip() else ''}"


def describe_splits(splits: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """One line for a model card, that distinguishes two cross-validations."""
    text = json.dumps([{part: sorted(split[part]) for part in split} for split in splits])
    *others, last = (len(split["val"]) for split in splits)
    sizes = ", ".join([*map(str, others), count(last, "case")])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"validation parts of {sizes}, SHA-256 of the splits {digest[:16]}"


def exported_identity(title: str, *, synthetic: bool) -> ModelIdentity:
    """What an exported model says about itself.

    Args:
        title: as in its model card.
        synthetic: whether the networks saw nothing but phantoms.
    """
    return ModelIdentity(
        kind="demonstration" if synthetic else "trained",
        title=title,
        # The licence of networks that saw other data is not ours to choose.
        licence="Apache-2.0" if synthetic else "",
        model_card=MODEL_CARD,
    )


def model_card(
    title: str,
    *,
    purpose: str,
    command: str,
    data: Sequence[str],
    training: Sequence[str],
    results: Mapping[str, Mapping[str, float]],
    labels: Mapping[str, int],
    synthetic: bool,
    validation: str = "",
    rounds: str = "",
) -> str:
    """The text of a ``MODEL_CARD.md``.

    Args:
        title: heading.
        purpose: what the networks are for, a sentence.
        command: reproduces them.
        data: facts about the training data, one line each.
        training: facts about the training, one line each.
        results: pseudo-Dice per network, per label.
        labels: label values by name.
        synthetic: whether the networks saw nothing but phantoms.
        validation: a table of what the cross-validation came to.
        rounds: the same for each round, where there were several, and which one this is.
    """
    from importlib.metadata import version

    import torch
    from jinja2 import Environment, PackageLoader, StrictUndefined

    versions = (
        f"gc-panther {version('gc-panther')}, nnunetv2 {version('nnunetv2')}, "
        f"torch {torch.__version__}{_commit()}"
    )
    environment = Environment(  # noqa: S701 - Markdown, not HTML
        loader=PackageLoader("gc_panther.nnunet.training.models", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        title=title,
        purpose=purpose,
        command=command,
        data=data,
        training=[*training, versions],
        results=results,
        columns=sorted({name for row in results.values() for name in row}, key=lambda n: labels[n]),
        labels=dict(sorted(labels.items(), key=lambda item: item[1])),
        synthetic=synthetic,
        validation=validation,
        rounds=rounds,
        nan=float("nan"),
    )
