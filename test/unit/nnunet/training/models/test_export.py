import copy
import json
from importlib.metadata import version

import numpy as np
import pytest
import torch

from gc_panther.errors import ProcessingError
from gc_panther.model_identity import read_identity
from gc_panther.nnunet.model.folder import read_checkpoint
from gc_panther.nnunet.training.models.export import (
    NEVER,
    export_model,
    exported_identity,
    model_card,
    pseudo_dice,
    widen_heads,
)


def test_wider_heads_keep_their_values_and_the_new_outputs_never_win():
    head = "decoder.seg_layers.0."
    weights = {
        head + "weight": torch.randn(3, 4, 1, 1, 1),
        head + "bias": torch.randn(3),
        "encoder.weight": torch.randn(5),
    }
    wide = widen_heads(weights, {0: 0, 1: 5, 2: 7}, 41)
    assert wide["encoder.weight"] is weights["encoder.weight"]
    features = 10 * torch.randn(100, 4)
    old, new = (
        features @ w[head + "weight"].flatten(1).T + w[head + "bias"] for w in (weights, wide)
    )
    assert torch.equal(torch.tensor([0, 5, 7])[old.argmax(1)], new.argmax(1))
    # nnU-Net adds up ten times the logits of up to eight windows in half precision.
    assert torch.isfinite(torch.tensor(80 * NEVER).half())


@pytest.fixture
def results(tmp_path):
    """nnU-Net's folder of one trained fold."""
    folder = tmp_path / "results"
    (folder / "fold_0").mkdir(parents=True)
    dataset = {"labels": {"background": 0, "tumour": 1, "pancreas": 2}, "dataset": {"a": {}}}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text("{}")
    checkpoint = {
        "network_weights": {"a": torch.ones(2)},
        "optimizer_state": {"momentum": torch.ones(2)},
        "trainer_name": "nnUNetTrainer_Student",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "init_args": {"configuration": "3d_fullres", "dataset_json": dataset},
        "logging": {"dice_per_class_or_region": [[np.float64(0.5), np.nan]] * 6},
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def test_an_older_export_is_replaced_as_a_whole(results, tmp_path):
    out = tmp_path / "out" / "task1"
    out.mkdir(parents=True)
    (out / "old").touch()
    export_model(results, [0], out, card="card", extra={"version.json": {"weights_version": 1}})
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md",
        "dataset.json",
        "fold_0",
        "model.json",
        "plans.json",
        "version.json",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["task1"]
    content = torch.load(out / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert "optimizer_state" not in content


def test_an_export_says_what_it_is(results, tmp_path):
    out = tmp_path / "task1"
    export_model(results, [0], out, card="", identity=exported_identity("Tiny", synthetic=True))
    assert read_identity(out).model_dump() == {
        "kind": "demonstration",
        "title": "Tiny",
        "licence": "Apache-2.0",
        "model_card": "MODEL_CARD.md",
    }
    assert exported_identity("Tiny", synthetic=False).kind == "trained"


def test_what_an_interrupted_export_left_is_no_obstacle(results, tmp_path):
    out = tmp_path / "out" / "task1"
    for name in ("task1", ".task1.part", ".task1.earlier"):
        (out.parent / name / "fold_9").mkdir(parents=True)
    export_model(results, [0], out, card="card")
    assert [path.name for path in out.parent.iterdir()] == ["task1"]
    assert not (out / "fold_9").exists()


def test_a_damaged_checkpoint_is_not_exported(results, tmp_path):
    path = results / "fold_0" / "checkpoint_final.pth"
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(2).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(ProcessingError, match="trained again"):
        export_model(results, [0], tmp_path / "out", card="")


def test_an_untrained_fold_leaves_the_older_export_in_place(results, tmp_path):
    out = tmp_path / "task1"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(ProcessingError, match="fold_1"):
        export_model(results, [0, 1], out, card="")
    assert (out / "old").is_file()


def test_weights_that_are_not_finite_are_not_exported(results, tmp_path):
    path = results / "fold_0" / "checkpoint_final.pth"
    content = copy.deepcopy(read_checkpoint(path))  # the file is mapped, and written below
    content["network_weights"]["a"][0] = torch.nan
    torch.save(content, path)
    with pytest.raises(ProcessingError, match="diverged"):
        export_model(results, [0], tmp_path / "out", card="")


def test_the_pseudo_dice_of_labels_that_never_occurred_is_left_out(results):
    assert pseudo_dice(results, 0) == {"tumour": 0.5}


CARD = """\
# Tiny

**For research. Not for clinical use.**

Finds <nothing> & says so.

## Reproduce

```
gc-panther train tiny
```

## Data

- 2 cases
- 1 fold

## Training

- recipe: `demo`
- {versions}, commit 0123456789ab

## Cross-validation

The tumour of every case, in the label map of
the one network that has not seen it.

| Dice |
|--:|
| 0.5 |

## Rounds

The round with the best mean Dice of the tumour in cross-validation is exported.
Students learn from what teachers of other folds have seen, so theirs is a
little optimistic.

The first is exported.

## Pseudo-Dice

nnU-Net's Dice over random patches of the cases held out,
mean of the last five epochs. It is not the Dice of whole cases.

| | tumour | pancreas |
|---|---|---|
| fold 0 | 0.500 | 0.250 |
| fold 1 | nan | 0.125 |

## Labels

- 0: background
- 1: tumour
- 2: pancreas

## Licence

Apache-2.0
"""


@pytest.fixture
def card(monkeypatch):
    """Make a card; keywords change what is in it."""
    monkeypatch.setattr(
        "gc_panther.nnunet.training.models.export._commit", lambda: ", commit 0123456789ab"
    )

    def make(**changes):
        content = {
            "purpose": "Finds <nothing> & says so.",
            "command": "gc-panther train tiny",
            "data": ["2 cases", "1 fold"],
            "training": ["recipe: `demo`"],
            "results": {"fold 0": {"pancreas": 0.25, "tumour": 0.5}, "fold 1": {"pancreas": 0.125}},
            "labels": {"pancreas": 2, "background": 0, "tumour": 1},
            "synthetic": False,
            "validation": "| Dice |\n|--:|\n| 0.5 |",
            "rounds": "The first is exported.",
        }
        return model_card("Tiny", **{**content, **changes})

    return make


def test_a_model_card_says_what_was_trained_on_what_and_what_it_reached(card):
    versions = ", ".join(f"{name} {version(name)}" for name in ("gc-panther", "nnunetv2"))
    # With the build, which the metadata of torch's default one lacks.
    versions += f", torch {torch.__version__}"
    assert card() == CARD.format(versions=versions)


def test_a_model_card_has_no_empty_parts_and_warns_of_synthetic_data(card):
    whole, short = card(), card(validation="", rounds="", synthetic=True)
    headings = [line for line in short.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Reproduce",
        "## Data",
        "## Training",
        "## Pseudo-Dice",
        "## Labels",
        "## Licence",
    ]
    assert "\n\n\n" not in whole + short
    assert "\n\n**Demonstration weights, trained on synthetic images, not for patients." in short
