"""What may be written, and how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from gc_panther.case import Case, Geometry, Result, Volume
from gc_panther.errors import OutputError, UserError
from gc_panther.files import staged_files
from gc_panther.imaging.images import read_image
from gc_panther.platform.outputs import (
    check_mask,
    check_output_folder,
    check_outputs,
    encode_image,
    platform_outputs,
    remove_earlier_results,
)
from gc_panther.task import Interface, Socket, Task

GRID = Geometry((4, 3, 2), (1.0, 1.5, 3.0), (7.0, 8.0, 9.0))


def mask(dtype: Any = np.uint8, value: int = 1, geometry: Geometry = GRID) -> Volume:
    return Volume(np.full(geometry.shape_zyx, value, dtype), geometry)


def test_a_sound_mask_passes(toy_plugin: Any) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    check_mask(mask(), GRID, task)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (mask(np.float32), "float32"),
        (mask(value=2), r"values \[2\]"),
        (mask(geometry=replace(GRID, origin_xyz=(7.0, 8.0, 9.1))), "image's grid"),
        (mask(geometry=replace(GRID, size_xyz=(4, 3, 3))), "image's grid"),
        (mask(geometry=replace(GRID, spacing_xyz=(1.0, 1.5, 3.1))), "image's grid"),
        (
            mask(geometry=replace(GRID, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))),
            "image's grid",
        ),
    ],
)
def test_an_unsound_mask_is_refused(toy_plugin: Any, wrong: Volume, said: str) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    with pytest.raises(OutputError, match=said):
        check_mask(wrong, GRID, task)


def test_a_result_has_to_hold_exactly_the_declared_outputs(toy_plugin: Any) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    (declared,) = task.interfaces[0].outputs
    case = Case("a", {"toy-mri": mask()})
    check_outputs(Result({declared: mask()}), case, task)
    with pytest.raises(OutputError, match="toy returned nothing instead of toy-mask"):
        check_outputs(Result({}), case, task)
    other = replace(declared, slug="heat-map")
    with pytest.raises(OutputError, match="returned heat-map, toy-mask instead of toy-mask"):
        check_outputs(Result({declared: mask(), other: mask()}), case, task)
    with pytest.raises(OutputError, match="float32"):
        check_outputs(Result({declared: mask(np.float32)}), case, task)


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


@pytest.fixture
def case(tmp_path: Path) -> Case:
    sources = {slug: tmp_path / f"input/images/{slug}/{slug}-1.tif" for slug in ("mri", "ct")}
    for source in sources.values():
        source.parent.mkdir(parents=True)
        source.touch()
    return Case("a", {slug: mask() for slug in sources}, sources)


def test_mask_and_results_are_staged_in_the_form_of_the_platform(
    case: Case, tmp_path: Path
) -> None:
    (declared,) = TwoImages.interfaces[0].outputs
    result = Result({declared: mask()}, {"empty_mask": "no"}, ("a note",), ("a warning",))
    folder = tmp_path / "output"
    outputs = platform_outputs(TwoImages(), case, folder, tmp_path / "report.json")
    with staged_files() as staged:
        assert outputs.write(staged, case, result, tmp_path) == {}
        assert [path for path in folder.rglob("*") if path.is_file()] == []
    # The mask has the name of the first image.
    assert outputs.mask == folder / "images/mask/mri-1.mha"
    written = read_image(outputs.mask)
    assert written.array_zyx.dtype == np.uint8
    assert written.array_zyx.all()
    assert written.geometry.matches(GRID, tolerance=1e-12)
    # The keys in this order, as evalutils had them.
    assert json.dumps(json.loads((folder / "results.json").read_text())) == (
        '[{"outputs": [{"type": "metaio_image", "filename": "mri-1.mha"}], '
        '"inputs": [{"type": "metaio_image", "filename": "mri-1.tif", "socket": "mri"}, '
        '{"type": "metaio_image", "filename": "ct-1.tif", "socket": "ct"}], '
        '"error_messages": [], "notes": ["a note"], "warnings": ["a warning"], "empty_mask": "no"}]'
    )


@pytest.mark.parametrize("report", ["input/images/ct/ct-1.tif", "output/results.json"])
def test_nothing_is_written_over_an_image_or_another_result(
    case: Case, tmp_path: Path, report: str
) -> None:
    with pytest.raises(UserError, match="the report would replace"):
        platform_outputs(TwoImages(), case, tmp_path / "output", tmp_path / report)


def test_targets_are_checked_before_any_work(case: Case, tmp_path: Path) -> None:
    (tmp_path / "output" / "results.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"results\.json"):
        platform_outputs(TwoImages(), case, tmp_path / "output")


def test_another_image_in_the_output_is_refused(case: Case, tmp_path: Path) -> None:
    other = tmp_path / "output" / "images" / "mask" / "other.mha"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(OutputError, match=r"other files \(other\.mha\)"):
        platform_outputs(TwoImages(), case, tmp_path / "output")


def test_an_image_is_encoded_with_its_geometry_to_the_last_digit(tmp_path: Path) -> None:
    exact = replace(GRID, spacing_xyz=(1.0 + 4e-5, 1.5, 3.0))
    path = tmp_path / ("m" * 251 + ".mha")
    path.write_bytes(encode_image(mask(geometry=exact), path, tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    image = sitk.ReadImage(str(path))
    assert image.GetSpacing() == pytest.approx(exact.spacing_xyz, abs=1e-9)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert "CompressedData = True" in path.read_bytes()[:500].decode("latin-1")


def test_a_folder_for_temporary_files_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder for temporary files") as caught:
        encode_image(mask(), tmp_path / "m.mha", tmp_path / "gone")
    assert "GC_PANTHER_SCRATCH" in str(caught.value)


def test_only_what_an_earlier_case_has_written_is_removed(toy_plugin: Any, tmp_path: Path) -> None:
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    folder = tmp_path / "images/toy-mask"
    folder.mkdir(parents=True)
    for file in (folder / "old.mha", folder / "mine.mha", tmp_path / "up.mha"):
        file.touch()
    names = ["old.mha", "gone.mha", "../../up.mha", ".."]
    outputs = [{"filename": name} for name in names]
    (tmp_path / "results.json").write_text(json.dumps([{"outputs": outputs}]))
    remove_earlier_results(tmp_path, task)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["mine.mha", "up.mha"]
    remove_earlier_results(tmp_path, task)
    (tmp_path / "results.json").write_text("{")
    remove_earlier_results(tmp_path, task)
    assert not (tmp_path / "results.json").exists()


def test_other_files_in_the_output_are_not_deleted_but_refused(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "absent", "m.mha")
    (tmp_path / "m.mha").touch()
    check_output_folder(tmp_path, "m.mha")
    (tmp_path / "other.mha").touch()
    with pytest.raises(OutputError, match=r"other files \(other.mha\)"):
        check_output_folder(tmp_path, "m.mha")
    assert (tmp_path / "other.mha").exists()
