"""A work folder refuses other data, another start and other splits than it was begun with."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import tiny_models
from gc_panther_task1.training import Task1Recipe, Task1Training
from gc_panther_task2.training import Task2Recipe, Task2Training
from tiny_models import NETWORK, SCHEDULE, add_case, write_model

from gc_panther.errors import UserError
from gc_panther.nnunet.training import record
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import StudentRound

RECIPE = Task1Recipe(folds=2, schedule=SCHEDULE, network=NETWORK)
STUDENTS = RECIPE.model_copy(update={"students": (StudentRound(schedule=SCHEDULE),)})


class AcceptedError(Exception):
    """The training has begun."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Trainings end where their first round would begin."""

    def begin(*_args, **_kwargs):
        raise AcceptedError

    monkeypatch.setattr("gc_panther_task1.training.train_rounds", begin)
    monkeypatch.setattr("gc_panther_task2.training._train_folds", begin)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    add_case(folder, "10000_0001", seed=1)
    add_case(folder, "10001_0001", seed=2)
    return folder


@pytest.fixture
def request_(tmp_path, data):
    return TrainingRequest("tiny", tmp_path / "work", tmp_path / "out", data=data)


def begin(request, recipe=RECIPE):
    with pytest.raises(AcceptedError):
        Task1Training().train_recipe(recipe, request)


def refused(request, what, recipe=RECIPE):
    with pytest.raises(UserError, match=what) as caught:
        Task1Training().train_recipe(recipe, request)
    return caught.value


def test_the_same_data_go_on(request_):
    begin(request_)
    begin(request_)


def test_a_folder_of_an_earlier_version_is_refused_in_one_line(request_):
    begin(request_)
    path = request_.work / record.RECORD
    document = json.loads(path.read_text())
    # Of a key that recipes no longer have.
    document["recipe"]["schedule"]["precision"] = "float32"
    path.write_text(json.dumps(document))
    error = refused(request_, r"begun with another recipe \(schedule\)")
    assert "\n" not in str(error)


def add(data):
    add_case(data, "10002_0001")


def remove(data):
    (data / "ImagesTr" / "10001_0001_0000.mha").unlink()
    (data / "LabelsTr" / "10001_0001.mha").unlink()


def change_pixels(data):
    path = data / "ImagesTr" / "10001_0001_0000.mha"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    # As a copy that keeps the times does.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def unknown_value(data):
    path = data / "LabelsTr" / "10001_0001.mha"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    tiny_models.write_image(path, (array + 7).astype(np.uint8))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (add, r"other data \(2 files added since, such as ImagesTr/10002_0001_0000.mha\)"),
        (remove, r"other data \(2 files missing now, such as ImagesTr/10001_0001_0000.mha\)"),
        (change_pixels, r"other data \(ImagesTr/10001_0001_0000.mha changed since\)"),
        (unknown_value, r"other data \(LabelsTr/10001_0001.mha changed since\)"),
    ],
)
def test_other_data_are_refused(request_, data, change, what):
    begin(request_)
    change(data)
    error = refused(request_, what)
    assert error.where == str(request_.work)
    assert "--work" in error.fix


def test_data_are_known_by_their_content_not_by_their_folder(request_, data, tmp_path):
    begin(request_)
    shutil.copytree(data, tmp_path / "copy")
    begin(replace(request_, data=tmp_path / "copy"))


def test_unlabelled_images_count_only_where_they_are_used(request_, data):
    begin(request_)
    add_case(data, "10009_0001", labelled=False)
    begin(request_)
    students = replace(request_, work=request_.work.with_name("students"))
    begin(students, STUDENTS)
    add_case(data, "10010_0001", labelled=False)
    refused(students, "ImagesTr_unlabeled/10010_0001_0000.mha added since", STUDENTS)


def test_another_start_is_refused(request_, tmp_path):
    first, second = (write_model(tmp_path / f"m{n}", seed=n) for n in (1, 2))
    started = replace(request_, start_from=first)
    begin(started)
    begin(started)
    what = r"another model to start from \(fold_0/checkpoint_final.pth changed since\)"
    refused(replace(request_, start_from=second), what)
    refused(request_, r"another model to start from \(\d files, none now\)")
    # What people read about a model does not matter.
    (first / "MODEL_CARD.md").write_text("# Another card")
    begin(started)


def test_other_splits_and_another_recipe_are_refused_by_name(request_, tmp_path):
    begin(request_)
    splits = tmp_path / "splits.json"
    one, other = ["10000_0001"], ["10001_0001"]
    splits.write_text(json.dumps([{"train": one, "val": other}, {"train": other, "val": one}]))
    refused(replace(request_, splits=splits), "begun with other splits")
    changed = RECIPE.model_copy(update={"seed": 9})
    refused(request_, r"begun with another recipe \(seed\)", changed)


def test_a_folder_of_an_earlier_version_is_refused(request_):
    begin(request_)
    path = request_.work / "recipe.json"
    document = json.loads(path.read_text())
    del document["files"]
    path.write_text(json.dumps(document))
    refused(request_, "earlier version of gc-panther")


def test_data_that_cannot_be_trained_on_do_not_claim_the_folder(request_, data):
    unknown_value(data)
    refused(request_, "unknown label values: 7")
    assert not request_.work.exists()
    shutil.copy(data / "LabelsTr" / "10000_0001.mha", data / "LabelsTr" / "10001_0001.mha")
    begin(request_)


def test_wrong_splits_do_not_claim_the_folder(request_, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text("[]")
    refused(replace(request_, splits=splits), "0 folds")
    begin(request_)


def test_students_without_images_can_be_left_out_in_the_same_folder(request_):
    refused(request_, "no unlabelled images", STUDENTS)
    begin(replace(request_, labelled_only=True), STUDENTS)


def test_resuming_reads_no_file_again(request_, monkeypatch):
    # Files of a moment ago may still change unnoticed, so theirs are not kept.
    monkeypatch.setattr(record, "SETTLED", -(10**15))
    begin(request_)

    def read(*_):
        raise AssertionError("a file is read again")

    monkeypatch.setattr(record.hashlib, "file_digest", read)
    begin(request_)


def test_a_file_of_a_moment_ago_is_read_again(request_):
    begin(request_)
    assert not (request_.work / record.DIGESTS).exists()


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": 1}', "\x00"])
def test_damaged_digests_are_made_again(request_, monkeypatch, content):
    monkeypatch.setattr(record, "SETTLED", -(10**15))
    request_.work.mkdir()
    (request_.work / record.DIGESTS).write_text(content)
    begin(request_)
    begin(request_)


def test_a_file_that_cannot_be_read_is_named(request_, data):
    begin(request_)
    path = data / "LabelsTr" / "10001_0001.mha"
    path.unlink()
    path.mkdir()
    assert refused(request_, "cannot be read").where == str(path)


def test_macos_companions_are_no_cases(request_, data):
    for part, name in (("ImagesTr", "._10000_0001_0000.mha"), ("LabelsTr", "._10000_0001.mha")):
        (data / part / name).write_bytes(b"\x00\x05\x16\x07")
    begin(request_)


def test_task_2_refuses_other_data_another_start_and_another_localizer(tmp_path, monkeypatch):
    data = tmp_path / "data"
    add_case(data, "10303")
    add_case(data, "10304", seed=4)
    first, second = (write_model(tmp_path / f"m{n}", seed=n) for n in (1, 2))
    localizers = [write_model(tmp_path / f"l{n}", seed=n) for n in (3, 4)]
    recipe = Task2Recipe(folds=2, schedule=SCHEDULE, crops="localizer")
    request = TrainingRequest("t", tmp_path / "w", tmp_path, data=data, start_from=first)

    def train(localizer=localizers[0], request=request):
        monkeypatch.setattr("gc_panther_task2.training.find_model", lambda *_: localizer)
        Task2Training().train_recipe(recipe, request)

    for _ in range(2):
        with pytest.raises(AcceptedError):
            train()
    with pytest.raises(UserError, match="begun with another localizer"):
        train(localizers[1])
    with pytest.raises(UserError, match="begun with another model to start from"):
        train(request=replace(request, start_from=second))
    (data / "LabelsTr" / "10304.mha").unlink()
    (data / "ImagesTr" / "10304_0000.mha").unlink()
    with pytest.raises(UserError, match="begun with other data"):
        train()
