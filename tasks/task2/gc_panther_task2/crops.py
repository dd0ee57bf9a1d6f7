"""The crops that task 2 learns from."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gc_panther.case import Volume
from gc_panther.errors import UserError
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.names import channel_file
from gc_panther.imaging.orientation import to_lps
from gc_panther.imaging.roi import Box, bounding_box, crop
from gc_panther.json_files import write_json
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.nnunet.training.jobs.worker import CallJob
from gc_panther.nnunet.training.students import SHARES
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.task import RunContext, Runtime
from gc_panther_task2.localizer import Localizer
from gc_panther_task2.plugin import LOCALIZER_MODEL
from gc_panther_task2.roi import MARGIN_MM, find_region

TUMOUR, PANCREAS = 1, 2

log = logging.getLogger(__name__)


class Crops(Protocol):
    """A way of cutting cases."""

    @property
    def description(self) -> str:
        """One line for the model card."""

    def make(
        self, space: Workspace, cases: Sequence[LabelledCase], raw: Path, labels: Sequence[int]
    ) -> list[LabelledCase]:
        """Cut cases; labels that are not asked for become background.

        Args:
            space: the work folder.
            cases: in PANTHER's layout.
            raw: nnU-Net's raw data set that receives the crops.
            labels: values that are kept.
        """


@dataclass(frozen=True)
class ReferenceCrops:
    """Cut to the true pancreas and tumour, with a margin that is drawn for each side.

    Attributes:
        margin_mm: least and largest margin.
        seed: of the margins.
    """

    margin_mm: tuple[float, float]
    seed: int

    @property
    def description(self) -> str:
        """One line for the model card."""
        return (
            "bounding box of the true pancreas and tumour, each side with a margin of "
            f"{self.margin_mm[0]:g} to {self.margin_mm[1]:g} mm"
        )

    def make(
        self, space: Workspace, cases: Sequence[LabelledCase], raw: Path, labels: Sequence[int]
    ) -> list[LabelledCase]:
        """Cut cases, as :class:`Crops` says.

        Raises:
            UserError: a label map is empty.
        """
        generator = np.random.default_rng(self.seed)
        return [crop_to_reference(case, raw, self.margin_mm, generator, labels) for case in cases]


@dataclass(frozen=True)
class LocalizerCrops:
    """Cut by the code inference runs: to what the localizer finds and 30 mm around it.

    Attributes:
        model: folder of the localizer.
    """

    model: Path

    @property
    def description(self) -> str:
        """One line for the model card."""
        return f"what the localizer finds, and {MARGIN_MM:g} mm around it, as at inference"

    def make(
        self, space: Workspace, cases: Sequence[LabelledCase], raw: Path, labels: Sequence[int]
    ) -> list[LabelledCase]:
        """Cut cases, as :class:`Crops` says; crops without any of the tumour are left out.

        Raises:
            ProcessingError: the localizer failed.
            UserError: no crop holds a tumour.
        """
        shares = min(len(cases), space.jobs * SHARES)
        space.run(
            [
                CallJob(
                    title=f"{raw.name} crops {share + 1} of {shares}",
                    function=f"{__name__}:crop_to_localizer",
                    arguments={
                        "cases": [
                            {"name": c.name, "image": str(c.image), "label": str(c.label)}
                            for c in cases[share::shares]
                        ],
                        "raw": str(raw),
                        "model": str(self.model),
                        "labels": list(labels),
                        "device": space.device,
                        "threads": space.threads,
                    },
                )
                for share in range(shares)
            ]
        )
        found = {
            case.name: json.loads(_facts(raw, case.name).read_text(encoding="utf-8"))
            for case in cases
        }
        lost = [name for name, facts in found.items() if facts["tumour_share"] == 0]
        log.info(
            "%s: %d crops, without pancreas (the whole image): %s, without tumour (left out): %s, "
            "least part of a tumour in the others: %.3f",
            raw.name,
            len(cases) - len(lost),
            ", ".join(name for name, facts in found.items() if not facts["found"]) or "none",
            ", ".join(lost) or "none",
            min((f["tumour_share"] for n, f in found.items() if n not in lost), default=0.0),
        )
        if len(lost) == len(cases):
            raise UserError(
                "no crop holds a tumour",
                where=self.model,
                fix="Check that the localizer is MRSegmentator's and the images are abdominal MRI",
            )
        return [_target(case, raw) for case in cases if case.name not in lost]


def crop_to_reference(
    case: LabelledCase,
    raw: Path,
    margin_mm: tuple[float, float],
    generator: np.random.Generator,
    labels: Sequence[int],
) -> LabelledCase:
    """Cut one case to its true pancreas and tumour, and margins; write it.

    Raises:
        UserError: the label map is empty.
    """
    image, label = to_lps(read_image(case.image)), to_lps(read_image(case.label))
    organ = bounding_box(np.isin(label.array_zyx, (TUMOUR, PANCREAS)))
    if organ is None:
        raise UserError("the label map is empty", where=case.label, fix="Remove the case")
    geometry = image.geometry
    margins = generator.uniform(*margin_mm, (2, 3)) / np.asarray(geometry.spacing_zyx)
    before, after = np.ceil(margins - 1e-6).astype(int).tolist()
    start_z, start_y, start_x = np.subtract(organ.start_zyx, before).tolist()
    stop_z, stop_y, stop_x = np.add(organ.stop_zyx, after).tolist()
    box = Box((start_z, start_y, start_x), (stop_z, stop_y, stop_x)).clip(geometry.shape_zyx)
    return _write(case, raw, crop(image, box), crop(label, box), labels)


def crop_to_localizer(
    *,
    cases: Sequence[dict[str, str]],
    raw: str,
    model: str,
    labels: Sequence[int],
    device: str,
    threads: int,
) -> None:
    """Cut cases to what the localizer finds; those that are cut already are left alone.

    Runs in a process of its own. Beside the crops it writes a file of facts per case, the last.

    Args:
        cases: ``name``, ``image`` and ``label`` of each.
        raw: nnU-Net's raw data set.
        model: folder of the localizer.
        labels: values that are kept.
        device: torch's name.
        threads: of this process.
    """
    import torch

    torch.set_num_threads(threads)
    folder = Path(raw)
    left = [case for case in cases if not _facts(folder, case["name"]).is_file()]
    if not left:
        return
    with tempfile.TemporaryDirectory() as scratch:
        runtime = Runtime(
            device, NnUNetOptions(), {LOCALIZER_MODEL.name: Path(model)}, Path(scratch)
        )
        localizer = Localizer(runtime)
        for number, entry in enumerate(left, start=1):
            case = LabelledCase(entry["name"], Path(entry["image"]), Path(entry["label"]))
            image, label = to_lps(read_image(case.image)), to_lps(read_image(case.label))
            region = find_region(image, localizer, RunContext())
            cut = crop(label, region.box)
            _write(case, folder, region.volume, cut, labels)
            facts = {"found": region.found, "tumour_share": _share(cut, label)}
            write_json(_facts(folder, case.name), facts)
            log.info("crop %d/%d, %s: %s", number, len(left), case.name, facts)


def _share(cut: Volume, whole: Volume) -> float:
    """Part of the tumour that is in the crop; 1 where there is none."""
    voxels = np.count_nonzero(whole.array_zyx == TUMOUR)
    return float(np.count_nonzero(cut.array_zyx == TUMOUR) / voxels) if voxels else 1.0


def _write(
    case: LabelledCase, raw: Path, image: Volume, label: Volume, labels: Sequence[int]
) -> LabelledCase:
    kept = np.where(np.isin(label.array_zyx, labels), label.array_zyx, 0).astype(np.uint8)
    target = _target(case, raw)
    for volume, path in ((image, target.image), (Volume(kept, label.geometry), target.label)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(volume, path)
    return target


def _target(case: LabelledCase, raw: Path) -> LabelledCase:
    """Where a case's crop is."""
    return replace(
        case,
        image=raw / "imagesTr" / channel_file(case.name),
        label=raw / "labelsTr" / f"{case.name}.mha",
    )


def _facts(raw: Path, name: str) -> Path:
    """What is known about a case's crop."""
    return raw / "crops" / f"{name}.json"


def is_demonstration(model: Path) -> bool:
    """Whether a localizer is the bundled stand-in for MRSegmentator."""
    version = model / "version.json"
    if not version.is_file():
        return False
    document: dict[str, Any] = json.loads(version.read_text(encoding="utf-8"))
    return "demonstration" in str(document.get("note", ""))
