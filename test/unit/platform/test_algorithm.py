"""One case from the platform's input to what is staged for its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther.case import Case, Geometry, Segmentation, Volume
from gc_panther.errors import OutputError, UserError
from gc_panther.files import staged_files
from gc_panther.imaging.images import from_sitk, read_image, to_sitk, write_image
from gc_panther.platform import algorithm
from gc_panther.platform.algorithm import (
    GrandChallengeAlgorithm,
    PlatformCase,
    VolumeLoader,
    find_case,
)
from gc_panther.task import Interface, Socket, Task

GRID = Geometry((4, 3, 2), (1.0, 1.5, 3.0), (7.0, 8.0, 9.0))


class TwoImages(Task):
    name = "two"
    title = "Two images"
    interfaces = (
        Interface(
            (Socket("mri", "images/mri"), Socket("ct", "images/ct")),
            (Socket("mask", "images/mask"),),
        ),
    )
    models = ()

    def load(self, runtime: Any) -> Any:
        raise AssertionError("not loaded here")


def volume(value: int, dtype: Any = np.int16) -> Volume:
    return Volume(np.full(GRID.shape_zyx, value, dtype), GRID)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, value in (("mri/one.mha", 1), ("ct/two.mha", 2)):
        path = tmp_path / "input" / "images" / name
        path.parent.mkdir(parents=True)
        write_image(volume(value), path)
    return tmp_path / "input"


@pytest.fixture
def case(folder: Path, tmp_path: Path) -> PlatformCase:
    return find_case(TwoImages(), folder, tmp_path / "output")


def test_the_mask_is_named_after_the_first_image_and_goes_to_the_output_s_folder(
    case: PlatformCase, tmp_path: Path
) -> None:
    assert case.mask_path == tmp_path / "output" / "images" / "mask" / "one.mha"
    assert case.results_path == tmp_path / "output" / "results.json"
    assert list(case.inputs.images) == ["mri", "ct"]


@pytest.mark.parametrize("report", ["input/images/ct/two.mha", "output/results.json"])
def test_nothing_is_written_over_an_image_or_another_result(
    folder: Path, tmp_path: Path, report: str
) -> None:
    with pytest.raises(UserError, match="the report would replace"):
        find_case(TwoImages(), folder, tmp_path / "output", tmp_path / report)


def test_targets_are_checked_before_any_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "output" / "results.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"results\.json"):
        find_case(TwoImages(), folder, tmp_path / "output")


def test_another_image_in_the_output_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "output" / "images" / "mask" / "other.mha"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(OutputError, match=r"other files \(other\.mha\)"):
        find_case(TwoImages(), folder, tmp_path / "output")


def segmented(case: PlatformCase, tmp_path: Path) -> tuple[list[Case], Any]:
    """The cases that were segmented, and what ``results.json`` says."""
    seen = []

    def segment(given: Case) -> Segmentation:
        seen.append(given)
        return Segmentation(
            volume(1, np.uint8), {"empty_mask": "no"}, notes=("a note",), warnings=("a warning",)
        )

    with staged_files() as staged:
        GrandChallengeAlgorithm(case, segment, staged=staged, scratch=tmp_path).process()
        assert not case.mask_path.exists()
        staged.publish()
    return seen, json.loads(case.results_path.read_text())


def test_a_case_is_segmented_once_and_its_mask_and_results_are_staged(
    case: PlatformCase, tmp_path: Path
) -> None:
    (given,), (result,) = segmented(case, tmp_path)
    assert given.name == "one"
    assert {slug: int(one.array_zyx.max()) for slug, one in given.images.items()} == {
        "mri": 1,
        "ct": 2,
    }
    assert given.sources == case.inputs.images
    mask = read_image(case.mask_path)
    assert mask.array_zyx.dtype == np.uint8
    assert mask.array_zyx.all()
    assert mask.geometry.matches(GRID, tolerance=1e-12)
    assert result == {
        "outputs": [{"type": "metaio_image", "filename": "one.mha"}],
        "inputs": [
            {"type": "metaio_image", "filename": "one.mha", "socket": "mri"},
            {"type": "metaio_image", "filename": "two.mha", "socket": "ct"},
        ],
        "error_messages": [],
        "notes": ["a note"],
        "warnings": ["a warning"],
        "empty_mask": "no",
    }


def test_each_image_is_read_once(
    case: PlatformCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def noted(path: Path) -> Volume:
        read.append(path)
        return read_image(path)

    monkeypatch.setattr(algorithm, "read_image", noted)
    segmented(case, tmp_path)
    assert sorted(read) == sorted(case.inputs.images.values())


def test_a_loader_reads_another_file_when_it_is_asked_for_it(case: PlatformCase) -> None:
    loader = VolumeLoader()
    first, second = case.inputs.images.values()
    values = [sitk.GetArrayFromImage(loader.load_image(path)).max() for path in (first, second)]
    assert values == [1, 2]


def test_an_image_in_memory_is_segmented_as_the_first_of_the_case(
    case: PlatformCase, tmp_path: Path
) -> None:
    def segment(given: Case) -> Segmentation:
        assert list(given.images) == ["mri"]
        doubled = given.images["mri"].array_zyx * 2
        return Segmentation(Volume(doubled.astype(np.uint8), GRID))

    with staged_files() as staged:
        one = GrandChallengeAlgorithm(case, segment, staged=staged, scratch=tmp_path)
        mask = from_sitk(one.predict(input_image=to_sitk(volume(4))))
    assert (mask.array_zyx == 8).all()
    assert mask.geometry.matches(GRID)
