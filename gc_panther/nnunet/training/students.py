"""Noisy student: teachers label images that nobody has labelled, students learn from both.

Xie et al., "Self-training with Noisy Student improves ImageNet classification", CVPR 2020. The
noise is nnU-Net's augmentation, which the teachers' labels have not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.nnunet.training.jobs.worker import Images, PredictJob
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.text import count

#: Jobs per job that may run at the same time: a lost one costs little, and none waits long.
SHARES = 4


@dataclass(frozen=True)
class PseudoLabels:
    """What the teachers made of the unlabelled images.

    Attributes:
        cases: those to learn from.
        dropped: names of the images in which the teachers saw nothing but background.
    """

    cases: tuple[LabelledCase, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        """One line for logs and model cards."""
        return (
            f"{count(len(self.cases), 'pseudo-labelled case')}, "
            f"{len(self.dropped)} dropped as pure background"
        )


def label_images(
    space: Workspace,
    name: str,
    *,
    model: Path,
    folds: Sequence[int],
    images: Mapping[str, Path],
    out: Path,
) -> float:
    """Let the teachers write a label map per image; return the seconds it took.

    Args:
        space: the work folder; images that have a label map are not labelled again.
        name: of the stage.
        model: folder of the teachers.
        folds: the teachers, whose probabilities are averaged.
        images: by case name.
        out: folder of the label maps, ``<name>.mha``.
    """
    wanted = [Images(image=path, label=out / f"{case}.mha") for case, path in images.items()]
    shares = min(len(wanted), space.jobs * SHARES)
    jobs = [
        PredictJob(
            title=f"{name} {share + 1} of {shares}",
            model=model,
            folds=tuple(folds),
            images=tuple(wanted[share::shares]),
            device=space.device,
            threads=space.threads,
        )
        for share in range(shares)
    ]
    return space.stage(name, lambda: space.run(jobs))


def pseudo_labels(images: Mapping[str, Path], folder: Path) -> PseudoLabels:
    """Sort out the label maps that hold nothing but background.

    Args:
        images: by case name.
        folder: the label maps, ``<name>.mha``.

    Raises:
        InputError: a label map is missing.
    """
    from gc_panther.imaging.images import read_image

    cases, dropped = [], []
    for name, image in images.items():
        label = folder / f"{name}.mha"
        if np.any(read_image(label).array_zyx):
            cases.append(LabelledCase(name, image, label))
        else:
            dropped.append(name)
    return PseudoLabels(tuple(cases), tuple(dropped))
