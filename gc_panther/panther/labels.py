"""What the labels of a model mean, and what to do where the tumour's never wins."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gc_panther.errors import WeightsError
from gc_panther.nnunet.model.folder import ModelFolder

#: Parts of label names that mean the tumour.
_TUMOUR_NAMES = ("tumour", "tumor", "lesion", "cancer", "carcinoma", "pdac")

#: Fractions of the highest probability down to which voxels are candidates, in the order tried.
#: Half of the maximum is where the edge of a blurred object lies.
CANDIDATE_FRACTIONS = (0.5, 0.75, 0.9, 0.99)

#: Part of the image that a tumour may fill. PANTHER's fill 0.1 % of an image, and 4.5 cm of tumour
#: in the crop around a pancreas stay below a tenth.
MAX_SHARE = 0.1


def tumour_label(model: ModelFolder) -> int:
    """The value of the tumour among the model's labels.

    It is found by name; the only foreground label of a binary model is the tumour whatever its
    name.

    Raises:
        WeightsError: no label, or more than one, can be the tumour.
    """
    foreground = {name: value for name, value in model.labels.items() if value != 0}
    named = [v for name, v in foreground.items() if any(t in name.lower() for t in _TUMOUR_NAMES)]
    candidates = named or list(foreground.values())
    if len(candidates) != 1:
        raise WeightsError(
            f"{'several' if named else 'none'} of the model's labels "
            f"({', '.join(foreground)}) can be the tumour",
            where=model.path,
            fix="Name one label 'tumour' in dataset.json",
        )
    return candidates[0]


def same_labels(model: ModelFolder, labels: Mapping[str, int]) -> bool:
    """Whether a model's segmentation heads are those of a training's labels.

    Args:
        model: to start from.
        labels: values by name, of which ``tumour`` is one.
    """
    try:
        return len(model.labels) == len(labels) and tumour_label(model) == labels["tumour"]
    # None of its labels is a tumour.
    except WeightsError:
        return False


def most_probable_component(probability_zyx: np.ndarray) -> np.ndarray:
    """The connected component that holds most of the probability.

    Candidates are the voxels with at least half of the highest probability. Of their 26-connected
    components the one with the largest sum of probabilities, which is its expected volume, is
    kept: a region the networks hesitate over rather than one noisy voxel. Where that is more than
    :data:`MAX_SHARE` of the image, as for nearly constant probabilities, higher thresholds are
    tried; if nothing helps, the first of the most probable voxels is returned.

    Args:
        probability_zyx: probability of the wanted label, shape (z, y, x).

    Returns:
        Truth values, shape (z, y, x), at least one of them true. Equal input gives equal output.
    """
    from scipy import ndimage

    highest = float(probability_zyx.max())
    for fraction in CANDIDATE_FRACTIONS:
        candidates = probability_zyx >= highest * fraction
        components, count = ndimage.label(candidates, structure=np.ones((3, 3, 3)))
        expected = ndimage.sum_labels(probability_zyx, components, np.arange(1, count + 1))
        kept = np.asarray(components == 1 + int(np.argmax(expected)))
        if np.count_nonzero(kept) <= MAX_SHARE * kept.size:
            return kept
    kept = np.zeros(probability_zyx.shape, bool)
    kept.flat[int(np.argmax(probability_zyx))] = True
    return kept
