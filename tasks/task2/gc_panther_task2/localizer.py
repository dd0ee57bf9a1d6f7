"""Finds the pancreas with MRSegmentator's weights, reader and label table.

MRSegmentator (Häntze et al., https://github.com/hhaentze/MRSegmentator) is an nnU-Net that labels
40 organs. Its networks run in the core's engine, in this process: same preprocessing, windows,
mirroring and averaging of logits as ``mrsegmentator.inference.infer``, without its worker
processes. Nothing is ever downloaded.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gc_panther.case import Volume
from gc_panther.errors import WeightsError
from gc_panther.imaging.images import write_image
from gc_panther.imaging.resampling import resample
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.task import RunContext, Runtime
from gc_panther_task2.plugin import LOCALIZER_MODEL

#: Spacing (x, y, z) of the image that is searched, mm: the published approach to task 2.
SPACING_XYZ = (3.0, 3.0, 6.0)

#: MRSegmentator's name and number for the pancreas.
PANCREAS_NAME, PANCREAS_LABEL = "pancreas", 7


@dataclass(frozen=True)
class Pancreas:
    """Where the localizer saw the pancreas.

    Attributes:
        mask: truth values on the searched grid (LPS order, :data:`SPACING_XYZ`).
        facts: JSON-compatible facts about how it was found.
    """

    mask: Volume
    facts: dict[str, Any]


class Localizer:
    """MRSegmentator's networks, loaded.

    Args:
        runtime: device, options, scratch folder, and the verified ``mrsegmentator`` folder.

    Raises:
        WeightsError: the folder is incomplete or unsafe, or its label table is not
            MRSegmentator's.
    """

    def __init__(self, runtime: Runtime) -> None:
        folder = _weights_folder(runtime.models[LOCALIZER_MODEL.name])
        model = open_model_folder(folder, None)
        label = model.labels.get(PANCREAS_NAME)
        if label != PANCREAS_LABEL:
            raise WeightsError(
                f"label {PANCREAS_LABEL} is not {PANCREAS_NAME!r} in the model's dataset.json",
                where=folder,
                fix=LOCALIZER_MODEL.source,
            )
        # infer() uses every fold and adds up logits; the user's folds and combination are for the
        # tumour's networks.
        options = runtime.options.model_copy(update={"folds": None, "combine": "logits"})
        self._ensemble = Ensemble(model, device=runtime.device, options=options)
        self._scratch = runtime.scratch

    def find(self, volume_lps: Volume, run: RunContext) -> Pancreas:
        """Label the pancreas.

        Args:
            volume_lps: an image in LPS order, of any spacing.
            run: progress and stage clock.
        """
        with run.clock.stage("input"):
            searched = _as_mrsegmentator_reads(resample(volume_lps, SPACING_XYZ), self._scratch)
        prediction = self._ensemble.predict(searched, run)
        mask_zyx = prediction.labels_zyx == PANCREAS_LABEL
        facts = {**prediction.facts, "pancreas_voxels": int(np.count_nonzero(mask_zyx))}
        return Pancreas(Volume(mask_zyx, searched.geometry), facts)


def _weights_folder(folder: Path) -> Path:
    """Let MRSegmentator's own configuration resolve the folder, sure that it will not download.

    Raises:
        WeightsError: the folder does not directly hold ``plans.json``, in which case
            MRSegmentator would fetch weights from the network.
    """
    if not (folder / "plans.json").is_file():
        raise WeightsError(
            "plans.json is missing from MRSegmentator's weights",
            where=folder,
            fix=LOCALIZER_MODEL.source,
        )
    from mrsegmentator import config

    # Its name for a folder that holds one model is "legacy mode", which sounds like a fault.
    logging.getLogger(config.__name__).setLevel(logging.WARNING)
    with _mrsegmentator_environment(folder):
        return Path(config.setup_mrseg())


@contextmanager
def _mrsegmentator_environment(folder: Path) -> Iterator[None]:
    """Point MRSegmentator at a folder, and put the environment back afterwards.

    The only place other than the settings that touches the environment: MRSegmentator takes its
    folder from nowhere else, and sets nnU-Net's variables to a dummy while it is at it.
    """
    names = ("MRSEG_WEIGHTS_PATH", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    before = {name: os.environ.get(name) for name in names}
    os.environ["MRSEG_WEIGHTS_PATH"] = str(folder)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _as_mrsegmentator_reads(volume_lps: Volume, scratch: Path) -> Volume:
    """The volume as MRSegmentator's reader hands it to the network; it reads files only."""
    from mrsegmentator.simpleitk_reader_writer import SimpleITKIO

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "image.mha"
        write_image(volume_lps, path, compress=False)
        channels_zyx, properties = SimpleITKIO().read_image(str(path))
    z, y, x = properties["spacing"]
    return Volume(channels_zyx[0], replace(volume_lps.geometry, spacing_xyz=(x, y, z)))
