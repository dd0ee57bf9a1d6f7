"""The parts of an image file's name: case, nnU-Net's channel, ending."""

from __future__ import annotations

from pathlib import Path

#: nnU-Net's mark of a case's first channel, before the ending.
CHANNEL = "_0000"


def image_ending(path: Path) -> str:
    """The ending that names a file's format, in lower case; ``.nii.gz`` is one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def without_ending(name: str) -> str:
    """A file's name without its ending, ``.nii.gz`` included; all of it where nothing would remain.

    Args:
        name: without folders.
    """
    plain = name[:-3] if name.lower().endswith(".gz") else name
    return plain.rpartition(".")[0] or plain or name


def without_channel(name: str) -> str:
    """A name, its ending removed, without :data:`CHANNEL`; all of it where nothing would remain."""
    return name.removesuffix(CHANNEL) or name


def channel_file(case: str, ending: str = ".mha") -> str:
    """What nnU-Net calls the image of a case: ``<case>_0000.mha``."""
    return f"{case}{CHANNEL}{ending}"
