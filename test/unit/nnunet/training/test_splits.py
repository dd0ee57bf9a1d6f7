import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.errors import InputError
from gc_panther.nnunet.training.splits import make_splits, read_splits, student_splits


def patient_of(name):
    return name.split("_")[0]


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
            make_splits(names, folds, seed, patient_of=patient_of)
        return
    splits = make_splits(names, folds, seed, patient_of=patient_of)
    assert splits == make_splits(reversed(names), folds, seed, patient_of=patient_of)
    assert sorted(name for split in splits for name in split["val"]) == sorted(names)
    for split in splits:
        assert sorted(split["train"] + split["val"]) == sorted(names)
        patient = {part: {n.split("_")[0] for n in split[part]} for part in split}
        assert not patient["train"] & patient["val"]


def test_another_seed_gives_another_split():
    names = [str(n) for n in range(20)]
    one, other = (make_splits(names, 5, seed, patient_of=str) for seed in (1, 2))
    assert one != other


def test_where_each_case_is_a_patient_only_the_number_of_cases_counts():
    names = ["a_1", "a_2", "a_3"]
    with pytest.raises(InputError, match="1 patient cannot"):
        make_splits(names, 3, 0, patient_of=patient_of)
    splits = make_splits(names, 3, 0, patient_of=str)
    assert sorted(split["val"] for split in splits) == [[name] for name in names]


NAMES = ["10000_0001", "10000_0002", "10001_0001", "10002_0001"]


def fold(train, val):
    return {"train": train, "val": val}


def test_splits_come_from_a_file(tmp_path):
    folds = [fold(NAMES[:2], NAMES[2:]), fold(NAMES[2:3], NAMES[:2])]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    assert read_splits(tmp_path / "splits_final.json", NAMES, 2, patient_of=patient_of) == folds


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
        read_splits(path, NAMES, 1, patient_of=patient_of)
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_splits_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_splits(tmp_path / "none.json", NAMES, 1, patient_of=patient_of)


cases = st.sets(
    st.tuples(st.integers(10000, 10020), st.integers(1, 3)).map(lambda n: f"{n[0]}_{n[1]:04}")
)


@given(names=cases, pseudo=cases, folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_no_student_learns_from_a_patient_it_is_validated_on(names, pseudo, folds, seed):
    pseudo = pseudo - names
    if len({patient_of(name) for name in names}) < folds:
        return
    splits = make_splits(names, folds, seed, patient_of=patient_of)
    extended = student_splits(splits, pseudo, patient_of=patient_of)
    assert [split["val"] for split in extended] == [split["val"] for split in splits]
    for before, after in zip(splits, extended, strict=True):
        held = {patient_of(name) for name in after["val"]}
        assert not held & {patient_of(name) for name in after["train"]}
        assert set(before["train"]) <= set(after["train"])
        # Nothing else is left out.
        assert set(after["train"]) - set(before["train"]) == {
            name for name in pseudo if patient_of(name) not in held
        }
