import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.panther.evaluation.metrics import score_masks, score_volumes

SPACING_ZYX = (3.0, 1.2, 1.0)


def box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def volume(array_zyx, spacing_xyz=(1.0, 1.2, 3.0), dtype=np.uint8):
    array = np.asarray(array_zyx).astype(dtype)
    return Volume(array, Geometry(array.shape[::-1], spacing_xyz))


# A voxel's surface has its eight corners, all of the same area. Of two voxels k steps apart along
# one axis, four corners lie k steps, four k - 1 steps from the other voxel's surface.
@pytest.mark.parametrize(("axis", "steps"), [(0, 1), (0, 2), (0, 4), (1, 3), (2, 7)])
def test_two_single_voxels_by_hand(axis, steps):
    shape = [12, 12, 12]
    reference, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    at = [2, 2, 2]
    reference[tuple(at)] = True
    at[axis] += steps
    prediction[tuple(at)] = True
    mm = SPACING_ZYX[axis]

    score = score_masks(prediction, reference, SPACING_ZYX)

    within = [(steps - 1) * mm <= 5.0, steps * mm <= 5.0]
    assert score.dice == 0.0
    assert score.hd95_mm == pytest.approx(steps * mm)
    assert score.masd_mm == pytest.approx((steps - 0.5) * mm)
    assert score.surface_dice == pytest.approx(sum(within) / 2)
    assert score.volume_error_mm3 == 0.0


@pytest.mark.parametrize(("axis", "steps"), [(0, 1), (0, 2), (1, 2), (2, 4)])
def test_two_shifted_cubes_by_hand(axis, steps):
    size = 10
    start = [4, 4, 4]
    reference = box((24, 24, 24), start, [a + size for a in start])
    start[axis] += steps
    prediction = box((24, 24, 24), start, [a + size for a in start])

    score = score_masks(prediction, reference, SPACING_ZYX)

    # One of six faces, more than 5 % of the surface, lies the whole shift away; nothing is farther.
    assert score.dice == pytest.approx((size - steps) / size)
    assert score.hd95_mm == pytest.approx(steps * SPACING_ZYX[axis])
    assert 0.0 < score.masd_mm < steps * SPACING_ZYX[axis]
    assert (score.surface_dice == 1.0) == (steps * SPACING_ZYX[axis] <= 5.0)


@pytest.mark.parametrize(
    ("mm", "surface_dice"), [(4.95, 1.0), (5.0, 1.0), (5.05, 0.5)], ids=["below", "at", "above"]
)
def test_the_surface_dice_tolerates_five_millimetres(mm, surface_dice):
    # Of two neighbouring voxels, half of either surface is one voxel away from the other's.
    reference, prediction = (
        box((3, 3, 4), (1, 1, 1), (2, 2, 2)),
        box((3, 3, 4), (1, 1, 2), (2, 2, 3)),
    )
    score = score_masks(prediction, reference, (20.0, 20.0, mm))
    assert score.hd95_mm == pytest.approx(mm)
    assert score.surface_dice == surface_dice


@pytest.mark.parametrize(("further", "hd95_mm"), [(5, 0.0), (6, 30.0)])
def test_the_hausdorff_distance_ignores_the_farthest_five_percent(further, hd95_mm):
    # A hundred voxels that both masks hold, none touching another, and a few in the prediction
    # alone: 5 of 105 surfaces are less than 5 %, 6 of 106 are more. Half of a further voxel's
    # surface is 30 mm away, the other half 31 mm.
    reference = np.zeros((3, 64, 60), bool)
    reference[1, 1:21:2, 1:21:2] = True
    prediction = reference.copy()
    prediction[1, 50, 1 : 1 + 2 * further : 2] = True
    score = score_masks(prediction, reference, (1.0, 1.0, 1.0))
    assert score.hd95_mm == pytest.approx(hd95_mm)
    assert score_masks(reference, prediction, (1.0, 1.0, 1.0)).hd95_mm == score.hd95_mm


def test_volume_is_counted_in_cubic_millimetres():
    reference = box((10, 10, 10), (2, 2, 2), (6, 6, 6))
    prediction = box((10, 10, 10), (2, 2, 2), (6, 6, 7))

    score = score_masks(prediction, reference, SPACING_ZYX)

    assert score.reference_mm3 == pytest.approx(64 * 3.6)
    assert score.predicted_mm3 == pytest.approx(80 * 3.6)
    assert score.volume_error_mm3 == pytest.approx(16 * 3.6)


def test_challenge_compatible_swaps_the_outer_axes():
    reference = box((12, 12, 12), (2, 2, 2), (3, 3, 3))
    prediction = box((12, 12, 12), (6, 2, 2), (7, 3, 3))  # four voxels of 3 mm along z

    correct = score_masks(prediction, reference, SPACING_ZYX)
    compatible = score_masks(prediction, reference, SPACING_ZYX, challenge_compatible=True)

    assert correct.hd95_mm == pytest.approx(12.0)
    assert compatible.hd95_mm == pytest.approx(4.0)  # taken for 1 mm each
    assert compatible.surface_dice == 1.0
    assert compatible.dice == correct.dice


def random_masks(draw):
    shape = draw(st.tuples(*[st.integers(3, 7)] * 3))
    size = math.prod(shape)
    bits = st.lists(st.booleans(), min_size=size, max_size=size)
    return tuple(np.array(draw(bits), bool).reshape(shape) for _ in range(2))


pairs = st.composite(random_masks)()
spacings = st.tuples(*[st.floats(0.5, 6.0)] * 3)


@settings(max_examples=60)
@given(pairs, spacings, st.booleans())
def test_bounds_and_symmetry(pair, spacing, compatible):
    a, b = pair
    if any(mask.all() or not mask.any() for mask in pair):
        return
    there = score_masks(a, b, spacing, challenge_compatible=compatible)
    back = score_masks(b, a, spacing, challenge_compatible=compatible)

    assert 0.0 <= there.dice <= 1.0
    assert 0.0 <= there.surface_dice <= 1.0
    assert 0.0 <= there.hd95_mm <= math.dist((0, 0, 0), [n * max(spacing) for n in a.shape])
    assert there.dice == back.dice
    assert there.surface_dice == pytest.approx(back.surface_dice)
    assert there.hd95_mm == pytest.approx(back.hd95_mm)
    assert there.masd_mm == pytest.approx(back.masd_mm)
    assert there.volume_error_mm3 == pytest.approx(-back.volume_error_mm3)


@settings(max_examples=40)
@given(pairs, spacings, st.tuples(*[st.tuples(st.integers(1, 4), st.integers(0, 4))] * 3))
def test_the_field_of_view_does_not_matter(pair, spacing, margins):
    a, b = pair
    if any(mask.all() or not mask.any() for mask in pair):
        return
    close = score_masks(a, b, spacing)
    wide = score_masks(np.pad(a, margins), np.pad(b, margins), spacing)
    assert wide == close


@settings(max_examples=20)
@given(pairs, spacings)
def test_a_mask_agrees_with_itself(pair, spacing):
    mask = pair[0]
    if mask.all() or not mask.any():
        return
    score = score_masks(mask, mask, spacing)
    assert (score.dice, score.surface_dice, score.hd95_mm, score.masd_mm) == (1.0, 1.0, 0.0, 0.0)


SHAPE = (4, 10, 20)
TUMOUR = box(SHAPE, (1, 2, 3), (3, 5, 6))
NOTHING, ALL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
DIAGONAL = math.hypot(4 * 3.0, 10 * 1.2, 20 * 1.0)
SWAPPED_DIAGONAL = math.hypot(4 * 1.0, 10 * 1.2, 20 * 3.0)


@pytest.mark.parametrize("prediction", [NOTHING, ALL], ids=["empty", "everything"])
@pytest.mark.parametrize("compatible", [False, True])
def test_a_uniform_prediction_is_a_complete_miss(prediction, compatible):
    score = score_masks(prediction, TUMOUR, SPACING_ZYX, challenge_compatible=compatible)

    expected = SWAPPED_DIAGONAL if compatible else DIAGONAL
    assert (score.dice, score.surface_dice) == (0.0, 0.0)
    assert score.hd95_mm == score.masd_mm == pytest.approx(expected)
    assert score.empty == (not prediction.any())
    counted = 0.0 if compatible else prediction.sum() * 3.6
    assert score.predicted_mm3 == pytest.approx(counted)
    assert score.volume_error_mm3 == pytest.approx(counted - TUMOUR.sum() * 3.6)


def test_two_empty_masks_agree():
    score = score_masks(NOTHING, NOTHING, SPACING_ZYX)
    assert (score.dice, score.surface_dice, score.hd95_mm, score.masd_mm) == (1.0, 1.0, 0.0, 0.0)

    compatible = score_masks(NOTHING, NOTHING, SPACING_ZYX, challenge_compatible=True)
    assert (compatible.dice, compatible.hd95_mm) == (0.0, pytest.approx(SWAPPED_DIAGONAL))


def test_a_tumour_where_there_is_none_is_a_complete_miss():
    score = score_masks(TUMOUR, NOTHING, SPACING_ZYX)
    assert (score.dice, score.surface_dice) == (0.0, 0.0)
    assert score.hd95_mm == score.masd_mm == pytest.approx(DIAGONAL)

    compatible = score_masks(TUMOUR, NOTHING, SPACING_ZYX, challenge_compatible=True)
    assert compatible.hd95_mm == math.inf
    assert math.isnan(compatible.masd_mm)


def test_the_pancreas_of_a_reference_is_not_tumour():
    labels = TUMOUR.astype(np.uint8)
    labels[0] = 2
    assert score_volumes(volume(TUMOUR), volume(labels)).dice == 1.0


def test_volumes_and_masks_agree_on_axis_order():
    other = box(SHAPE, (2, 2, 3), (4, 5, 6))
    assert score_volumes(volume(other), volume(TUMOUR)) == score_masks(other, TUMOUR, SPACING_ZYX)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_any_number_type_holds_labels(dtype):
    assert score_volumes(volume(TUMOUR, dtype=dtype), volume(TUMOUR, dtype=dtype)).dice == 1.0


def test_three_classes_are_refused_unless_the_tumour_is_named():
    labels = TUMOUR.astype(np.uint8)
    labels[0] = 2
    with pytest.raises(InputError, match=r"binary, 0 and 1, but holds 0, 1, 2: p\.mha"):
        score_volumes(volume(labels), volume(TUMOUR), prediction_name="p.mha")
    with pytest.raises(InputError, match="binary"):
        score_volumes(volume(labels), volume(TUMOUR), challenge_compatible=True)
    assert score_volumes(volume(labels), volume(TUMOUR), tumour_label=1).dice == 1.0


def test_one_class_of_another_value_passes_only_as_the_organisers_let_it():
    labels = volume(TUMOUR * np.uint8(255))
    with pytest.raises(InputError, match="holds 0, 255"):
        score_volumes(labels, volume(TUMOUR))
    assert score_volumes(labels, volume(TUMOUR), challenge_compatible=True).dice == 1.0


@pytest.mark.parametrize(
    ("values", "said"), [(6, "holds 0, 1, 2, 3, 4, 5: "), (7, "0, 1, 2, 3, 4, 5, … (7 values): ")]
)
def test_the_first_six_labels_of_a_wrong_mask_are_listed(values, said):
    labels = np.arange(math.prod(SHAPE)).reshape(SHAPE) % values
    with pytest.raises(InputError) as caught:
        score_volumes(volume(labels), volume(TUMOUR))
    assert said in str(caught.value)


def test_a_reference_of_unknown_labels_is_refused():
    with pytest.raises(InputError, match=r"not 0, 255: r\.mha"):
        score_volumes(volume(TUMOUR), volume(TUMOUR * np.uint8(255)), reference_name="r.mha")


def test_other_sizes_are_refused_by_name():
    with pytest.raises(InputError, match=r"20×10×4 and 20×10×3 .*p\.mha against r\.mha"):
        score_volumes(
            volume(TUMOUR),
            volume(TUMOUR[:-1]),
            prediction_name="p.mha",
            reference_name="r.mha",
        )


@pytest.mark.parametrize(("difference", "refused"), [(0.9e-4, False), (1.1e-4, True)])
def test_spacing_has_to_match_to_the_evaluators_tolerance(difference, refused):
    other = volume(TUMOUR, (1.0, 1.2, 3.0 + difference))
    if refused:
        with pytest.raises(InputError, match="voxel spacing"):
            score_volumes(volume(TUMOUR), other)
    else:
        assert score_volumes(volume(TUMOUR), other).dice == 1.0


@pytest.mark.parametrize(
    "place",
    [{"origin_xyz": (5.0, 0.0, 0.0)}, {"direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}],
    ids=["origin", "direction"],
)
def test_another_place_is_scored_with_a_warning(caplog, place):
    moved = Volume(TUMOUR.astype(np.uint8), Geometry(SHAPE[::-1], (1.0, 1.2, 3.0), **place))
    score = score_volumes(moved, volume(TUMOUR), prediction_name="p", reference_name="r")
    assert score.dice == 1.0
    assert "origin or direction differ, compared voxel by voxel: p against r" in caplog.text


def test_the_same_place_is_no_warning(caplog):
    score_volumes(volume(TUMOUR), volume(TUMOUR, (1.0, 1.2, 3.0 + 0.9e-4)))
    assert caplog.text == ""


def test_an_image_in_place_of_a_mask_is_refused_without_listing_its_values(monkeypatch):
    image = np.random.default_rng(0).random((4, 8, 8))
    volume = Volume(image, Geometry((8, 8, 4), (1.0, 1.0, 1.0)))
    monkeypatch.setattr("gc_panther.imaging.values.PART", 100)
    with pytest.raises(InputError, match="more than 64 values"):
        score_volumes(volume, volume)
