"""From an ensemble's prediction to a binary tumour mask, which may have to be non-empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.panther.labels import most_probable_component, tumour_label
from gc_panther.task import RunContext
from gc_panther.text import count

EMPTY_KEPT = "The networks found no tumour: the mask is empty"


@dataclass(frozen=True)
class TumourMask:
    """The tumour in one volume.

    Attributes:
        mask_zyx: uint8, 1 in the tumour, on the grid of the volume.
        details: JSON-compatible facts: the engine's, and ``empty_mask``, which is ``"no"``,
            ``"kept empty"`` or ``"most probable component kept"``. In the last case all of the
            mask is invented.
        notes: what was left out to keep a time limit.
        warnings: a sentence where the networks found no tumour.
    """

    mask_zyx: np.ndarray
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def segment_tumour(
    ensemble: Ensemble, volume_lps: Volume, run: RunContext, *, keep_empty: bool = False
) -> TumourMask:
    """Segment a volume and take the tumour out of the networks' labels, by the label's name.

    One empty mask costs a PANTHER submission more than any other mistake, and every PANTHER case
    has a tumour. So where no voxel's winning label is tumour, the most probable tumour component
    is returned instead, unless an empty mask is to be kept. A warning says which it was.

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
    notes = (prediction.facts["dropped"],) if "dropped" in prediction.facts else ()
    empty = "no"
    warnings: tuple[str, ...] = ()
    if not mask_zyx.any():
        if keep_empty:
            empty, warnings = "kept empty", (EMPTY_KEPT,)
        else:
            component = most_probable_component(prediction.probability_zyx(label))
            mask_zyx = component.astype(np.uint8)
            empty = "most probable component kept"
            warnings = (_invented(int(component.sum()), volume_lps.geometry),)
    return TumourMask(mask_zyx, {**prediction.facts, "empty_mask": empty}, notes, warnings)


def _invented(voxels: int, geometry: Geometry) -> str:
    size_ml = voxels * geometry.voxel_volume_mm3 / 1000.0
    # One voxel is some thousandths of a millilitre.
    millilitres = f"{size_ml:.2g}" if size_ml < 10 else f"{size_ml:.0f}"
    return (
        f"The networks found no tumour: the mask ({count(voxels, 'voxel')}, "
        f"{millilitres} mL) is not a finding but the most probable place, because an empty mask "
        "was not allowed (--never-empty)"
    )
