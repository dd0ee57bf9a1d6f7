import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gc_panther.errors import ProcessingError
from gc_panther.nnunet.training.models.checkpoints import (
    last_checkpoint,
    read_whole,
    save_whole,
    seed_epochs,
)

WEIGHTS = torch.arange(1000.0)


def write(path, epoch):
    torch.save({"network_weights": {"a": WEIGHTS + epoch}, "current_epoch": epoch}, path)
    return path


def flip_a_bit(path):
    """In a weight, where torch itself would not notice."""
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["network_weights"]["a"]
    content[content.index(weights[500:510].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def trainer_that(save):
    trainer = SimpleNamespace(save_checkpoint=save, disable_checkpointing=False)
    save_whole(trainer)
    return trainer


def test_an_interrupted_write_leaves_the_last_checkpoint(tmp_path):
    path = write(tmp_path / "checkpoint_latest.pth", 1)

    def save(file):
        file.write(b"PK half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer_that(save).save_checkpoint(str(path))
    assert read_whole(path)["current_epoch"] == 1
    trainer_that(lambda file: write(file, 2)).save_checkpoint(str(path))
    assert read_whole(path)["current_epoch"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint_latest.pth"]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    path = write(tmp_path / "checkpoint_latest.pth", 1)
    (tmp_path / ".checkpoint_latest.pth.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        trainer_that(lambda file: write(file, 2)).save_checkpoint(str(path))
    assert read_whole(path)["current_epoch"] == 1


def test_a_trainer_that_writes_no_checkpoints_still_writes_none(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    trainer = trainer_that(lambda file: None)
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("latest", "best", "expected"),
    [
        (None, None, None),
        (3, None, "checkpoint_latest.pth"),
        (None, 3, "checkpoint_best.pth"),
        (4, 3, "checkpoint_latest.pth"),
        (3, 4, "checkpoint_best.pth"),
        # Of the same epoch: the best one was written later and knows that it is the best.
        (3, 3, "checkpoint_best.pth"),
    ],
)
def test_a_training_goes_on_from_the_newest_checkpoint(tmp_path, latest, best, expected):
    for name, epoch in (("latest", latest), ("best", best)):
        if epoch is not None:
            write(tmp_path / f"checkpoint_{name}.pth", epoch)
    found = last_checkpoint(tmp_path, "fold")
    assert (found and found.name) == expected


@pytest.mark.parametrize("damage", [flip_a_bit, cut, empty])
def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_taken(tmp_path, caplog, damage):
    latest = write(tmp_path / "checkpoint_latest.pth", 9)
    best = write(tmp_path / "checkpoint_best.pth", 5)
    damage(latest)
    with pytest.raises(ProcessingError, match="trained again"):
        read_whole(latest)
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(tmp_path, "task1 fold 0") == best
    assert "task1 fold 0: the checkpoint checkpoint_latest.pth is damaged" in caplog.text
    assert f"set aside as {latest}.damaged" in caplog.text
    assert (tmp_path / "checkpoint_latest.pth.damaged").is_file()
    assert not latest.exists()
    damage(best)
    assert last_checkpoint(tmp_path, "task1 fold 0") is None


def epochs(seed, first):
    """What the epochs of a training that begins at ``first`` draw."""
    drawn = {}
    trainer = SimpleNamespace(current_epoch=first)

    def begin():
        epoch = trainer.current_epoch
        drawn[epoch] = (random.random(), np.random.random(), torch.rand(1).item())

    trainer.on_epoch_start = begin
    seed_epochs(trainer, seed)
    for epoch in range(first, 4):
        trainer.current_epoch = epoch
        trainer.on_epoch_start()
        # An epoch draws as often as it likes.
        np.random.random(epoch + first)
    return drawn


def test_an_epoch_draws_the_same_after_an_interruption():
    whole = epochs(5, 0)
    assert epochs(5, 2) == {epoch: whole[epoch] for epoch in (2, 3)}
    assert len(set(whole.values())) == 4
    assert not set(epochs(6, 0).values()) & set(whole.values())
