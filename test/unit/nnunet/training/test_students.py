import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.images import write_image
from gc_panther.nnunet.training.dataset import UNLABELLED, make_splits, patient_of
from gc_panther.nnunet.training.students import pseudo_labels, student_splits, unlabelled_images


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((2, 3, 4), value, np.uint8)
    write_image(Volume(array, Geometry((4, 3, 2), (1.0, 1.0, 1.0))), path)


def test_unlabelled_images_are_found_by_case(tmp_path):
    for name in ("10092_0001_0000.mha", "10093_0002_0000.mha"):
        write(tmp_path / UNLABELLED / name, 1)
    images = unlabelled_images(tmp_path, ["10000_0001"])
    assert list(images) == ["10092_0001", "10093_0002"]
    assert images["10092_0001"].is_file()
    with pytest.raises(InputError, match="10093_0002"):
        unlabelled_images(tmp_path, ["10093_0002"])


def test_a_folder_without_unlabelled_images_says_how_to_go_on(tmp_path):
    with pytest.raises(InputError, match="--labelled-only"):
        unlabelled_images(tmp_path, [])


def test_label_maps_of_pure_background_are_dropped_and_counted(tmp_path):
    images = {name: tmp_path / f"{name}_0000.mha" for name in ("a", "b", "c")}
    for name, value in (("a", 0), ("b", 2), ("c", 1)):
        write(tmp_path / f"{name}.mha", value)
    found = pseudo_labels(images, tmp_path)
    assert [case.name for case in found.cases] == ["b", "c"]
    assert found.cases[0].image == images["b"]
    assert found.dropped == ("a",)
    assert str(found) == "2 pseudo-labelled cases, 1 dropped as pure background"
    assert not pseudo_labels({"a": images["a"]}, tmp_path).cases


cases = st.sets(
    st.tuples(st.integers(10000, 10020), st.integers(1, 3)).map(lambda n: f"{n[0]}_{n[1]:04}")
)


@given(names=cases, pseudo=cases, folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_no_student_learns_from_a_patient_it_is_validated_on(names, pseudo, folds, seed):
    pseudo = pseudo - names
    if len({patient_of(name) for name in names}) < folds:
        return
    splits = make_splits(names, folds, seed)
    extended = student_splits(splits, pseudo)
    assert [split["val"] for split in extended] == [split["val"] for split in splits]
    for before, after in zip(splits, extended, strict=True):
        held = {patient_of(name) for name in after["val"]}
        assert not held & {patient_of(name) for name in after["train"]}
        assert set(before["train"]) <= set(after["train"])
        # Nothing else is left out.
        assert set(after["train"]) - set(before["train"]) == {
            name for name in pseudo if patient_of(name) not in held
        }
