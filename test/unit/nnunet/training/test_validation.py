import csv
import json
import re

import numpy as np
import pytest
import torch

from gc_panther.nnunet.training import validation
from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.nnunet.training.validation import (
    PICTURES,
    FoldScore,
    Picture,
    curves_of,
    draw_curves,
    write_report,
)
from gc_panther.panther.evaluation.metrics import CaseScore

EPOCHS = 3


def case(number, dice, *, empty=False):
    score = CaseScore(f"1000{number}_0001", dice, dice, 5.0, 2.0, -30.0, 70.0, 100.0, empty)
    return FoldScore(number % 2, score)


CASES = (case(0, 0.9), case(1, 0.2), case(2, 0.0, empty=True), case(3, 0.7))
CURVES = [
    {"train_losses": [1.0, 0.5, 0.2], "val_losses": [1.1, 0.7, 0.6], "pseudo_dice": [0, 0.3, 0.6]}
] * 2


def test_the_files_of_a_report(tmp_path):
    write_report(tmp_path, "task1", CASES, CURVES)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cases.csv",
        "curves.png",
        "metrics.json",
        "report.html",
    ]
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["summary"]["dice"]["value"] == pytest.approx(0.45)
    assert document["summary"]["empty"] == 1
    assert [entry["fold"] for entry in document["cases"]] == [0, 1, 0, 1]
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["fold"], row["case"], float(row["dice"])) for row in rows] == [
        (str(c.fold), c.score.case, c.score.dice) for c in CASES
    ]


def test_the_page_holds_everything_and_begins_with_the_worst(tmp_path):
    write_report(tmp_path, "<task>", CASES, CURVES)
    page = (tmp_path / "report.html").read_text()
    assert "<h1>&lt;task&gt;: cross-validation</h1>" in page
    assert re.findall(r'src="(.{22})', page) == ["data:image/png;base64,"]
    assert "http" not in page
    assert "0.450<br>" in page
    assert "1 predictions are empty" in page
    listed = re.findall(r"(1000\d_0001) \(fold (\d)\)", page)
    assert listed == [
        ("10002_0001", "0"),
        ("10001_0001", "1"),
        ("10003_0001", "1"),
        ("10000_0001", "0"),
    ]
    assert '<tr class="empty"><th>10002_0001' in page


def test_the_worst_cases_are_shown_with_both_outlines(tmp_path, write_volume, monkeypatch):
    label = np.zeros((5, 6, 7), np.uint8)
    label[2:4, 2:5, 2:5] = 1
    image = write_volume(tmp_path / "image.mha")
    reference = write_volume(tmp_path / "reference.mha", label)
    predicted = write_volume(tmp_path / "predicted.mha", label * 3)
    drawn = []

    def draw(image, mask, *, reference, title):
        drawn.append((title, int(mask.array_zyx.sum()), int(reference.array_zyx.sum())))
        return draw_curves(CURVES)

    monkeypatch.setattr("gc_panther.report.overlay.draw_overlay", draw)
    scores = [case(number, number / 10) for number in range(PICTURES + 2)]
    pictures = [
        Picture(score, LabelledCase(score.score.case, image, reference), predicted, 3)
        for score in reversed(scores)
    ]
    write_report(tmp_path / "out", "task1", scores, CURVES, pictures)
    assert [title for title, *_ in drawn] == [
        f"1000{n}_0001, fold {n % 2}: Dice {n / 10:.3f}" for n in range(PICTURES)
    ]
    assert {sums for _, *sums in map(list, drawn) for sums in [tuple(sums)]} == {(18, 18)}


def test_curves_are_nnunets(tmp_path):
    logged = {
        "train_losses": [np.float32(1.0), np.float32(0.5), np.float32(0.25)],
        "val_losses": [1.5, 1.0, 0.5],
        "dice_per_class_or_region": [[0.0, 0.2], [np.nan, 0.4], [np.nan, np.nan]],
    }
    logged = {name: np.asarray(values).tolist() for name, values in logged.items()}
    (tmp_path / "fold_0").mkdir()
    content = {"network_weights": {}, "logging": logged}
    torch.save(content, tmp_path / "fold_0" / "checkpoint_final.pth")
    (curves,) = curves_of(tmp_path, 1)
    assert curves == {
        "train_losses": [1.0, 0.5, 0.25],
        "val_losses": [1.5, 1.0, 0.5],
        "pseudo_dice": pytest.approx([0.1, 0.4, 0.0]),
    }


def test_every_fold_has_its_curves():
    losses, dice = draw_curves(CURVES).axes
    assert len(losses.lines) == 2 * len(CURVES)
    assert [line.get_ydata().tolist() for line in dice.lines] == [[0, 0.3, 0.6]] * 2


def test_a_label_map_older_than_its_network_is_forgotten(tmp_path):
    label, checkpoint = tmp_path / "label.mha", tmp_path / "checkpoint_final.pth"
    checkpoint.touch()
    label.touch()
    validation._forget_older(label, checkpoint)
    assert label.is_file()
    checkpoint.write_bytes(b"trained again")
    validation._forget_older(label, checkpoint)
    assert not label.is_file()
