import json
import logging
import shutil
from pathlib import Path

import gc_panther_task1
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from gc_panther_task1.rounds import prepare_data
from gc_panther_task1.training import (
    DATASET,
    LABELS,
    Task1Recipe,
    Task1Training,
    _chosen,
)

from gc_panther.errors import ProcessingError, UserError
from gc_panther.nnunet.model.folder import open_model_folder, read_checkpoint
from gc_panther.nnunet.training.jobs.worker import Images, PredictJob, predict
from gc_panther.nnunet.training.models.plans import (
    CONFIGURATION,
    PLANS_NAME,
    make_plans,
    network_of_plans,
)
from gc_panther.nnunet.training.models.transfer import read_weights
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import (
    PLANS_KEY,
    Network,
    Schedule,
    StudentRound,
    load_preset,
)
from gc_panther.nnunet.training.splits import make_splits
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.data.cases import panther_cases, patient_of
from gc_panther.panther.training.recipe import PhantomCases, WarmUp

PACKAGE = Path(gc_panther_task1.__file__).parent
SCHEDULE = Schedule(
    epochs=2,
    learning_rate=0.02,
    iterations_per_epoch=2,
    validation_iterations=1,
    oversample_foreground=1.0,
    optimizer="adamw",
    augmentation="light",
)
NETWORK = Network(
    spacing_zyx=(1, 1, 1),
    patch_zyx=(16, 16, 16),
    features=(4, 8, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    blocks=(1, 1, 1),
    decoder_convs=(1, 1),
)


def test_presets_are_valid_and_the_published_numbers_are_in_them():
    assert set(Task1Training.presets) == {path.stem for path in PACKAGE.glob("*.yaml")}
    for preset in Task1Training.presets:
        assert load_preset("gc_panther_task1", preset, Task1Recipe).folds == 5
    panther = load_preset("gc_panther_task1", "panther", Task1Recipe)
    assert (panther.schedule.epochs, panther.schedule.learning_rate) == (300, 0.005)
    rounds = [(round.schedule.epochs, round.schedule.learning_rate) for round in panther.students]
    assert rounds == [(800, 0.005), (1600, 0.003)]
    assert panther.network.patch_zyx == (48, 160, 224)
    assert panther.network.spacing_zyx == (3.0, 1.1875, 1.1875)
    with pytest.raises(UserError, match="Known: demo, panther"):
        load_preset("gc_panther_task1", "other", Task1Recipe)


def test_the_published_network_has_the_published_size():
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    panther = load_preset("gc_panther_task1", "panther", Task1Recipe)
    architecture = plans_of(panther.network)["configurations"][CONFIGURATION]["architecture"]
    with torch.device("meta"):
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            3,
            allow_init=False,
            deep_supervision=True,
        )
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(102e6, rel=0.01)


def plans_of(network):
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]],
        "shapes_after_crop": [[16, 16, 16]],
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0}},
    }
    return make_plans("Dataset001_Tiny", network, SCHEDULE, fingerprint, {})


@pytest.fixture
def nnunets_lookup(monkeypatch):
    """nnU-Net's search for a trainer, with ``nnUNet_extTrainer`` set to the task's package.

    It first looks through nnU-Net's own trainers; some of those need torchvision, which nothing
    here installs, so that half is taken for searched in vain.
    """
    from nnunetv2.inference import predict_from_raw_data
    from nnunetv2.utilities import find_objects

    search = find_objects.recursive_find_python_class

    def in_external_folders(folder, class_name, current_module, *args, **options):
        if current_module == "nnunetv2.training.nnUNetTrainer":
            return None
        return search(folder, class_name, current_module, *args, **options)

    monkeypatch.setattr(find_objects, "recursive_find_python_class", in_external_folders)
    monkeypatch.setenv("nnUNet_extTrainer", str(PACKAGE))
    lookup = find_objects.recursive_find_trainer_class_by_name
    assert predict_from_raw_data.recursive_find_trainer_class_by_name is lookup
    return lookup


def test_nnunet_finds_the_student_and_the_student_follows_the_recipe(
    tmp_path, monkeypatch, nnunets_lookup
):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    student = nnunets_lookup("nnUNetTrainer_Student")
    plans = {**plans_of(NETWORK), "continue_training": False}
    dataset = {"channel_names": {"0": "MR"}, "labels": LABELS, "file_ending": ".mha"}
    trainer = student(plans, CONFIGURATION, 0, dataset, torch.device("cpu"))
    assert (trainer.num_epochs, trainer.initial_lr) == (2, 0.02)
    assert trainer.num_iterations_per_epoch == 2
    assert trainer.oversample_foreground_percent == 1.0
    assert trainer.my_init_kwargs["plans"][PLANS_KEY]["schedule"]["epochs"] == 2
    trainer.network = torch.nn.Conv3d(1, 1, 1)
    assert isinstance(trainer.configure_optimizers()[0], torch.optim.AdamW)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two patients of 16×16×16 voxels in PANTHER's layout."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:12, 4:12, 4:12] = 2
    label[6:10, 6:10, 6:10] = 1
    for part in ("ImagesTr", "LabelsTr"):
        (folder / part).mkdir()
    for patient in (10000, 10001):
        image = (100 + 20 * label + rng.normal(0, 5, label.shape)).astype(np.int16)
        for array, name in (
            (image, f"ImagesTr/{patient}_0001_0000.mha"),
            (label, f"LabelsTr/{patient}_0001.mha"),
        ):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name))
    return folder


# nnU-Net trains until the second epoch ends.
@pytest.mark.slow
def test_a_training_that_diverges_ends_and_its_checkpoints_are_from_before(
    data, tmp_path, monkeypatch, engine_in_process
):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    step = nnUNetTrainer.train_step

    def poisoned(trainer, batch):
        batch["data"] *= float("nan") if trainer.current_epoch == 1 else 1.0
        return step(trainer, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", poisoned)
    longer = SCHEDULE.model_copy(update={"epochs": 4, "save_every": 1})
    recipe = Task1Recipe(folds=2, schedule=longer, network=NETWORK)
    request = TrainingRequest("tiny", tmp_path / "work", tmp_path / "out", data=data)
    with pytest.raises(ProcessingError, match="diverged: no loss of epoch 2 is finite"):
        Task1Training().train_recipe(recipe, request)
    (fold,) = tmp_path.rglob("fold_0")
    assert not (fold / "checkpoint_final.pth").exists()
    last = read_checkpoint(fold / "checkpoint_latest.pth")
    assert last["current_epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in last["network_weights"].values())


def image_of(folder, case):
    return folder / "ImagesTr" / f"{case}_0000.mha"


# Trains two folds, and one of them again.
@pytest.mark.slow
def test_from_data_to_a_model_folder_that_stock_nnunet_loads(
    data, tmp_path, nnunets_lookup, caplog, engine_in_process
):
    recipe = Task1Recipe(folds=2, schedule=SCHEDULE, network=NETWORK)
    request = TrainingRequest("tiny", tmp_path / "work", tmp_path / "out", data=data, jobs=2)
    model = Task1Training().train_recipe(recipe, request)
    assert model == tmp_path / "out" / "task1"
    assert sorted(path.name for path in model.iterdir()) == [
        "MODEL_CARD.md",
        "dataset.json",
        "fold_0",
        "fold_1",
        "model.json",
        "plans.json",
    ]
    assert "Not for clinical use" in (model / "MODEL_CARD.md").read_text()
    assert "dataset" not in json.loads((model / "dataset.json").read_text())
    card = (model / "MODEL_CARD.md").read_text()
    assert "| Dice |" in card
    assert "validation parts of 1, 1 case, SHA-256 of the splits" in card

    report = tmp_path / "work" / "report" / "task1"
    metrics = json.loads((report / "metrics.json").read_text())
    splits = make_splits(["10000_0001", "10001_0001"], 2, 0, patient_of=patient_of)
    assert [(c["case"], c["fold"]) for c in metrics["cases"]] == [
        (split["val"][0], fold) for fold, split in enumerate(splits)
    ]
    # What the report scores is what each fold's own network predicts.
    for case in metrics["cases"]:
        label = tmp_path / "work" / "validation" / "task1" / f"fold_{case['fold']}"
        again = tmp_path / "again.mha"
        predict(
            PredictJob(
                title="again",
                model=model,
                folds=(case["fold"],),
                images=(Images(image=image_of(data, case["case"]), label=again),),
            )
        )
        assert again.read_bytes() == (label / f"{case['case']}.mha").read_bytes()
        again.unlink()

    checkpoints = [model / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1)]
    contents = [torch.load(path, weights_only=True) for path in checkpoints]
    assert {content["trainer_name"] for content in contents} == {"nnUNetTrainer_Student"}
    assert all("optimizer_state" not in content for content in contents)
    first, second = (read_weights(path) for path in checkpoints)
    assert any(not torch.equal(first[name], second[name]) for name in first)

    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1), "checkpoint_final.pth")
    assert predictor.allowed_mirroring_axes == (0, 1, 2)
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 16)).astype(np.float32)
    labels = predictor.predict_single_npy_array(image, {"spacing": [1.0, 1.0, 1.0]})
    assert labels.shape == (16, 16, 16)

    # Again, without the stages that are finished: the removed fold alone is trained.
    results = next((tmp_path / "work" / "nnUNet_results").glob("*/*"))
    assert results.name == f"nnUNetTrainer_Student__{PLANS_NAME}__{CONFIGURATION}"
    kept = (results / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns
    labels = sorted((tmp_path / "work" / "validation").rglob("*.mha"))
    made = [path.stat().st_mtime_ns for path in labels]
    shutil.rmtree(results / "fold_1")
    (tmp_path / "work" / "finished" / "task1-train.json").unlink()
    with caplog.at_level(logging.INFO):
        Task1Training().train_recipe(recipe, request)
    assert "task1-prepare: finished earlier" in caplog.messages
    assert (results / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns == kept
    assert (results / "fold_1" / "checkpoint_final.pth").is_file()
    again = [path.stat().st_mtime_ns for path in labels]
    assert (again[0] == made[0], again[1] == made[1]) == (True, False)

    with pytest.raises(UserError, match="another recipe"):
        Task1Training().train_recipe(recipe.model_copy(update={"seed": 9}), request)


# Trains a warm-up and two folds.
@pytest.mark.slow
def test_the_folds_start_where_the_warm_up_ended(data, tmp_path, caplog, engine_in_process):
    work = tmp_path / "work"
    # Phantoms that were made earlier: ten small cases, because a round is split into ten.
    for part in ("ImagesTr", "LabelsTr"):
        folder = work / "data" / "warm-up-0" / part
        folder.mkdir(parents=True)
        source = next((data / part).glob("10000_*"))
        for patient in range(10000, 10010):
            shutil.copy(source, folder / source.name.replace("10000", str(patient)))
    (work / "finished").mkdir()
    (work / "finished" / "warm-up-0-phantoms.json").write_text('{"seconds": 1.0}')
    phantoms = PhantomCases(task="task1", cases=10, seed=1)
    recipe = Task1Recipe(
        folds=2,
        schedule=SCHEDULE.model_copy(update={"learning_rate": 1e-9}),
        network=NETWORK,
        warm_up=(WarmUp(phantoms=phantoms, schedule=SCHEDULE),),
    )
    request = TrainingRequest("tiny", work, tmp_path / "out", data=data, jobs=2)
    with caplog.at_level(logging.INFO):
        model = Task1Training().train_recipe(recipe, request)
    assert "warm-up-0-train: begins" in caplog.messages
    start = read_weights(work / "models" / "warm-up-0")
    for fold in (0, 1):
        trained = open_model_folder(model, (fold,)).read_weights(fold)
        assert start.keys() == trained.keys()
        # Trained on with hardly any learning rate, so nothing has moved far from there.
        assert all(torch.allclose(start[name], trained[name], atol=1e-4) for name in start)


# Trains two teachers and two students.
@pytest.mark.slow
def test_students_learn_from_what_their_teachers_labelled(
    data, tmp_path, caplog, engine_in_process
):
    source = tmp_path / "data"
    shutil.copytree(data, source)
    unlabelled = source / "ImagesTr_unlabeled"
    unlabelled.mkdir()
    image = next((data / "ImagesTr").glob("10000_*"))
    # Another study of a labelled patient, and two further patients.
    names = ("10000_0002", "10050_0001", "10051_0001")
    for name in names:
        shutil.copy(image, unlabelled / f"{name}_0000.mha")
    student = StudentRound(
        schedule=SCHEDULE.model_copy(update={"learning_rate": 1e-9}), start="teacher"
    )
    longer = SCHEDULE.model_copy(update={"epochs": 6})
    recipe = Task1Recipe(folds=2, schedule=longer, network=NETWORK, students=(student,))
    work = tmp_path / "work"
    request = TrainingRequest("tiny", work, tmp_path / "out", data=source, jobs=2)
    with caplog.at_level(logging.INFO):
        model = Task1Training().train_recipe(recipe, request)
    assert "task1-students-1: 3 pseudo-labelled cases, 0 dropped as pure background" in (
        caplog.messages
    )
    assert "3 pseudo-labelled cases" in (model / "MODEL_CARD.md").read_text()
    splits = json.loads(
        (work / "nnUNet_preprocessed/Dataset121_PantherStudents/splits_final.json").read_text()
    )
    train = {tuple(split["val"]): set(split["train"]) for split in splits}
    assert train == {
        ("10000_0001",): {"10001_0001", *names[1:]},
        ("10001_0001",): {"10000_0001", *names},
    }
    # Started from the teachers and hardly moved.
    name = f"nnUNetTrainer_Student__{PLANS_NAME}__{CONFIGURATION}"
    teachers = work / "nnUNet_results" / "Dataset101_PantherTask1" / name
    for fold in (0, 1):
        teacher = read_weights(teachers / f"fold_{fold}" / "checkpoint_final.pth")
        trained = open_model_folder(model, (fold,)).read_weights(fold)
        assert all(torch.allclose(teacher[key], trained[key], atol=1e-4) for key in teacher)
    plans = json.loads((model / "plans.json").read_text())
    assert plans["dataset_name"] == "Dataset121_PantherStudents"
    assert plans[PLANS_KEY]["pseudo_labelled"] == 3
    assert plans[PLANS_KEY]["schedule"]["learning_rate"] == 1e-9


def test_students_without_unlabelled_images_are_refused_before_any_work(data, tmp_path):
    request = TrainingRequest("panther", tmp_path / "work", tmp_path / "out", data=data)
    with pytest.raises(UserError, match="--labelled-only"):
        Task1Training().train(request)
    assert not (tmp_path / "work" / "nnUNet_raw").exists()


def test_nnunet_plans_the_network_where_it_is_asked_to(data, tmp_path, engine_in_process):
    recipe = Task1Recipe(folds=2, schedule=SCHEDULE, network=NETWORK)
    # Two patients are no data for a network of 100 million parameters: only prepared, not trained.
    recipe = _chosen(recipe, TrainingRequest("t", tmp_path, tmp_path, resenc="M"))
    assert recipe.network == "M"
    space = Workspace(tmp_path / "work", engine=engine_in_process)
    cases = panther_cases(data)
    splits = make_splits([case.name for case in cases], 2, 0, patient_of=patient_of)
    prepare_data(
        space,
        cases=cases,
        dataset=DATASET,
        network=recipe.network,
        schedule=SCHEDULE,
        splits=splits,
        facts={"seed": 3},
    )
    folder = tmp_path / "work" / "nnUNet_preprocessed" / DATASET
    plans = json.loads((folder / f"{PLANS_NAME}.json").read_text())
    assert plans["experiment_planner_used"] == "nnUNetPlannerResEncM"
    assert list(plans["configurations"]) == [CONFIGURATION]
    assert plans[PLANS_KEY]["seed"] == 3
    assert network_of_plans(plans).patch_zyx == (16, 16, 16)
    assert len(list((folder / f"{PLANS_NAME}_{CONFIGURATION}").glob("*.pkl"))) == 2


def test_a_planned_network_does_not_go_with_a_warm_up(tmp_path):
    request = TrainingRequest("demo", tmp_path / "work", tmp_path / "out", resenc="L")
    with pytest.raises(UserError, match="warm-up"):
        Task1Training().train(request)


def test_a_preset_without_phantoms_asks_for_data(tmp_path):
    request = TrainingRequest("panther", tmp_path / "work", tmp_path / "out")
    with pytest.raises(UserError, match="--data"):
        Task1Training().train(request)


def test_a_missing_model_to_start_from_is_named(tmp_path, data):
    request = TrainingRequest(
        "panther",
        tmp_path / "work",
        tmp_path / "out",
        data=data,
        start_from=tmp_path / "none",
        labelled_only=True,
    )
    with pytest.raises(UserError, match="no such model folder"):
        Task1Training().train(request)
