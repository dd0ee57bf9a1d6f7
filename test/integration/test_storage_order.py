"""A file's storage order must not change the mask: same patient, same tumour."""

import numpy as np
import pytest
from bundled import tumour_surroundings
from scipy import ndimage

from gc_panther.case import Case, Geometry, Volume
from gc_panther.imaging.orientation import from_lps, to_lps
from gc_panther.panther.options import PantherOptions
from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.settings import bundled_resources
from gc_panther.task import RunContext, Runtime

ROTATED = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
STRAIGHT = np.eye(3)

#: Spacing of the tiny networks, mm: the whole test image fits into one window.
COARSE = (6.0, 3.0, 3.0)

#: name -> (stored axis order, signs): which LPS axis each stored axis follows, and which way.
ORDERS = {
    "flipped along two axes": ((0, 1, 2), (-1, -1, 1)),
    "flipped along three axes": ((0, 1, 2), (-1, -1, -1)),
    "sagittal": ((1, 2, 0), (1, -1, 1)),
    "coronal": ((0, 2, 1), (1, -1, -1)),
}


def abdomen(direction):
    """A smooth image in LPS order, with air on one side."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(10, 26, 30)), (1, 3, 3))
    array = (1000 * (noise - noise.min()) / np.ptp(noise)).astype(np.int16)
    array[:, :, :4] = 0
    origin = (-31.7, 12.9, 77.7)
    return Volume(array, Geometry((30, 26, 10), (2.3, 2.2, 4.9), origin, tuple(direction.ravel())))


def stored_as(volume_lps, order, signs):
    """The same image, as a file of another storage order would hold it."""
    direction = np.reshape(volume_lps.geometry.direction, (3, 3))[:, order] * signs
    size = np.array(volume_lps.geometry.size_xyz)
    last = np.where(np.array(signs) < 0, size[list(order)] - 1, 0)
    first_xyz = np.zeros(3)
    first_xyz[list(order)] = last
    lps_steps = np.reshape(volume_lps.geometry.direction, (3, 3)) * volume_lps.geometry.spacing_xyz
    geometry = Geometry(
        tuple(int(size[axis]) for axis in order),
        tuple(volume_lps.geometry.spacing_xyz[axis] for axis in order),
        tuple(np.array(volume_lps.geometry.origin_xyz) + lps_steps @ first_xyz),
        tuple(direction.ravel()),
    )
    return Volume(from_lps(volume_lps.array_zyx, geometry), geometry)


def segmenter_of(name, models, scratch, **options):
    task = find_task(create_plugin_manager(), name)
    chosen = PantherOptions(never_empty=True, **options)
    return task, task.load(Runtime("cpu", chosen, models, scratch))


def segment(task, segmenter, volume):
    (socket,) = task.interfaces[0].inputs
    result = segmenter.predict(Case("a case", {socket.slug: volume}), RunContext())
    assert result.mask.geometry == volume.geometry
    return result


def assert_storage_order_does_not_matter(task, segmenter, volume_lps, orders):
    expected = segment(task, segmenter, volume_lps)
    assert expected.mask.array_zyx.any()
    assert set(np.unique(expected.mask.array_zyx)) <= {0, 1}
    for name in orders:
        stored = stored_as(volume_lps, *ORDERS[name])
        result = segment(task, segmenter, stored)
        again = to_lps(result.mask)
        assert again.geometry.matches(volume_lps.geometry), name
        assert np.array_equal(again.array_zyx, expected.mask.array_zyx), name
        if "roi" in expected.details:
            sizes = [
                np.subtract(s.details["roi"]["stop_xyz"], s.details["roi"]["start_xyz"])
                for s in (expected, result)
            ]
            assert list(sizes[0][list(ORDERS[name][0])]) == list(sizes[1]), name


@pytest.fixture
def models(tiny_model_folder):
    tumour = {"background": 0, "tumour": 1}
    organs = {"background": 0, **{f"organ_{n}": n for n in range(1, 41) if n != 7}, "pancreas": 7}
    return {
        "task1": tiny_model_folder(
            labels={**tumour, "pancreas": 2}, folds=(0, 1), spacing_zyx=COARSE
        ),
        "task2": tiny_model_folder(labels=tumour, folds=(0, 1), spacing_zyx=COARSE),
        "mrsegmentator": tiny_model_folder(labels=organs, folds=(0,), spacing_zyx=COARSE),
    }


@pytest.mark.parametrize("direction", [STRAIGHT, ROTATED], ids=["straight", "oblique"])
@pytest.mark.parametrize("name", ["task1", "task2"])
def test_random_networks(name, direction, models, tmp_path):
    task, segmenter = segmenter_of(name, models, tmp_path, folds=(0, 1))
    assert_storage_order_does_not_matter(task, segmenter, abdomen(direction), ORDERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["task1", "task2"])
def test_the_bundled_networks(name, tmp_path):
    """One fold without mirroring, around the tumour: enough for storage order to matter."""
    resources = bundled_resources()
    task = find_task(create_plugin_manager(), name)
    models = {model.name: resources / model.name for model in task.models}
    task, segmenter = segmenter_of(name, models, tmp_path, folds=(0,), mirroring=False)
    volume_lps = to_lps(tumour_surroundings(name))
    assert_storage_order_does_not_matter(
        task, segmenter, volume_lps, ["flipped along two axes", "sagittal"]
    )


@pytest.mark.parametrize("name", ["task1", "task2"])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 1, 1), (0.5, 0.5, 0.5)),
        Geometry((3, 2, 1), (1.0, 1.0, 2.0)),
        Geometry((64, 64, 2), (0.4, 0.4, 40.0)),
    ],
    ids=["one voxel", "smaller than a searched voxel", "two thick slices"],
)
def test_extreme_images_are_segmented(name, geometry, models, tmp_path):
    rng = np.random.default_rng(1)
    image = Volume(rng.integers(0, 900, geometry.shape_zyx).astype(np.int16), geometry)
    task, segmenter = segmenter_of(name, models, tmp_path, folds=(0,))
    assert segment(task, segmenter, image).mask.array_zyx.any()
