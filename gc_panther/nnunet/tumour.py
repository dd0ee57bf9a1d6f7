"""From an ensemble's prediction to a binary tumour mask that is not empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gc_panther.case import Volume
from gc_panther.nnunet.ensemble import Ensemble
from gc_panther.nnunet.labels import most_probable_component, tumour_label
from gc_panther.task import CaseRun

NOTE_EMPTY_KEPT = "The networks found no tumour; the mask is empty, as was asked for"
NOTE_FALLBACK = (
    "The networks found no tumour; the most probable component was kept instead, because every "
    "case has one"
)


@dataclass(frozen=True)
class TumourMask:
    """The tumour in one volume.

    Attributes:
        mask_zyx: uint8, 1 in the tumour, on the grid of the volume.
        details: JSON-compatible facts: the engine's, and ``empty_mask``, which is ``"no"``,
            ``"kept empty"`` or ``"most probable component kept"``.
        notes: a sentence where the networks found no tumour.
    """

    mask_zyx: np.ndarray
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def segment_tumour(
    ensemble: Ensemble, volume_lps: Volume, run: CaseRun, *, keep_empty: bool = False
) -> TumourMask:
    """Segment a volume and take the tumour out of the networks' labels, by the label's name.

    One empty mask costs a PANTHER submission more than any other mistake, and every PANTHER case
    has a tumour. So where no voxel's winning label is tumour, the most probable tumour component
    is returned instead.

    Args:
        ensemble: the loaded networks.
        volume_lps: an image in LPS order.
        run: progress and stage clock.
        keep_empty: return an empty mask where the networks found no tumour.

    Raises:
        WeightsError: the model has no label that is a tumour.
    """
    label = tumour_label(ensemble.model)
    prediction = ensemble.predict(volume_lps, run, label=label)
    mask_zyx = (prediction.labels_zyx == label).astype(np.uint8)
    empty = "no"
    notes: tuple[str, ...] = (prediction.facts["dropped"],) if "dropped" in prediction.facts else ()
    if not mask_zyx.any():
        if keep_empty:
            empty, notes = "kept empty", (*notes, NOTE_EMPTY_KEPT)
        else:
            empty, notes = "most probable component kept", (*notes, NOTE_FALLBACK)
            component = most_probable_component(prediction.probability_zyx(label))
            mask_zyx = component.astype(np.uint8)
    return TumourMask(mask_zyx, {**prediction.facts, "empty_mask": empty}, notes)
