import json
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gc_panther.errors import InputError, PluginError
from gc_panther.panther.data import cli as data_cli
from gc_panther.panther.data import layout as panther_data
from gc_panther.panther.data.checks import check_before_training, check_data
from gc_panther.panther.data.layout import DataLayout, import_data, list_content

LAYOUT = DataLayout(
    "Dataset101_PantherTask1",
    r"\d{5}_\d{4}",
    "10000_0001",
    {"background": 0, "tumour": 1, "pancreas": 2},
    "tumour",
)
#: Few voxels, but of the extent of an abdomen.
SHAPE_ZYX = (10, 20, 22)
SPACING = (15.0, 15.0, 12.0)


def write(path, array_zyx, spacing=SPACING):
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def add_case(root, name, seed, *, label=True, folder="ImagesTr"):
    z, y, x = np.indices(SHAPE_ZYX)
    inside = (y - 10) ** 2 / 80 + (x - 11) ** 2 / 100 < 1
    noise = np.random.default_rng(seed).normal(20, 9, SHAPE_ZYX)
    image = (400 * inside + 5 * z + noise).clip(0).astype(np.int16)
    write(root / folder / f"{name}_0000.mha", image)
    if label:
        values = np.zeros(SHAPE_ZYX, np.uint8)
        values[4:7, 8:12, 8:13] = 2
        values[5:7, 9:11, 9:11] = 1
        write(root / "LabelsTr" / f"{name}.mha", values)


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "PANTHER_Task1"
    for number in range(3):
        add_case(root, f"1000{number}_0001", number)
    add_case(root, "10009_0001", 9, label=False, folder="ImagesTr_unlabeled")
    return root


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def change_label(data, change, **options):
    path = data / "LabelsTr" / "10001_0001.mha"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    write(path, change(array), **options)
    return "LabelsTr/10001_0001.mha"


def no_pair(data):
    (data / "LabelsTr" / "10001_0001.mha").unlink()
    return "ImagesTr/10001_0001_0000.mha"


def no_image(data):
    (data / "ImagesTr" / "10001_0001_0000.mha").unlink()
    return "LabelsTr/10001_0001.mha"


def other_name(data):
    (data / "ImagesTr" / "Patient_7.mha").touch()
    return "ImagesTr/Patient_7.mha"


def unreadable(data):
    (data / "ImagesTr" / "10001_0001_0000.mha").write_bytes(b"ObjectType = Image\n")
    return "ImagesTr/10001_0001_0000.mha"


def both(data):
    add_case(data, "10001_0001", 5, label=False, folder="ImagesTr_unlabeled")
    return "ImagesTr_unlabeled/10001_0001_0000.mha"


FAULTS = [
    (no_pair, "the image has no label map"),
    (no_image, "the label map has no image"),
    (other_name, "the name is not PANTHER's"),
    (unreadable, "cannot be read"),
    (both, "the case is labelled as well"),
    (lambda d: change_label(d, lambda a: a, spacing=(15, 15, 9)), "spacing 15×15×9 against"),
    (lambda d: change_label(d, lambda a: a[:-1]), "size 22×20×9 against 22×20×10"),
    (lambda d: change_label(d, lambda a: a + 1), "unknown label values: 3"),
    (lambda d: change_label(d, lambda a: a * 0), "the label map is empty"),
]


def test_a_sound_data_set_has_no_problems(data):
    read = Counter()
    content, problems = check_data(data, LAYOUT, lambda path, part: read.update({path: part}))
    assert problems == []
    assert sorted(content.images) == ["10000_0001", "10001_0001", "10002_0001"]
    assert list(content.unlabelled) == ["10009_0001"]
    assert len(read) == content.files == 7
    assert list(read.values()) == pytest.approx([1.0] * 7)


@pytest.mark.parametrize(("damage", "what"), FAULTS)
def test_each_fault_is_found_and_named(damage, what, data):
    file = damage(data)
    _, problems = check_data(data, LAYOUT)
    assert [(p.check, p.verdict) for p in problems] == [(file, "fail")]
    assert what in problems[0].found
    assert problems[0].fix


def test_all_faults_are_reported_together(data):
    (data / "ImagesTr" / "10000_0001_0000.mha").unlink()
    change_label(data, lambda a: a + 1)
    other_name(data)
    _, problems = check_data(data, LAYOUT)
    assert {p.check for p in problems} == {
        "ImagesTr/Patient_7.mha",
        "LabelsTr/10000_0001.mha",
        "LabelsTr/10001_0001.mha",
    }


def test_what_may_be_meant_is_a_warning(data):
    image = (data / "ImagesTr" / "10000_0001_0000.mha").read_bytes()
    (data / "ImagesTr" / "10002_0001_0000.mha").write_bytes(image)
    change_label(data, lambda a: np.where(a == 1, 2, a).astype(np.uint8))
    _, problems = check_data(data, LAYOUT)
    assert {(p.check, p.found, p.verdict) for p in problems} == {
        (
            "ImagesTr/10002_0001_0000.mha",
            "the same pixels as ImagesTr/10000_0001_0000.mha",
            "warn",
        ),
        ("LabelsTr/10001_0001.mha", "no tumour is labelled", "warn"),
    }


def test_hidden_files_are_no_cases(data):
    (data / "ImagesTr" / ".DS_Store").touch()
    assert check_data(data, LAYOUT)[1] == []


def test_an_empty_folder_and_none(tmp_path):
    _, problems = list_content(tmp_path, LAYOUT)
    assert [p.found for p in problems] == ["there are no images"]
    with pytest.raises(InputError, match="no such folder"):
        list_content(tmp_path / "none", LAYOUT)


@given(name=st.from_regex(LAYOUT.case_pattern, fullmatch=True))
def test_every_name_of_the_pattern_is_a_case(name):
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "ImagesTr"
        folder.mkdir()
        (folder / f"{name}_0000.mha").touch()
        content, problems = list_content(Path(root), LAYOUT)
    assert list(content.images) == [name]
    assert [p.found for p in problems] == ["the image has no label map"]


def test_a_training_is_refused_with_the_first_fault_and_the_count(data, caplog):
    change_label(data, lambda a: a + 1)
    other_name(data)
    with pytest.raises(InputError, match="not PANTHER's, and 1 more problem") as caught:
        check_before_training(data, LAYOUT)
    assert "gc-panther dataset check" in caught.value.fix
    assert "unknown label values: 3" in caplog.text


def test_import_writes_nnunets_raw_layout_without_copies(data, tmp_path):
    content, _ = check_data(data, LAYOUT)
    folder, way = import_data(content, LAYOUT, tmp_path / "raw")
    assert folder == tmp_path / "raw" / "Dataset101_PantherTask1"
    assert way == "hard link"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "dataset.json",
        *(f"imagesTr/1000{n}_0001_0000.mha" for n in range(3)),
        "imagesUn/10009_0001_0000.mha",
        *(f"labelsTr/1000{n}_0001.mha" for n in range(3)),
    ]
    image = folder / "imagesTr" / "10000_0001_0000.mha"
    assert image.samefile(data / "ImagesTr" / "10000_0001_0000.mha")
    document = json.loads((folder / "dataset.json").read_text())
    assert document["numTraining"] == 3
    assert document["labels"] == LAYOUT.labels


def refuse(*_args, **_kwargs):
    raise OSError("another file system")


def test_where_no_hard_link_is_possible_there_is_a_link_or_a_copy(data, tmp_path, monkeypatch):
    content, _ = check_data(data, LAYOUT)
    monkeypatch.setattr("os.link", refuse)
    folder, way = import_data(content, LAYOUT, tmp_path / "linked")
    assert way == "symbolic link"
    assert (folder / "labelsTr" / "10000_0001.mha").is_symlink()
    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder, way = import_data(content, LAYOUT, tmp_path / "copied")
    assert way == "copy"
    copy = folder / "labelsTr" / "10000_0001.mha"
    assert copy.read_bytes() == (data / "LabelsTr" / "10000_0001.mha").read_bytes()


def test_an_import_that_failed_leaves_no_data_set(data, tmp_path, monkeypatch):
    content, _ = check_data(data, LAYOUT)
    monkeypatch.setattr(panther_data, "write_json", refuse)
    with pytest.raises(OSError, match="another file system"):
        import_data(content, LAYOUT, tmp_path / "raw")
    assert not (tmp_path / "raw" / LAYOUT.dataset).exists()
    monkeypatch.undo()
    folder, _ = import_data(content, LAYOUT, tmp_path / "raw")
    assert len(list((folder / "imagesTr").iterdir())) == 3
    with pytest.raises(InputError, match="exists"):
        import_data(content, LAYOUT, tmp_path / "raw")


def invoke(*arguments):
    application = typer.Typer()
    application.add_typer(data_cli.app, name="dataset")
    arguments = ["dataset", *map(str, arguments), "--task", "task1"]
    return CliRunner().invoke(application, arguments, env={"COLUMNS": "200"})


def test_the_commands(data, tmp_path):
    assert invoke("check", data).stdout == "3 labelled and 1 unlabelled case\n"
    result = invoke("import", data, tmp_path / "raw")
    assert result.exit_code == 0
    assert "3 labelled and 1 unlabelled case in" in result.stdout
    assert (tmp_path / "raw" / "Dataset101_PantherTask1" / "dataset.json").is_file()


def test_a_task_whose_training_has_another_layout(data, monkeypatch):
    pipeline = SimpleNamespace(task="task1", presets=())
    monkeypatch.setattr("gc_panther.nnunet.training.pipeline.find_pipeline", lambda *_: pipeline)
    result = invoke("check", data)
    assert isinstance(result.exception, PluginError)
    assert "'task1' are not in PANTHER's layout" in str(result.exception)


@pytest.mark.parametrize(("damage", "what"), FAULTS)
def test_bad_data_give_one_table_and_change_nothing(damage, what, data, tmp_path):
    file = damage(data)
    before = files_below(tmp_path)
    result = invoke("import", data, tmp_path / "raw")
    assert isinstance(result.exception, InputError)
    assert file in result.stdout
    assert what in result.stdout
    assert files_below(tmp_path) == before


def test_brackets_in_a_file_name_reach_the_table(data):
    (data / "ImagesTr" / "scan [sic].mha").write_bytes(b"")
    assert "scan [sic].mha" in invoke("check", data).stdout
