import math

import numpy as np
import pytest

from gc_panther import memory
from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.resampling import resample
from gc_panther.nnunet.inference import ensemble as ensemble_module
from gc_panther.nnunet.inference.ensemble import Ensemble
from gc_panther.nnunet.inference.windows import window_slices
from gc_panther.nnunet.model.estimates import Grids, stages
from gc_panther.nnunet.model.folder import open_model_folder
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.task import RunContext

PATCH = (48, 160, 224)


def largest(image, network, heads=3, patch=PATCH):
    return max(stages(Grids(image, image, network, patch), heads, 2).values())


@pytest.mark.parametrize(
    ("image", "network", "gigabytes"),
    [
        # A thousand slices, 100 m apart: the matrix that interpolates between them.
        ((1000, 1, 1), (33_000_000, 1, 1), 500),
        # Two million voxels in a line, in windows of a patch.
        ((2_000_000, 1, 1), (2_000_000, 1, 1), 500),
        # 64³ at 20×20×40 mm.
        ((64, 64, 64), (853, 1078, 1078), 10),
        # One of the largest of PANTHER's.
        ((72, 512, 512), (72, 320, 320), None),
    ],
)
def test_images_that_take_gigabytes_are_known_by_their_shapes(image, network, gigabytes):
    needed = largest(image, network) / 1e9
    assert needed > gigabytes if gigabytes else 0.3 < needed < 2


def test_a_larger_image_needs_more():
    small = largest((50, 200, 200), (40, 160, 200))
    assert small < largest((50, 400, 200), (40, 320, 200)) < largest((50, 400, 400), (40, 320, 400))
    assert small < largest((50, 200, 200), (40, 160, 200), heads=41)


@pytest.mark.parametrize("step_size", [0.5, 0.3, 1.0])
def test_logits_of_all_windows_are_counted_where_they_are_kept(step_size):
    grids, patch = Grids(PATCH, PATCH, (100, 300, 224), PATCH), math.prod(PATCH)
    windows = len(window_slices(grids.padded, PATCH, step_size))
    without, with_them = (stages(grids, 3, 5, step) for step in (None, step_size))
    more = {doing: with_them[doing] - without[doing] for doing in without}
    assert more.pop("padded to the network's window") == 5 * windows * 3 * 2 * patch
    assert set(more.values()) == {0}


def test_what_a_small_image_takes_by_hand():
    needed = stages(Grids((4, 4, 4), (4, 4, 4), (4, 4, 4), (4, 4, 8)), heads=2, kept=3)
    # 64 voxels, 128 with the padding, in bytes: the image, its copy and its result in single
    # precision, and no interpolation.
    assert needed["resampled for the network"] == 4 * 3 * 64
    # The image before and after; the sums of two heads and of the weights in half precision; what
    # becomes of two heads; and the logits of three folds.
    assert needed["padded to the network's window"] == (
        4 * (64 + 128) + 2 * 3 * 128 + 2 * 128 + 3 * 2 * 2 * 64
    )


@pytest.fixture
def ensemble(tiny_model_folder):
    folder = open_model_folder(tiny_model_folder(folds=(0,)), None)
    return Ensemble(folder, device="cpu", options=NnUNetOptions())


def volume(shape_zyx, spacing_xyz):
    noise = np.random.default_rng(0).normal(300, 100, shape_zyx).astype(np.float32)
    return Volume(noise, Geometry(shape_zyx[::-1], spacing_xyz))


@pytest.mark.parametrize(
    ("image", "gigabytes", "match"),
    [
        (volume((1000, 1, 1), (1.0, 1.0, 1e5)), 8, "memory when resampled for the network, and 8 "),
        (volume((64, 64, 64), (20.0, 20.0, 40.0)), 4, "memory when .*, and 4 GB are available"),
        (volume((200_000, 1, 1), (2.0, 2.0, 4.0)), 2, "memory when padded to the network's window"),
        (volume((16, 32, 32), (2.0, 2.0, 4.0)), 0.0001, "memory when"),
    ],
)
def test_an_image_that_needs_too_much_is_refused_before_it_takes_it(
    ensemble, monkeypatch, resident, image, gigabytes, match
):
    monkeypatch.setattr(memory, "available_memory", lambda: gigabytes * 1e9)
    before = resident()
    with pytest.raises(InputError, match=match):
        ensemble.predict(image, RunContext())
    assert resident() - before < 100 << 20


def test_the_adaptive_mode_needs_memory_for_its_windows(tiny_model_folder, monkeypatch):
    folder = open_model_folder(tiny_model_folder(), None)
    most = {}
    for mode, label in (("exact", 1), ("adaptive", 1), ("adaptive", None)):
        needed = []
        monkeypatch.setattr(
            ensemble_module, "check_memory", lambda size, needed=needed, **_: needed.append(size)
        )
        loaded = Ensemble(folder, device="cpu", options=NnUNetOptions(mode=mode))
        loaded.predict(volume((16, 32, 32), (2.0, 2.0, 4.0)), RunContext(), label=label)
        most[mode, label] = max(needed)
    assert most["adaptive", 1] > most["exact", 1] == most["adaptive", None]


def test_an_image_that_fits_is_segmented(ensemble, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0.1e9)
    image = volume((16, 32, 32), (2.0, 2.0, 4.0))
    assert ensemble.predict(image, RunContext()).labels_zyx.shape == (16, 32, 32)


def test_resampling_for_the_localizer_is_checked_as_well(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1e8)
    with pytest.raises(InputError, match=r"memory when resampled to 3×3×6 mm"):
        resample(volume((64, 64, 64), (20.0, 20.0, 40.0)), (3.0, 3.0, 6.0))
