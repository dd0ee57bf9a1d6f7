"""Task 2: find the pancreas, cut the original image to its surroundings, segment those."""

from __future__ import annotations

from gc_panther.case import Case, Result, Volume
from gc_panther.imaging.orientation import box_from_lps, from_lps, to_lps
from gc_panther.imaging.roi import paste
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.panther.tumour import segment_tumour
from gc_panther.task import RunContext, Runtime
from gc_panther_task2.localizer import Localizer
from gc_panther_task2.plugin import IMAGE, MASK, MODEL
from gc_panther_task2.roi import find_region

#: Part of a time limit that the localizer may use.
LOCALIZER_SHARE = 0.4
NO_PANCREAS = "No pancreas was found; the whole image was segmented"


class Task2Segmenter:
    """The loaded localizer and ensemble of task 2.

    Args:
        runtime: device, options and verified model folders.

    Raises:
        WeightsError: a model folder is incomplete or unsafe.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._options = runtime.options
        self._localizer = Localizer(runtime)
        folds = runtime.options.folds or MODEL.folds
        model = open_model_folder(runtime.models[MODEL.name], folds)
        self._ensemble = Ensemble(model, device=runtime.device, options=runtime.options)

    def predict(self, case: Case, run: RunContext) -> Result:
        """Segment the tumour of one T2-weighted image.

        ``details["roi"]`` holds the region in the indices of the image as it was given.
        """
        image = case[IMAGE]
        volume_lps = to_lps(image)
        region = find_region(
            volume_lps, self._localizer, run.within("localizer", share=LOCALIZER_SHARE)
        )
        tumour = segment_tumour(
            self._ensemble, region.volume, run, keep_empty=not self._options.never_empty
        )
        mask_lps = paste(tumour.mask_zyx, region.box, volume_lps.geometry.shape_zyx)
        mask = Volume(from_lps(mask_lps, like=image.geometry), image.geometry)
        roi = box_from_lps(region.box, image.geometry)
        details = {
            **tumour.details,
            "roi": {"start_xyz": list(roi.start_xyz), "stop_xyz": list(roi.stop_xyz)},
            "localizer": {**region.facts, "found": region.found},
        }
        notes = tumour.notes
        if "dropped" in region.facts:
            notes = (region.facts["dropped"], *notes)
        warnings = tumour.warnings if region.found else (NO_PANCREAS, *tumour.warnings)
        return Result({MASK: mask}, details, notes, warnings)
