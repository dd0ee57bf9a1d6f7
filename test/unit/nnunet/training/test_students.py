from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.case import Geometry, Volume
from gc_panther.errors import InputError
from gc_panther.imaging.images import write_image
from gc_panther.nnunet.training.dataset import UNLABELLED, make_splits, patient_of
from gc_panther.nnunet.training.jobs.worker import PredictJob
from gc_panther.nnunet.training.students import (
    label_images,
    pseudo_labels,
    student_splits,
    unlabelled_images,
)
from gc_panther.nnunet.training.workspace import Workspace


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


def test_unlabelled_images_come_in_the_order_of_their_names(tmp_path):
    numbers = [5, 1, 8, 3, 7, 2, 6, 4]
    for number in numbers:
        path = tmp_path / UNLABELLED / f"{number}_0001_0000.mha"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert list(unlabelled_images(tmp_path, [])) == [f"{number}_0001" for number in range(1, 9)]


def test_only_a_channel_at_the_end_of_a_file_name_is_left_out_of_the_case_name(tmp_path):
    for name in ("10092_0000_0000.mha", "10093_0000b.mha", ".10094_0001_0000.mha"):
        write(tmp_path / UNLABELLED / name, 1)
    assert list(unlabelled_images(tmp_path, [])) == ["10092_0000", "10093_0000b"]


@pytest.mark.parametrize(("images", "sizes"), [(3, [1, 1, 1]), (10, [2, 2, 1, 1, 1, 1, 1, 1])])
def test_teachers_share_the_images_out_in_four_jobs_per_job_that_runs(tmp_path, images, sizes):
    jobs = []

    class Engine:
        def threads(self, processes):
            return 3

        def run(self, processes):
            jobs.extend(
                PredictJob.model_validate_json(Path(process.arguments[0]).read_bytes())
                for process in processes
            )
            return []

    space = Workspace(tmp_path, jobs=2, engine=Engine())
    named = {f"case {n}": tmp_path / f"{n}_0000.mha" for n in range(images)}
    out = tmp_path / "out"
    label_images(space, "label", model=tmp_path / "m", folds=(0, 2), images=named, out=out)
    assert [len(job.images) for job in jobs] == sizes
    assert [job.title for job in jobs] == [
        f"label {k + 1} of {len(sizes)}" for k in range(len(sizes))
    ]
    assert {(job.model, job.folds, job.threads) for job in jobs} == {(tmp_path / "m", (0, 2), 3)}
    shared = sorted((one.image, one.label) for job in jobs for one in job.images)
    assert shared == sorted((path, out / f"{case}.mha") for case, path in named.items())


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
