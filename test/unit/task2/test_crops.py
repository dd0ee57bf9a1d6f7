import json
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from gc_panther_task2.crops import LocalizerCrops, crop_to_localizer, is_demonstration
from gc_panther_task2.localizer import Localizer
from gc_panther_task2.plugin import LOCALIZER_MODEL
from gc_panther_task2.roi import find_region

from gc_panther.case import Volume
from gc_panther.errors import UserError
from gc_panther.imaging.images import read_image, write_image
from gc_panther.imaging.orientation import to_lps
from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.task import RunContext, Runtime

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "resources" / "mrsegmentator"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """The part of task 2's bundled case, a phantom and its tumour, that is one of the localizer's
    windows.
    """
    folder = ROOT / "test" / "cases" / "task2"
    (image,) = folder.glob("input/images/*/*.mha")
    (label,) = folder.glob("expected/*.mha")
    target = tmp_path_factory.mktemp("case")
    for whole, name in ((image, "image.mha"), (label, "label.mha")):
        part = sitk.ReadImage(str(whole))[:340, :290, 26:74]
        sitk.WriteImage(part, str(target / name))
    return LabelledCase("10900", target / "image.mha", target / "label.mha")


@pytest.mark.slow
def test_crops_are_what_inference_would_segment(case, tmp_path, caplog, engine_in_process):
    raw = tmp_path / "Dataset201_Crops"
    # A second case without tumour where the pancreas is.
    label = read_image(case.label)
    corner = np.zeros_like(label.array_zyx)
    corner[:2, :2, :2] = 1
    write_image(Volume(corner, label.geometry), tmp_path / "corner.mha")
    elsewhere = LabelledCase("10901", case.image, tmp_path / "corner.mha")
    with caplog.at_level(logging.INFO):
        space = Workspace(tmp_path, engine=engine_in_process)
        made = LocalizerCrops(MODEL).make(space, [case, elsewhere], raw, [0, 1])
    assert [crop.name for crop in made] == ["10900"]
    assert "without tumour (left out): 10901" in caplog.messages[-1]

    runtime = Runtime("cpu", NnUNetOptions(), {LOCALIZER_MODEL.name: MODEL}, tmp_path)
    region = find_region(to_lps(read_image(case.image)), Localizer(runtime), RunContext())
    image, cut = read_image(made[0].image), read_image(made[0].label)
    assert region.found
    assert region.volume.array_zyx.size < read_image(case.image).array_zyx.size
    assert np.array_equal(image.array_zyx, region.volume.array_zyx)
    assert image.geometry.matches(region.volume.geometry)
    assert cut.geometry.matches(image.geometry)
    facts = json.loads((raw / "crops" / "10900.json").read_text())
    assert facts == {"found": True, "tumour_share": 1.0}
    assert np.count_nonzero(cut.array_zyx) == np.count_nonzero(label.array_zyx == 1)


def test_crops_that_are_there_are_not_made_again(tmp_path):
    raw = tmp_path / "raw"
    (raw / "crops").mkdir(parents=True)
    (raw / "crops" / "a.json").write_text("{}")
    missing = str(tmp_path / "missing")
    crop_to_localizer(
        cases=[{"name": "a", "image": missing, "label": missing}],
        raw=str(raw),
        model=missing,
        labels=[0, 1],
        device="cpu",
        threads=1,
    )


def test_no_tumour_in_any_crop_is_an_error(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    (raw / "crops").mkdir(parents=True)
    (raw / "crops" / "a.json").write_text('{"found": false, "tumour_share": 0.0}')
    monkeypatch.setattr(Workspace, "run", lambda self, jobs: None)
    case = LabelledCase("a", tmp_path / "image.mha", tmp_path / "label.mha")
    with pytest.raises(UserError, match="no crop holds a tumour"):
        LocalizerCrops(MODEL).make(Workspace(tmp_path), [case], raw, [0, 1])


def test_the_demonstration_is_known_by_its_version_file(tmp_path):
    assert is_demonstration(MODEL)
    assert not is_demonstration(tmp_path)
    (tmp_path / "version.json").write_text('{"weights_version": 1.2}')
    assert not is_demonstration(tmp_path)
