import tarfile

import pytest

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.training.models.archive import write_archive
from gc_panther.runtime.archives import unpack


def test_an_archive_holds_packs_at_its_top_level(tiny_model_folder, tmp_path):
    folder = tiny_model_folder(folds=(0, 1))
    (folder / "MODEL_CARD.md").write_text("# A model")
    path = write_archive({"task1": folder}, tmp_path / "out" / "task1_model.tar.gz")
    assert [p.name for p in path.parent.iterdir()] == ["task1_model.tar.gz"]
    with tarfile.open(path) as archive:
        entries = archive.getmembers()
    unpack(path, tmp_path / "model")
    assert {entry.name.split("/")[0] for entry in entries} == {"task1"}
    assert {(entry.uid, entry.mtime) for entry in entries} == {(0, 0)}
    assert all(entry.mode == (0o755 if entry.isdir() else 0o644) for entry in entries)
    assert (tmp_path / "model" / "task1" / "MODEL_CARD.md").read_text() == "# A model"
    model = open_model_folder(tmp_path / "model" / "task1")
    assert (model.path / "pack.json").is_file()
    assert sorted(model.checkpoints) == [0, 1]
    before, after = (open_model_folder(p).read_weights(1) for p in (folder, model.path))
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.slow
def test_the_same_models_give_the_same_bytes(tiny_model_folder, tmp_path):
    model = tiny_model_folder(folds=(0,), patch_zyx=(8, 8, 8))
    models = {"b": model, "a": model}
    first = write_archive(models, tmp_path / "first.tar.gz")
    second = write_archive(dict(reversed(models.items())), tmp_path / "second.tar.gz")
    assert first.read_bytes() == second.read_bytes()


def test_a_damaged_model_leaves_no_archive(tiny_model_folder, tmp_path):
    folder = tiny_model_folder(folds=(0,))
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError):
        write_archive({"task1": folder}, tmp_path / "out" / "model.tar.gz")
    assert list((tmp_path / "out").iterdir()) == []
