"""Checkpoints that no interruption spoils, and how a training goes on from them."""

from __future__ import annotations

import logging
import random
import zipfile
from pathlib import Path
from typing import Any

from gc_panther.errors import GCPantherError, ProcessingError
from gc_panther.files import whole_file
from gc_panther.nnunet.model.folder import read_checkpoint

log = logging.getLogger(__name__)

FINAL = "checkpoint_final.pth"
#: nnU-Net's checkpoints that hold all that a training needs to go on. Of two of the same epoch the
#: best one is the later one.
RESUMABLE = ("checkpoint_latest.pth", "checkpoint_best.pth")
#: Ending of a damaged checkpoint that was set aside.
DAMAGED = ".damaged"


def save_whole(trainer: Any) -> None:
    """Let an ``nnUNetTrainer`` write its checkpoints as a whole or not at all.

    nnU-Net writes over the last one, so that a kill or a full disk at that moment would leave none.
    """
    save = trainer.save_checkpoint

    def save_checkpoint(filename: str) -> None:
        if trainer.disable_checkpointing:
            return
        # An open file, because torch hides the reason of a failure for one that it opens.
        with whole_file(Path(filename)) as file:
            save(file)

    trainer.save_checkpoint = save_checkpoint


def seed_epochs(trainer: Any, seed: int) -> None:
    """Let every epoch of an ``nnUNetTrainer`` draw numbers that only the seed and its count decide.

    A training that was interrupted then sees the batches that an uninterrupted one sees, where they
    are made in this process (``nnUNet_n_proc_DA=0``).
    """
    begins_epoch = trainer.on_epoch_start

    def on_epoch_start() -> None:
        seed_all(seed, trainer.current_epoch)
        begins_epoch()

    trainer.on_epoch_start = on_epoch_start


def seed_all(*seeds: int) -> None:
    """Seed the generators that nnU-Net and its augmentation draw from."""
    import numpy as np
    import torch

    first, second, third = np.random.SeedSequence(seeds).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.manual_seed(third)


def last_checkpoint(folder: Path, title: str) -> Path | None:
    """The checkpoint of a fold's folder from which its training goes on, or None.

    A damaged one is set aside, and the log says so.

    Args:
        folder: nnU-Net's ``fold_k``.
        title: what log lines start with.
    """
    found: list[tuple[int, int, Path]] = []
    for rank, name in enumerate(RESUMABLE):
        path = folder / name
        if not path.is_file():
            continue
        try:
            found.append((read_whole(path)["current_epoch"], rank, path))
        except GCPantherError as error:
            aside = path.with_name(path.name + DAMAGED)
            path.replace(aside)
            log.warning("%s: %s; it is set aside as %s", title, error.what, aside)
    if not found:
        return None
    return max(found)[2]


def read_whole(path: Path) -> dict[str, Any]:
    """Open a checkpoint of nnU-Net's whose every byte was read and checked.

    Raises:
        ProcessingError: it is incomplete, or a byte is not what was written.
    """
    try:
        content = read_checkpoint(path)
        # torch does not look at the archive's checksums.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        reason = f"in {damaged}" if damaged else ""
    except GCPantherError as error:
        reason = error.what
    if reason:
        raise ProcessingError(
            f"the checkpoint {path.name} is damaged ({reason})",
            where=path,
            fix="Delete its folder and run the same command again: it is trained again",
        )
    return content
