import json

import pytest

from gc_panther.errors import InputError
from gc_panther.nnunet.training.dataset import write_raw_dataset
from gc_panther.panther.data.cases import panther_cases, patient_of, unlabelled_images
from gc_panther.panther.data.layout import UNLABELLED


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


def touch(path):
    path.parent.mkdir(exist_ok=True)
    path.touch()


def test_unlabelled_images_are_found_by_case(tmp_path):
    for name in ("10092_0001_0000.mha", "10093_0002_0000.mha"):
        touch(tmp_path / UNLABELLED / name)
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
        touch(tmp_path / UNLABELLED / name)
    assert list(unlabelled_images(tmp_path, [])) == ["10092_0000", "10093_0000b"]


def test_a_folder_without_unlabelled_images_says_how_to_go_on(tmp_path):
    with pytest.raises(InputError, match="--labelled-only"):
        unlabelled_images(tmp_path, [])


def test_studies_of_one_patient():
    assert patient_of("10000_0001") == patient_of("10000_0002") == "10000"
    assert patient_of("10303") == "10303"
