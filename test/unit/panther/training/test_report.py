import csv
import json
import re

import numpy as np
import pytest

from gc_panther.nnunet.training.cross_validation import HeldOut, draw_curves
from gc_panther.nnunet.training.dataset import LabelledCase
from gc_panther.panther.evaluation.metrics import CaseScore
from gc_panther.panther.training.report import PICTURES, FoldScore, Picture, write_report


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
    assert "1 prediction is empty." in page
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
        Picture(
            score,
            HeldOut(score.fold, LabelledCase(score.score.case, image, reference), predicted),
            3,
        )
        for score in reversed(scores)
    ]
    write_report(tmp_path / "out", "task1", scores, CURVES, pictures)
    assert [title for title, *_ in drawn] == [
        f"1000{n}_0001, fold {n % 2}: Dice {n / 10:.3f}" for n in range(PICTURES)
    ]
    assert {sums for _, *sums in map(list, drawn) for sums in [tuple(sums)]} == {(18, 18)}
