"""Task 1: the whole image goes through the ensemble."""

from __future__ import annotations

from gc_panther.case import Case, Result, Volume
from gc_panther.imaging.orientation import from_lps, to_lps
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.panther.tumour import segment_tumour
from gc_panther.task import RunContext, Runtime
from gc_panther_task1.plugin import IMAGE, MASK, MODEL


class Task1Segmenter:
    """The loaded ensemble of task 1.

    Args:
        runtime: device, options and verified model folders.

    Raises:
        WeightsError: the model folder is incomplete or unsafe.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._options = runtime.options
        folds = runtime.options.folds or MODEL.folds
        model = open_model_folder(runtime.models[MODEL.name], folds)
        self._ensemble = Ensemble(model, device=runtime.device, options=runtime.options)

    def predict(self, case: Case, run: RunContext) -> Result:
        """Segment the tumour of one T1-weighted image."""
        image = case[IMAGE]
        tumour = segment_tumour(
            self._ensemble, to_lps(image), run, keep_empty=not self._options.never_empty
        )
        mask = Volume(from_lps(tumour.mask_zyx, like=image.geometry), image.geometry)
        return Result({MASK: mask}, tumour.details, tumour.notes, tumour.warnings)
