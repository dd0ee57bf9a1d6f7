"""Every round is reported; the best one by cross-validation is exported, and said to be."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from gc_panther_task1 import rounds as task1_rounds
from gc_panther_task1 import training as task1_training
from gc_panther_task1.training import Task1Recipe, Task1Training
from tiny_models import LABELS, NETWORK, SCHEDULE, add_case, write_image

from gc_panther.nnunet.training.dataset import raw_cases
from gc_panther.nnunet.training.jobs.worker import PredictJob
from gc_panther.nnunet.training.pipeline import TrainingRequest
from gc_panther.nnunet.training.recipe import StudentRound
from gc_panther.nnunet.training.workspace import Workspace
from gc_panther.panther.evaluation.metrics import CaseScore
from gc_panther.panther.training.report import FoldScore
from gc_panther.panther.training.rounds import (
    RoundResult,
    best_round,
    describe_choice,
    rounds_document,
    rounds_table,
)
from gc_panther.panther.training.validation import Validation


def validation(tmp_path, *dice):
    cases = [
        FoldScore(n % 2, CaseScore(f"c{n}", value, value, 1.0, 1.0, 0.0, 1.0, 1.0, value == 0))
        for n, value in enumerate(dice)
    ]
    return Validation(tuple(cases), tmp_path / "report.html")


def result(tmp_path, name, *dice):
    return RoundResult(name, name, f"Dataset_{name}", validation(tmp_path, *dice))


def test_the_best_round_and_of_equal_ones_the_later(tmp_path):
    first = result(tmp_path, "labelled cases", 0.6, 0.8)
    worse = result(tmp_path, "students 1", 0.0, 0.9)
    equal = result(tmp_path, "students 2", 0.8, 0.6)
    assert best_round([first, worse]) is first
    assert best_round([first, worse, equal]) is equal
    assert best_round([worse]) is worse


def test_what_is_said_about_the_choice(tmp_path):
    rounds = [result(tmp_path, "labelled cases", 0.6, 0.8), result(tmp_path, "students 1", 0, 0.9)]
    assert describe_choice(rounds) == (
        "mean Dice of the cross-validation: labelled cases 0.700, students 1 0.450; "
        "exported: labelled cases; the last round is worse"
    )
    rows = rounds_table(rounds).splitlines()
    assert rows[2].startswith("| labelled cases | 0.700 |")
    assert rows[2].endswith("| 0 | exported |")
    assert rows[3].startswith("| students 1 | 0.450 |")
    assert rows[3].endswith("| 1 |  |")
    assert rounds_document(rounds) == {
        "exported": "labelled cases",
        "rounds": [
            {"name": "labelled cases", "mean_dice": 0.7, "cases": 2, "empty": 0},
            {"name": "students 1", "mean_dice": 0.45, "cases": 2, "empty": 1},
        ],
    }


class Teachers:
    """An engine that writes what teachers would label, and trains nothing."""

    def __init__(self, value):
        self.value, self.titles = value, []

    def threads(self, _processes):
        return 1

    def run(self, processes):
        for process in processes:
            self.titles.append(process.title)
            job = json.loads(Path(process.arguments[0]).read_text())
            if job["kind"] == "predict":
                for images in PredictJob.model_validate(job).images:
                    write_image(images.label, np.full((16, 16, 16), self.value, np.uint8))
        return []


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run a training whose rounds reach given Dice, and whose teachers label with a value."""
    data = tmp_path / "data"
    for seed, name in enumerate(("10000_0001", "10001_0001")):
        add_case(data, name, seed=seed)
    add_case(data, "10050_0001", seed=2, labelled=False)
    exported = {}

    def run(dice, *, value=1, students=1, data=data):
        engine = Teachers(value)
        reports = []

        def cross_validate(_space, *, title, **_):
            reports.append(title)
            number = title.removeprefix("task1").removeprefix("-students-") or "0"
            return validation(tmp_path, *[dice[int(number)]] * 2)

        def export(results, folds, out, *, card, extra, identity):
            exported.update(results=results, folds=folds, card=card, extra=extra)
            return out

        monkeypatch.setattr("gc_panther.nnunet.training.workspace.make_engine", lambda *_: engine)
        monkeypatch.setattr(task1_rounds, "cross_validate", cross_validate)
        monkeypatch.setattr(Workspace, "splits", lambda *_: [{"train": ["a"], "val": ["b"]}])
        monkeypatch.setattr(task1_training, "export_model", export)
        monkeypatch.setattr("gc_panther_task1.card.pseudo_dice", lambda *_: {"tumour": 0.5})
        recipe = Task1Recipe(
            folds=2,
            schedule=SCHEDULE,
            network=NETWORK,
            students=(StudentRound(schedule=SCHEDULE, start="teacher"),) * students,
        )
        request = TrainingRequest("t", tmp_path / "work", tmp_path / "out", data=data)
        folder = Task1Training().train_recipe(recipe, request)
        assert folder == tmp_path / "out" / "task1"
        return exported, reports, engine.titles

    return run


def test_students_that_are_worse_are_reported_but_not_exported(train, caplog):
    with caplog.at_level(logging.INFO):
        exported, reports, titles = train([0.7, 0.5])
    assert reports == ["task1", "task1-students-1"]
    assert "task1-students-1 fold 1" in titles
    assert "Dataset101_PantherTask1" in str(exported["results"])
    assert exported["extra"]["rounds.json"]["exported"] == "labelled cases"
    said = "exported: labelled cases; the last round is worse"
    assert any(said in message for message in caplog.messages)
    assert said in exported["card"]
    assert "| students 1 | 0.500 |" in exported["card"]
    # The card describes the exported networks, which no student's schedule has made.
    assert "round 1 of students: 1 epoch of" not in exported["card"]


def test_the_best_of_several_rounds_is_exported(train):
    exported, reports, _ = train([0.5, 0.8, 0.7], students=2)
    assert len(reports) == 3
    assert "Dataset121_PantherStudents" in str(exported["results"])
    assert exported["extra"]["rounds.json"]["exported"] == "students 1"
    assert "round 1 of students: 1 epoch of" in exported["card"]
    assert "round 2 of students: 1 epoch of" not in exported["card"]


def test_without_students_there_is_nothing_to_choose(train):
    exported, reports, _ = train([0.5], students=0)
    assert reports == ["task1"]
    assert exported["extra"] is None
    assert "## Rounds" not in exported["card"]


def test_teachers_that_see_only_background_are_exported(train, caplog):
    with caplog.at_level(logging.INFO):
        exported, reports, titles = train([0.4], value=0, students=2)
    assert reports == ["task1"]
    assert not [title for title in titles if "students-1 fold" in title]
    assert "Dataset101_PantherTask1" in str(exported["results"])
    (warning,) = [m for m in caplog.messages if "nothing but background" in m]
    assert "the best round so far is exported" in warning
    assert "0 pseudo-labelled cases, 1 dropped as pure background" in exported["card"]
    # The same command again says the same, instead of a dead end.
    assert train([0.4], value=0, students=2)[1] == ["task1"]


def test_data_that_were_moved_are_found_where_they_are(train, tmp_path):
    train([0.4, 0.5])
    (tmp_path / "data").rename(tmp_path / "moved")
    train([0.4, 0.5], data=tmp_path / "moved")
    for dataset in ("Dataset101_PantherTask1", "Dataset121_PantherStudents"):
        cases = raw_cases(tmp_path / "work" / "nnUNet_raw" / dataset)
        assert all(case.image.is_file() and case.label.is_file() for case in cases)


def test_labels_are_those_of_the_task():
    assert task1_rounds.LABELS == LABELS
