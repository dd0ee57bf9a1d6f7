import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gc_panther.case import Geometry, Volume
from gc_panther.errors import UserError, WeightsError
from gc_panther.model_identity import MANIFEST, read_identity
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.model.pack import sizes, write_pack
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext


@pytest.fixture
def folder(tiny_model_folder):
    return tiny_model_folder(patch_zyx=(8, 16, 16))


@pytest.fixture
def packed(folder, tmp_path):
    write_pack(open_model_folder(folder), tmp_path / "pack")
    return tmp_path / "pack"


def test_a_pack_gives_the_checkpoints_tensors(folder, packed):
    checkpoints, pack = open_model_folder(folder), open_model_folder(packed)
    assert pack.pack.precision == "float32"
    for what in ("plans", "dataset_json", "configuration", "trainer_name", "mirroring_axes"):
        assert getattr(pack, what) == getattr(checkpoints, what)
    assert pack.labels == checkpoints.labels
    for fold in (0, 1, 2):
        expected, found = checkpoints.read_weights(fold), pack.read_weights(fold)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_pack_gives_the_same_answer(folder, packed):
    array = np.random.default_rng(3).integers(1, 900, (6, 14, 12)).astype(np.int16)
    volume = Volume(array, Geometry((12, 14, 6), (2.0, 2.0, 4.0)))
    predictions = [
        Ensemble(open_model_folder(path), device="cpu", options=NnUNetOptions()).predict(
            volume, RunContext()
        )
        for path in (folder, packed)
    ]
    assert np.array_equal(predictions[0].probabilities, predictions[1].probabilities)


def test_what_is_one_tensor_in_memory_is_stored_once(folder, packed):
    model = open_model_folder(packed)
    with safe_open(packed / "fold_0.safetensors", "pt") as file:
        stored = set(file.keys())
    names = set(model.read_weights(0))
    assert stored | model.pack.aliases.keys() == names
    assert not stored & model.pack.aliases.keys()
    # Every parameter of the encoder is also one of the decoder's.
    assert sum(name.startswith("decoder.encoder.") for name in names) > 10
    assert not any(name.startswith("decoder.encoder.") for name in stored)
    weights = model.read_weights(0)
    for name, target in model.pack.aliases.items():
        assert weights[name].data_ptr() == weights[target].data_ptr()


def test_momentum_is_left_out(folder, tmp_path):
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    unique = {v.data_ptr(): v for v in content["network_weights"].values()}
    content["optimizer_state"] = {"momentum": [torch.randn(v.shape) for v in unique.values()]}
    torch.save(content, file)
    model = open_model_folder(folder, (0,))
    whole = sizes(model, write_pack(model, tmp_path / "whole"))
    halved = sizes(model, write_pack(model, tmp_path / "halved", half=True))
    # The file formats' own overhead is what is missing to 1/2 and 1/4 in a network this small.
    numbers = 4 * sum(v.numel() for v in unique.values())
    assert numbers < whole["pack"] < numbers + 10_000
    assert numbers / 2 < halved["pack"] < numbers / 2 + 10_000
    assert whole["checkpoints"] > 2 * numbers


def test_half_precision_is_rounded_and_read_as_single(folder, tmp_path):
    model = open_model_folder(folder)
    assert write_pack(model, tmp_path / "half", half=True).precision == "float16"
    expected, found = model.read_weights(1), open_model_folder(tmp_path / "half").read_weights(1)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(torch.equal(expected[name].half().float(), found[name]) for name in expected)


def test_half_precision_must_hold_the_weights(folder, tmp_path):
    file = folder / "fold_1" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    next(iter(content["network_weights"].values())).view(-1)[0] = 1e6
    torch.save(content, file)
    with pytest.raises(WeightsError, match="too large for half precision"):
        write_pack(open_model_folder(folder), tmp_path / "half", half=True)
    assert not list(tmp_path.iterdir())


def test_the_same_folder_gives_the_same_bytes(folder, packed, tmp_path):
    write_pack(open_model_folder(folder), tmp_path / "again")
    for file in packed.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_pack_can_be_packed_with_fewer_folds(packed, tmp_path):
    write_pack(open_model_folder(packed, (2, 0)), tmp_path / "fewer")
    fewer = open_model_folder(tmp_path / "fewer")
    assert sorted(fewer.checkpoints) == [0, 2]
    assert not (tmp_path / "fewer" / "fold_1.safetensors").exists()


def test_companions_come_along_and_everybody_may_read(folder, tmp_path):
    (folder / "MODEL_CARD.md").write_text("# What it is\n")
    manifest = write_pack(open_model_folder(folder), tmp_path / "pack")
    assert (tmp_path / "pack" / "MODEL_CARD.md").read_text() == "# What it is\n"
    assert "MODEL_CARD.md" in manifest.files
    assert all(path.stat().st_mode & 0o004 for path in (tmp_path / "pack").iterdir())


def test_a_pack_keeps_the_identity_of_its_folder(folder, tmp_path):
    identity = {"kind": "trained", "title": "Tiny", "licence": "MIT", "model_card": "card.txt"}
    (folder / "model.json").write_text(json.dumps(identity))
    (folder / "card.txt").write_text("What it is")
    manifest = write_pack(open_model_folder(folder), tmp_path / "pack")
    assert manifest.model_dump(include=set(identity)) == identity
    assert "card.txt" in manifest.files
    again = write_pack(open_model_folder(tmp_path / "pack"), tmp_path / "again")
    assert again.model_dump(include=set(identity)) == identity


def test_nothing_is_overwritten(folder, packed):
    with pytest.raises(UserError, match="there already"):
        write_pack(open_model_folder(folder), packed)


def test_a_changed_companion_is_refused_too(folder, tmp_path):
    write_pack(open_model_folder(folder), tmp_path / "pack", extra={"openvino.json": "{}"})
    open_model_folder(tmp_path / "pack")
    (tmp_path / "pack" / "openvino.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"openvino\.json .*SHA-256"):
        open_model_folder(tmp_path / "pack")


@pytest.mark.parametrize("name", ["fold_1.safetensors", "plans.json", "dataset.json"])
def test_a_changed_file_is_refused_by_name(name, packed):
    content = bytearray((packed / name).read_bytes())
    content[-3] ^= 1
    (packed / name).write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256") as error:
        open_model_folder(packed).read_weights(1)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["fold_2.safetensors", "plans.json"])
def test_a_missing_or_short_file_is_refused_by_name(name, packed):
    content = (packed / name).read_bytes()
    (packed / name).write_bytes(content[:-10])
    with pytest.raises(WeightsError, match=f"{name} has .* bytes"):
        open_model_folder(packed)
    (packed / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        open_model_folder(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(version=2),
        lambda m: m.update(format="another"),
        lambda m: m.pop("files"),
        lambda m: m.update(surprise=1),
    ],
)
def test_a_manifest_of_another_kind_is_refused(change, packed):
    manifest = json.loads((packed / MANIFEST).read_text())
    change(manifest)
    (packed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="manifest"):
        open_model_folder(packed)


def test_a_manifest_cannot_name_files_outside(packed):
    manifest = json.loads((packed / MANIFEST).read_text())
    manifest["files"]["../plans.json"] = manifest["files"]["plans.json"]
    (packed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"files.*is not the name of a file in the pack"):
        open_model_folder(packed)


def test_a_fold_cannot_lie_outside_either(packed):
    manifest = json.loads((packed / MANIFEST).read_text())
    manifest["folds"]["0"] = "../fold_0.safetensors"
    (packed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"folds.*is not the name of a file in the pack"):
        open_model_folder(packed)


def test_an_alias_of_nothing_is_refused_in_a_short_line(packed):
    manifest = json.loads((packed / MANIFEST).read_text())
    manifest["aliases"]["a"] = "n" * 3000
    (packed / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="that the pack lacks") as caught:
        open_model_folder(packed).read_weights(0)
    assert len(str(caught.value)) < 400


def test_a_missing_fold_is_an_error(packed):
    with pytest.raises(WeightsError, match="fold 4 is missing"):
        open_model_folder(packed, (0, 4))


@pytest.mark.slow
def test_the_command(folder, tmp_path, toy_command_line, capfd):
    out = tmp_path / "pack"
    said = ["--kind", "demonstration", "--title", "Tiny", "--licence", "MIT"]
    assert toy_command_line(["pack", str(folder), str(out), "--folds", "0,2", *said]) == 0
    identity = read_identity(out)
    assert (identity.kind, identity.title, identity.licence) == ("demonstration", "Tiny", "MIT")
    said = capfd.readouterr().out
    assert "2 folds" in said
    assert str(out) in said
    assert sorted(open_model_folder(out).checkpoints) == [0, 2]
    wrong = ["pack", str(folder), str(tmp_path / "other"), "--kind", "finest"]
    assert toy_command_line(wrong) == 2
    assert (
        "the model's kind: Input should be 'demonstration' or 'trained'" in capfd.readouterr().err
    )
    assert toy_command_line(["pack", str(folder), str(out)]) == 2
    assert "there already" in capfd.readouterr().err
