"""PANTHER's five tumour metrics for one case, with DeepMind's ``surface-distance``.

The definitions follow the challenge's local evaluation script (``Evaluation/evaluate_local.py``
of github.com/DIAGNijmegen/PANTHER_baseline, commit e84a06d). ``docs/evaluation.md`` explains the
points where the default departs from it and what ``challenge_compatible`` brings back.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from gc_panther.case import GEOMETRY_TOLERANCE, XYZ, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.values import MOST_VALUES, distinct_values

logger = logging.getLogger(__name__)

#: Tolerance of the surface Dice, mm.
SURFACE_TOLERANCE_MM = 5.0
#: Percentile of the robust Hausdorff distance.
HAUSDORFF_PERCENT = 95.0
#: The tumour's value in PANTHER's references (0 background, 1 tumour, 2 pancreas).
TUMOUR = 1
REFERENCE_VALUES = (0, 1, 2)


@dataclass(frozen=True)
class CaseScore:
    """The metrics of one case.

    Attributes:
        case: the case's name.
        dice: volumetric Dice, 0 to 1.
        surface_dice: surface Dice at 5 mm, 0 to 1.
        hd95_mm: 95th percentile Hausdorff distance, mm.
        masd_mm: mean of both directions' average surface distance, mm.
        volume_error_mm3: predicted minus reference tumour volume, mm³.
        predicted_mm3: predicted tumour volume, mm³.
        reference_mm3: reference tumour volume, mm³.
        empty: the prediction holds no tumour.
    """

    case: str
    dice: float
    surface_dice: float
    hd95_mm: float
    masd_mm: float
    volume_error_mm3: float
    predicted_mm3: float
    reference_mm3: float
    empty: bool


def score_volumes(
    prediction: Volume,
    reference: Volume,
    *,
    case: str = "",
    prediction_name: str = "prediction",
    reference_name: str = "reference",
    tumour_label: int | None = None,
    challenge_compatible: bool = False,
) -> CaseScore:
    """Check one pair of label volumes as PANTHER's evaluator does, and score it.

    Args:
        prediction: binary tumour mask {0, 1}.
        reference: PANTHER labels: 0 background, 1 tumour, 2 pancreas, or a binary tumour mask.
        case: the case's name in the score.
        prediction_name: what the prediction is called in errors, such as its file.
        reference_name: what the reference is called in errors.
        tumour_label: the tumour's value in a prediction of several classes; None expects {0, 1}.
        challenge_compatible: reproduce the organisers' script, its swapped axes included.

    Raises:
        InputError: the grids differ in shape, or in spacing by more than 1e-4 mm, or a volume
            holds labels it must not hold.
    """
    mine, theirs = prediction.geometry, reference.geometry
    pair = f"{prediction_name} against {reference_name}"
    if mine.size_xyz != theirs.size_xyz:
        raise InputError(
            f"the masks differ in size: {_times(mine.size_xyz)} and {_times(theirs.size_xyz)} "
            "voxels (x, y, z)",
            where=pair,
            fix="Predict on the image the reference was drawn on",
        )
    if not np.allclose(mine.spacing_xyz, theirs.spacing_xyz, rtol=0.0, atol=GEOMETRY_TOLERANCE):
        raise InputError(
            f"the masks differ in voxel spacing: {_times(mine.spacing_xyz)} and "
            f"{_times(theirs.spacing_xyz)} mm (x, y, z)",
            where=pair,
            fix=f"They have to agree to {GEOMETRY_TOLERANCE:g} mm",
        )
    if not mine.matches(theirs):
        logger.warning("origin or direction differ, compared voxel by voxel: %s", pair)
    return score_masks(
        _predicted_tumour(prediction, prediction_name, tumour_label, challenge_compatible),
        _reference_tumour(reference, reference_name),
        theirs.spacing_zyx,
        case=case,
        challenge_compatible=challenge_compatible,
    )


def score_masks(
    prediction_zyx: np.ndarray,
    reference_zyx: np.ndarray,
    spacing_zyx: XYZ,
    *,
    case: str = "",
    challenge_compatible: bool = False,
) -> CaseScore:
    """Score one pair of boolean tumour masks of equal shape (z, y, x).

    A prediction that is empty, or that covers the whole image, is a complete miss: both Dice are
    0 and both distances are the diagonal of the image. So is any prediction where the reference
    is empty; two empty masks agree (Dice 1, distances 0). Neither happens in PANTHER's data,
    where every case has a tumour.

    Args:
        prediction_zyx: predicted tumour, bool.
        reference_zyx: reference tumour, bool.
        spacing_zyx: voxel spacing in array order, mm.
        case: the case's name in the score.
        challenge_compatible: hand the spacing over as (x, y, z) for the (z, y, x) arrays, as the
            organisers' script does, for the distances and for the diagonal. Further, a uniform
            prediction counts as volume 0 and a complete miss whatever the reference holds, and
            an empty reference yields an infinite HD95 and an undefined MASD.
    """
    import surface_distance

    distance_spacing = spacing_zyx[::-1] if challenge_compatible else spacing_zyx
    voxel_mm3 = math.prod(spacing_zyx)
    predicted, expected = int(prediction_zyx.sum()), int(reference_zyx.sum())
    uniform = predicted in (0, prediction_zyx.size)
    diagonal = math.hypot(
        *(n * mm for n, mm in zip(reference_zyx.shape, distance_spacing, strict=True))
    )

    # surface-distance 0.1 uses np.Inf and np.NaN, which NumPy 2 no longer has, as soon as a mask
    # is empty; only pairs with two surfaces reach it.
    dice, surface_dice, hd95, masd = 0.0, 0.0, diagonal, diagonal
    if not expected and not predicted and not challenge_compatible:
        dice, surface_dice, hd95, masd = 1.0, 1.0, 0.0, 0.0
    elif not expected and not uniform and challenge_compatible:
        hd95, masd = math.inf, math.nan
    elif expected and not uniform:
        # The library works on the joint bounding box of the masks, so no cropping is needed here.
        distances = surface_distance.compute_surface_distances(
            reference_zyx, prediction_zyx, distance_spacing
        )
        overlap = int((prediction_zyx & reference_zyx).sum())
        dice = 2.0 * overlap / (predicted + expected)
        surface_dice = surface_distance.compute_surface_dice_at_tolerance(
            distances, SURFACE_TOLERANCE_MM
        )
        hd95 = surface_distance.compute_robust_hausdorff(distances, HAUSDORFF_PERCENT)
        masd = sum(surface_distance.compute_average_surface_distance(distances)) / 2.0

    predicted_mm3 = 0.0 if uniform and challenge_compatible else predicted * voxel_mm3
    reference_mm3 = expected * voxel_mm3
    return CaseScore(
        case=case,
        dice=dice,
        surface_dice=float(surface_dice),
        hd95_mm=float(hd95),
        masd_mm=float(masd),
        volume_error_mm3=predicted_mm3 - reference_mm3,
        predicted_mm3=predicted_mm3,
        reference_mm3=reference_mm3,
        empty=predicted == 0,
    )


def _predicted_tumour(
    volume: Volume, name: str, label: int | None, challenge_compatible: bool
) -> np.ndarray:
    if label is not None:
        return volume.array_zyx == label
    values, is_all = distinct_values(volume.array_zyx)
    one_class = len(values) == 2 and min(values) == 0
    if not values <= {0, 1} and not (challenge_compatible and one_class):
        raise InputError(
            f"a predicted mask must be binary, 0 and 1, but holds {_listed(values, is_all)}",
            where=name,
            fix="The challenge refuses such a mask; keep the tumour only, "
            "or name the tumour's value with --tumour-label",
        )
    return volume.array_zyx != 0


def _reference_tumour(volume: Volume, name: str) -> np.ndarray:
    values, is_all = distinct_values(volume.array_zyx)
    if not values <= set(REFERENCE_VALUES):
        raise InputError(
            "a reference holds 0 (background), 1 (tumour) and 2 (pancreas), not "
            + _listed(values, is_all),
            where=name,
            fix="Convert it to PANTHER's labels",
        )
    return volume.array_zyx == TUMOUR


def _listed(values: set[float], is_all: bool) -> str:
    shown = ", ".join(f"{value:g}" for value in sorted(values)[:6])
    count = f"{len(values)}" if is_all else f"more than {MOST_VALUES}"
    return f"{shown}, … ({count} values)" if len(values) > 6 else shown


def _times(numbers: tuple[float, ...]) -> str:
    return "×".join(f"{number:.6g}" for number in numbers)
