import importlib.util
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from gc_panther.panther.phantom import generate_phantom
from gc_panther.panther.phantom.anatomy.pancreas import DIAMETER_MM, POSITIONS
from gc_panther.panther.phantom.anatomy.patient import draw_anatomy
from gc_panther.panther.phantom.generate import PROTOCOLS, _draw_grid, _draw_placement
from gc_panther.panther.phantom.labels import ORGANS

TASKS = ("task1", "task2")


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_bytes(task, small, phantoms):
    again = generate_phantom(task, 11, case=1, **small)
    first = phantoms[task][1]
    for name in ("image_zyx", "label_zyx", "organs_zyx"):
        assert getattr(again, name).tobytes() == getattr(first, name).tobytes()
    assert again.facts == first.facts
    assert again.origin_xyz == first.origin_xyz


@pytest.mark.parametrize("change", [{"seed": 12}, {"case": 2}])
def test_other_seeds_and_cases_differ(change, small, phantoms):
    other = generate_phantom("task1", **{"seed": 11, "case": 1, **change}, **small)
    assert (other.label_zyx != phantoms["task1"][1].label_zyx).any()


@pytest.mark.parametrize("task", TASKS)
def test_arrays_and_geometry(task, small, phantoms):
    for phantom in phantoms[task]:
        assert phantom.image_zyx.dtype == np.int16
        assert phantom.label_zyx.dtype == phantom.organs_zyx.dtype == np.uint8
        for array in (phantom.image_zyx, phantom.label_zyx, phantom.organs_zyx):
            assert array.shape == small["size_xyz"][::-1]
        assert phantom.spacing_xyz == small["spacing_xyz"]
        assert any(abs(v) > 1 for v in phantom.origin_xyz)
        direction = np.reshape(phantom.direction, (3, 3))
        assert direction @ direction.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(direction) == pytest.approx(1.0)
        assert phantom.image_zyx.min() >= 0
        assert 100 < np.percentile(phantom.image_zyx, 99) < 10000


def test_some_directions_are_tilted_most_are_not():
    placements = [
        _draw_placement((318, 258, 72), (1.19, 1.19, 3.0), np.random.default_rng(s))
        for s in range(100)
    ]
    straight = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    assert 5 <= sum(direction != straight for _, direction in placements) <= 30
    # The isocentre is near the image's centre, so the origin is at its right anterior foot.
    assert all(max(origin[0], origin[1]) < -60 for origin, _ in placements)


@pytest.mark.parametrize("task", TASKS)
def test_the_usual_grid_is_the_challenges(task):
    protocol = PROTOCOLS[task]
    drawn = [_draw_grid(protocol, np.random.default_rng(s)) for s in range(200)]
    sizes = np.array([d[0] for d in drawn])
    spacings = np.array([d[1] for d in drawn])
    assert sizes.mean(axis=0) == pytest.approx(protocol.size_xyz, rel=0.01)
    assert spacings.mean(axis=0) == pytest.approx(protocol.spacing_xyz, rel=0.01)
    assert sizes.prod(axis=1).max() < 16e6
    assert (spacings[:, 0] == spacings[:, 1]).all()


@pytest.mark.parametrize("task", TASKS)
def test_labels(task, phantoms):
    for phantom in phantoms[task]:
        assert np.unique(phantom.label_zyx).tolist() == [0, 1, 2]
        # Tumour and pancreas are both organ 7, and nothing else is.
        np.testing.assert_array_equal(phantom.organs_zyx == 7, phantom.label_zyx > 0)


def test_the_organ_table_is_mrsegmentators():
    readme = metadata.distribution("mrsegmentator").read_text("METADATA")
    for name, number in ORGANS.items():
        if number:
            assert f"| {number} | {name} |" in readme


@pytest.mark.parametrize("task", TASKS)
def test_organs_are_there_and_in_their_places(task, phantoms):
    for phantom in phantoms[task]:
        organs = phantom.organs_zyx

        def centre(name, organs=organs):
            found = np.argwhere(organs == ORGANS[name])
            assert len(found), name
            return found.mean(axis=0)[::-1]  # x to the left, y to posterior, z to superior

        liver, spleen, spine, aorta = map(centre, ("liver", "spleen", "spine", "aorta"))
        assert liver[0] < spine[0] < spleen[0]
        assert aorta[1] < spine[1]
        assert centre("inferior_vena_cava")[0] < aorta[0]
        assert centre("right_kidney")[0] < spine[0] < centre("left_kidney")[0]
        assert centre("stomach")[1] < spine[1]
        assert centre("pancreas")[1] < aorta[1]
        assert centre("duodenum")[0] < centre("pancreas")[0]
        for name in (
            "gallbladder",
            "small_bowel",
            "colon",
            "portal_vein_and_splenic_vein",
            "left_autochthonous_muscle",
            "right_iliopsoas_muscle",
        ):
            centre(name)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_volumes_are_a_patients(task, phantoms):
    for phantom in phantoms[task]:
        voxel = np.prod(phantom.spacing_xyz) / 1000
        millilitres = {
            name: (phantom.organs_zyx == number).sum() * voxel for name, number in ORGANS.items()
        }
        assert 600 < millilitres["liver"] < 2200
        assert 40 < millilitres["spleen"] < 500
        assert 80 < millilitres["left_kidney"] < 300
        assert 25 < millilitres["pancreas"] < 160


@pytest.mark.parametrize("task", TASKS)
def test_the_tumour_is_one_piece_in_the_pancreas(task, phantoms):
    for phantom in phantoms[task]:
        tumour = phantom.label_zyx == 1
        parts, count = label(tumour, np.ones((3, 3, 3)))
        assert np.bincount(parts.ravel())[1:].max() > 0.9 * tumour.sum(), count
        assert (binary_dilation(tumour, np.ones((3, 3, 3))) & (phantom.label_zyx == 2)).any()
        low, high = DIAMETER_MM
        assert low <= phantom.facts["tumour_diameter_mm"] <= high
        volume = tumour.sum() * np.prod(phantom.spacing_xyz)
        assert phantom.facts["tumour_volume_mm3"] == pytest.approx(volume, rel=1e-3)


@pytest.mark.slow
def test_tumours_vary_in_size_and_place():
    plans = [draw_anatomy(np.random.default_rng(s)).tumour for s in range(60)]
    share = {p: np.mean([plan.position == p for plan in plans]) for p in POSITIONS}
    assert share == pytest.approx(POSITIONS, abs=0.13)
    diameters = np.array([p.diameter_mm for p in plans])
    assert DIAMETER_MM[0] < diameters.min() < 16
    assert 35 < diameters.max() < DIAMETER_MM[1]


def test_the_anatomy_is_the_same_in_every_contrast(small, phantoms):
    for contrast in ("t2", "random"):
        other = generate_phantom("task1", 11, case=0, contrast=contrast, **small)
        np.testing.assert_array_equal(other.organs_zyx, phantoms["task1"][0].organs_zyx)
        assert (other.image_zyx != phantoms["task1"][0].image_zyx).any()
        assert other.facts["contrast"] == contrast


@pytest.mark.slow
def test_varied_patients_go_beyond_the_protocol(small):
    varied = [
        generate_phantom("task1", 11, case=case, varied=True, contrast="mixed", **small)
        for case in range(6)
    ]
    height = [p.image_zyx.shape[0] * p.spacing_xyz[2] for p in varied]
    assert max(height) > 1.5 * min(height)
    assert len({p.spacing_xyz for p in varied}) == 6
    size = [(p.organs_zyx > 0).sum((1, 2)).max() * np.prod(p.spacing_xyz[:2]) for p in varied]
    assert max(size) > 1.3 * min(size)
    assert sum((p.organs_zyx == ORGANS["pancreas"]).any() for p in varied) >= 4
    again = generate_phantom("task1", 11, case=2, varied=True, contrast="mixed", **small)
    assert again.image_zyx.tobytes() == varied[2].image_zyx.tobytes()


def test_facts_are_plain_json(phantoms):
    import json

    facts = phantoms["task2"][0].facts
    assert json.loads(json.dumps(facts)) == facts
    assert {"tumour_position", "tumour_diameter_mm", "cnr", "seed", "case"} <= set(facts)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'task3'"):
        generate_phantom("task3", 0)


def difficulty():
    path = Path(__file__).parents[4] / "benchmarks" / "phantom_difficulty.py"
    spec = importlib.util.spec_from_file_location("phantom_difficulty", path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_threshold_oracle_finds_what_a_threshold_can_find():
    oracle = difficulty()
    values = np.concatenate([np.full(50, 0.5), np.full(100, 1.0), np.full(50, 1.5)])
    under, over, band = oracle.threshold_dice(values, values == 0.5)
    assert under.max() == pytest.approx(1.0)
    assert band == pytest.approx(1.0)
    under, over, band = oracle.threshold_dice(values, values == 1.0)
    assert max(under.max(), over.max()) == pytest.approx(2 * 100 / (150 + 100))
    assert band == pytest.approx(1.0)  # a lower and an upper limit tell the middle


# On small voxels: on large ones the tumour is mixed with what is around it.
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_one_threshold_does_not_find_the_tumour(task):
    result = difficulty().measure(
        generate_phantom(task, 21, case=case, size_xyz=(150, 122, 60), spacing_xyz=(2.5, 2.5, 3.6))
        for case in range(4)
    )
    assert result.data_set <= 0.5
    assert result.per_case <= 0.55
