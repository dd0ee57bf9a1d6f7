"""The platform's algorithm, on evalutils' ``SegmentationAlgorithm``.

evalutils gives the flow (load, validate, process the cases, save), the loader's interface and
hashes, the validators, and the form of ``results.json``. Three of its steps are older than
today's contract and are replaced: it searches the whole input folder and skips what it cannot
read; it writes the mask beside other outputs under the input's name; it leaves a mask behind when
something fails after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from evalutils import SegmentationAlgorithm
from evalutils.io import SimpleITKLoader
from evalutils.validators import NumberOfCasesValidator, UniqueImagesValidator
from pandas import DataFrame, Series

from gc_panther.case import Case, Result, Volume
from gc_panther.files import StagedFiles, check_distinct, check_target
from gc_panther.imaging.images import from_sitk, read_image, to_sitk
from gc_panther.platform.inputs import InputFiles, find_inputs
from gc_panther.platform.outputs import (
    MASK_ENDING,
    RESULTS_FILE,
    as_json,
    check_output_folder,
    encode_image,
)
from gc_panther.task import Task

SegmentCase = Callable[[Case], Result]


@dataclass(frozen=True)
class PlatformCase:
    """The files of a case in the platform's folders.

    Attributes:
        inputs: what lies in the input folder.
        input_path: the platform's ``/input``.
        mask_path: the mask's file.
        results_path: the file of ``results.json``.
    """

    inputs: InputFiles
    input_path: Path
    mask_path: Path
    results_path: Path


def find_case(
    task: Task, input_path: Path, output_path: Path, report_path: Path | None = None
) -> PlatformCase:
    """Find the case in the input folder, and where its results go.

    Args:
        task: whose interfaces are served.
        input_path: the platform's ``/input``.
        output_path: the platform's ``/output``.
        report_path: another file that is going to be written, if any.

    Raises:
        GCPantherError: the input breaks the contract, or a result could not be written.
    """
    inputs = find_inputs(input_path, task)
    mask_name = next(iter(inputs.images.values())).stem + MASK_ENDING
    case = PlatformCase(
        inputs,
        input_path,
        output_path / inputs.interface.outputs[0].relative_path / mask_name,
        output_path / RESULTS_FILE,
    )
    written = {"the mask": case.mask_path, "results.json": case.results_path}
    if report_path is not None:
        written["the report"] = report_path
    check_distinct({f"the image {slug}": path for slug, path in inputs.images.items()} | written)
    for path in written.values():
        check_target(path)
    check_output_folder(case.mask_path.parent, mask_name)
    return case


class VolumeLoader(SimpleITKLoader):
    """evalutils' loader with this package's checks; it keeps the image it read last.

    evalutils loads an image once to hash it and again to process it; a case is read once here.
    """

    def __init__(self) -> None:
        self._last: tuple[Path, sitk.Image] | None = None

    def load_image(self, fname: Path) -> sitk.Image:
        """Read and check an image.

        Raises:
            InputError: it is not a readable 3-D image of finite numbers.
        """
        if self._last is None or self._last[0] != fname:
            self._last = (fname, to_sitk(read_image(fname)))
        return self._last[1]


class GrandChallengeAlgorithm(SegmentationAlgorithm):
    """Reads one case from the input folder, has it segmented, and stages the platform's outputs.

    Args:
        case: where everything lies.
        segment: segments a case; it is called once.
        staged: gets the mask, then ``results.json``.
        scratch: a folder for temporary files.
    """

    def __init__(
        self, case: PlatformCase, segment: SegmentCase, *, staged: StagedFiles, scratch: Path
    ) -> None:
        self._case = case
        self._images = case.inputs.images
        self._segment = segment
        self._staged = staged
        self._scratch = scratch
        slugs = list(self._images)
        super().__init__(
            index_key=slugs[0],
            file_loaders={slug: VolumeLoader() for slug in slugs},
            file_filters=dict.fromkeys(slugs),
            validators={
                slug: (NumberOfCasesValidator(num_cases=1), UniqueImagesValidator())
                for slug in slugs
            },
            input_path=case.input_path,
            output_path=case.mask_path.parent,
            output_file=case.results_path,
        )

    def load(self) -> None:
        """Load exactly the files the contract names; one that cannot be read is an error."""
        for slug, path in self._images.items():
            self._cases[slug] = DataFrame(self._file_loaders[slug].load(fname=path))

    def process_case(self, *, idx: int, case: Series) -> dict[str, Any]:
        """Segment the case and stage its mask; return its entry of ``results.json``."""
        images = {
            slug: from_sitk(self._file_loaders[slug].load_image(path), where=path)
            for slug, path in self._images.items()
        }
        result = self._segment(Case(self._case.inputs.name, images, dict(self._images)))
        # With the geometry of the image to the last digit.
        mask = Volume(result.mask.array_zyx, images[self._index_key].geometry)
        self._staged.write(
            self._case.mask_path, encode_image(mask, self._case.mask_path, self._scratch)
        )
        return {
            "outputs": [{"type": "metaio_image", "filename": self._case.mask_path.name}],
            "inputs": [
                {"type": "metaio_image", "filename": source.name, "socket": slug}
                for slug, source in self._images.items()
            ],
            "error_messages": [],
            "notes": list(result.notes),
            "warnings": list(result.warnings),
            "empty_mask": result.details.get("empty_mask"),
        }

    def predict(self, *, input_image: sitk.Image) -> sitk.Image:
        """Segment one image that is already in memory, for callers of evalutils' interface."""
        case = Case("image", {self._index_key: from_sitk(input_image)})
        return to_sitk(self._segment(case).mask)

    def save(self) -> None:
        """Stage ``results.json``."""
        self._staged.write(self._case.results_path, as_json(self._case_results))
