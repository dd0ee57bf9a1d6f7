"""The cases of a folder in PANTHER's layout, by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gc_panther.errors import InputError
from gc_panther.imaging.names import channel_file, without_channel, without_ending
from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.panther.data.layout import UNLABELLED


def panther_cases(folder: Path, labels: str = "LabelsTr") -> list[LabelledCase]:
    """The labelled cases of a folder in PANTHER's layout, by name.

    Args:
        folder: holds ``ImagesTr/<name>_0000.mha`` and ``<labels>/<name>.mha``.
        labels: folder of the label maps; phantoms have ``OrgansTr``, too.

    Raises:
        InputError: there are none, or an image has no label map.
    """
    cases = []
    for image in sorted((folder / "ImagesTr").glob(channel_file("*"))):
        # Such as macOS' ._10000_0001_0000.mha; the check of the data leaves them out, too.
        if image.name.startswith("."):
            continue
        name = without_channel(without_ending(image.name))
        label = folder / labels / f"{name}.mha"
        if not label.is_file():
            raise InputError("an image has no label map", where=image, fix=f"Add {label}")
        cases.append(LabelledCase(name, image, label))
    if not cases:
        raise InputError(
            "there are no images",
            where=folder / "ImagesTr",
            fix="Give a folder in PANTHER's layout: ImagesTr/*_0000.mha and LabelsTr/*.mha",
        )
    return cases


def unlabelled_images(folder: Path, labelled: Iterable[str]) -> dict[str, Path]:
    """The images of a folder in PANTHER's layout that have no labels, by case name.

    Args:
        folder: holds ``ImagesTr_unlabeled/<name>_0000.mha``.
        labelled: names of the labelled cases.

    Raises:
        InputError: there are none, or one of them is labelled as well.
    """
    images = {
        without_channel(without_ending(path.name)): path
        for path in sorted((folder / UNLABELLED).glob("*.mha"))
        if not path.name.startswith(".")
    }
    if not images:
        raise InputError(
            "there are no unlabelled images for the students",
            where=folder / UNLABELLED,
            fix="Add them, or leave the students out with --labelled-only",
        )
    both = sorted(images.keys() & set(labelled))
    if both:
        raise InputError(
            f"labelled cases are among the unlabelled ones ({', '.join(both[:5])})",
            where=folder / UNLABELLED,
            fix="Remove them there",
        )
    return images


def patient_of(name: str) -> str:
    """The patient of a case: ``10000`` of ``10000_0001``, whose last part is the study."""
    return name.split("_")[0]
