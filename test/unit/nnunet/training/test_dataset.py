import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.errors import InputError
from gc_panther.nnunet.training.dataset import (
    make_splits,
    panther_cases,
    read_splits,
    write_raw_dataset,
)


@given(
    patients=st.integers(2, 30),
    studies=st.integers(1, 3),
    folds=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_splits_are_deterministic_disjoint_and_keep_patients_together(
    patients, studies, folds, seed
):
    names = [f"{10000 + p}_{s:04d}" for p in range(patients) for s in range(studies)]
    if patients < folds:
        with pytest.raises(InputError):
            make_splits(names, folds, seed)
        return
    splits = make_splits(names, folds, seed)
    assert splits == make_splits(reversed(names), folds, seed)
    assert sorted(name for split in splits for name in split["val"]) == sorted(names)
    for split in splits:
        assert sorted(split["train"] + split["val"]) == sorted(names)
        patient = {part: {n.split("_")[0] for n in split[part]} for part in split}
        assert not patient["train"] & patient["val"]


def test_another_seed_gives_another_split():
    names = [str(n) for n in range(20)]
    assert make_splits(names, 5, 1) != make_splits(names, 5, 2)


def panther_folder(root, images, labels):
    for folder, names in (("ImagesTr", images), ("LabelsTr", labels)):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return root


def test_panthers_layout_is_read_by_name(tmp_path):
    folder = panther_folder(
        tmp_path,
        ["10001_0001_0000.mha", "10000_0001_0000.mha"],
        ["10000_0001.mha", "10001_0001.mha"],
    )
    cases = panther_cases(folder)
    assert [case.name for case in cases] == ["10000_0001", "10001_0001"]
    write_raw_dataset(tmp_path / "raw", cases, {"background": 0, "tumour": 1})
    document = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert document["numTraining"] == 2
    assert document["dataset"]["10000_0001"]["images"] == [str(cases[0].image)]


def test_an_image_without_labels_is_named(tmp_path):
    panther_folder(tmp_path, ["10000_0001_0000.mha"], [])
    with pytest.raises(InputError, match="10000_0001"):
        panther_cases(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="ImagesTr"):
        panther_cases(tmp_path)


NAMES = ["10000_0001", "10000_0002", "10001_0001", "10002_0001"]


def fold(train, val):
    return {"train": train, "val": val}


def test_splits_come_from_a_file(tmp_path):
    folds = [fold(NAMES[:2], NAMES[2:]), fold(NAMES[2:3], NAMES[:2])]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert read_splits(tmp_path / "splits_final.json", NAMES, 2) == folds


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("no json", "cannot be read"),
        ("{}", "0 folds, the recipe 1"),
        ('["train"]', "cannot be read"),
        (json.dumps([{"train": NAMES}]), "cannot be read"),
        (json.dumps([fold(NAMES[:2], NAMES[2:])] * 2), "2 folds, the recipe 1"),
        (json.dumps([fold(NAMES, [])]), "a part of fold 0 is empty"),
        (json.dumps([fold(NAMES[:3], ["10009_0001"])]), "1 unknown case, such as 10009_0001"),
        (json.dumps([fold(NAMES[1:], NAMES[:1])]), "patient 10000 is in both parts of fold 0"),
    ],
)
def test_splits_that_cannot_be_used_say_why(document, reason, tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(document)
    with pytest.raises(InputError, match=reason) as caught:
        read_splits(path, NAMES, 1)
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_splits_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_splits(tmp_path / "none.json", NAMES, 1)
