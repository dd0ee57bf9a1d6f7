"""The platform's algorithm, on evalutils' ``SegmentationAlgorithm``.

evalutils gives the flow (load, validate, process the cases, save), the loader's interface and
hashes, the validators, and the form of ``results.json``. Three of its steps are older than
today's contract and are replaced: it searches the whole input folder and skips what it cannot
read; it writes the mask beside other outputs under the input's name; it leaves a mask behind when
something fails after it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from evalutils import SegmentationAlgorithm
from evalutils.io import SimpleITKLoader
from evalutils.validators import NumberOfCasesValidator, UniqueImagesValidator
from pandas import DataFrame, Series

from gc_panther.case import Case, Segmentation
from gc_panther.contract.inputs import find_inputs
from gc_panther.contract.outputs import (
    MASK_ENDING,
    RESULTS_FILE,
    check_output_folder,
    encode_mask,
    publish_case,
)
from gc_panther.imaging.images import from_sitk, read_image, to_sitk
from gc_panther.task import Task

SegmentCase = Callable[[Case], Segmentation]


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
    """Reads one case from the input folder, has it segmented, and writes the output folder.

    Args:
        task: whose interfaces are served.
        segment: segments a case; it is called once.
        input_path: the platform's ``/input``.
        output_path: the platform's ``/output``.
    """

    def __init__(
        self, task: Task, segment: SegmentCase, *, input_path: Path, output_path: Path
    ) -> None:
        self._task = task
        self._segment = segment
        self._mask = b""
        self._files = find_inputs(input_path, task)
        self._mask_name = next(iter(self._files.images.values())).stem + MASK_ENDING
        self._mask_folder = output_path / self._files.interface.outputs[0].relative_path
        check_output_folder(self._mask_folder, self._mask_name)
        slugs = list(self._files.images)
        super().__init__(
            index_key=slugs[0],
            file_loaders={slug: VolumeLoader() for slug in slugs},
            file_filters=dict.fromkeys(slugs),
            validators={
                slug: (NumberOfCasesValidator(num_cases=1), UniqueImagesValidator())
                for slug in slugs
            },
            input_path=input_path,
            output_path=self._mask_folder,
            output_file=output_path / RESULTS_FILE,
        )

    def process(self) -> None:
        """Do all of it; on any failure neither a mask nor results stay behind.

        Raises:
            GCPantherError: with what was wrong.
        """
        # A result of an earlier run must not be taken for this one's.
        self._discard()
        try:
            super().process()
        except BaseException:
            self._discard()
            raise

    def load(self) -> None:
        """Load exactly the files the contract names; one that cannot be read is an error."""
        for slug, path in self._files.images.items():
            self._cases[slug] = DataFrame(self._file_loaders[slug].load(fname=path))

    def process_case(self, *, idx: int, case: Series) -> dict[str, Any]:
        """Segment the case and keep its mask; return its entry of ``results.json``."""
        images = {
            slug: from_sitk(self._file_loaders[slug].load_image(path), where=path)
            for slug, path in self._files.images.items()
        }
        segmentation = self._segment(Case(self._files.name, images, dict(self._files.images)))
        geometry = images[self._index_key].geometry
        self._mask = encode_mask(segmentation, geometry)
        return {
            "outputs": [{"type": "metaio_image", "filename": self._mask_name}],
            "inputs": [
                {"type": "metaio_image", "filename": source.name, "socket": slug}
                for slug, source in self._files.images.items()
            ],
            "error_messages": [],
            "notes": list(segmentation.notes),
            "warnings": list(segmentation.warnings),
            "empty_mask": segmentation.details.get("empty_mask"),
        }

    def predict(self, *, input_image: sitk.Image) -> sitk.Image:
        """Segment one image that is already in memory, for callers of evalutils' interface."""
        case = Case("image", {self._index_key: from_sitk(input_image)})
        return to_sitk(self._segment(case).mask)

    def save(self) -> None:
        """Write ``results.json`` and the mask."""
        mask_path = self._mask_folder / self._mask_name
        publish_case(self._mask, mask_path, self._case_results, Path(self._output_file))

    def _discard(self) -> None:
        (self._mask_folder / self._mask_name).unlink(missing_ok=True)
        Path(self._output_file).unlink(missing_ok=True)
