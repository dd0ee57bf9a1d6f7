import json

import numpy as np
import pytest
import time_limit
from time_limit import Limited, table

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import write_image


def limited(limit, seconds, voxels):
    mask = np.zeros((4, 5, 6), np.uint8)
    mask.flat[:voxels] = 1
    return Limited("task1", limit, seconds, ("a fold",) if limit else (), mask)


@pytest.mark.parametrize(
    ("limit", "seconds", "voxels", "kept"),
    [
        (10, [9.0, 10.9], 3, True),
        (10, [9.0, 11.1], 3, False),
        (10, [9.0], 0, False),
        (None, [500.0], 3, True),
    ],
)
def test_a_limit_is_kept_with_a_mask_in_every_run(limit, seconds, voxels, kept):
    assert limited(limit, seconds, voxels).kept == kept


def test_masks_are_compared_with_the_one_without_a_limit():
    lines = table([limited(10, [9.0, 8.0, 12.0], 2), limited(None, [30.0], 4)]).splitlines()
    assert lines[2] == "| task1 | 10 | 9.0 | 12.0 | **no** | a fold | 0.667 |"
    assert lines[3] == "| task1 | – | 30.0 | 30.0 | yes | nothing | 1.000 |"


def test_a_run_gets_its_limit_and_its_report_is_read(tmp_path, monkeypatch):
    commands = []

    def pretend(arguments):
        commands.append([str(argument) for argument in arguments])
        mask = np.ones((2, 3, 4), np.uint8)
        write_image(Volume(mask, Geometry((4, 3, 2), (1.0, 1.0, 1.0))), tmp_path / "mask.mha")
        (tmp_path / "report.json").write_text(json.dumps({"notes": ["less"]}))

    monkeypatch.setattr(time_limit, "command", pretend)
    one = Limited("task1", 12.5)
    one.run(tmp_path / "image.mha", tmp_path, "cpu")
    assert commands[0][1:4] == ["predict", "task1", str(tmp_path / "image.mha")]
    assert commands[0][-2:] == ["--time-limit", "12.5"]
    assert (len(one.seconds), one.notes, one.kept) == (1, ("less",), True)
