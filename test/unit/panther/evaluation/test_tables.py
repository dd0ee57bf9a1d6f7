import csv
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gc_panther.panther.evaluation.metrics import CaseScore
from gc_panther.panther.evaluation.tables import (
    as_document,
    markdown_summary,
    summarise,
    terminal_table,
    write_csv,
    write_scores,
)


def score(case="a", dice=0.5, error=0.0, hd95=4.0, masd=1.0, empty=False):
    return CaseScore(case, dice, dice, hd95, masd, error, 1000.0 + error, 1000.0, empty)


SCORES = [score("a", 0.9, 300.0), score("b", 0.5, -400.0), score("c", 0.1, 0.0, 50.0, 20.0, True)]


def test_means_root_mean_square_and_worst_case():
    summary = summarise(SCORES)
    dice, volume = summary.estimates["dice"], summary.estimates["volume_rmse_mm3"]

    assert (summary.cases, summary.empty) == (3, 1)
    assert dice.value == pytest.approx(0.5)
    assert dice.worst == 0.1
    assert volume.value == pytest.approx(math.sqrt((300**2 + 400**2) / 3))
    assert volume.worst == -400.0
    assert summary.estimates["hd95_mm"].worst == 50.0


def test_the_interval_is_seeded_and_resamples_cases():
    rng = np.random.default_rng(3)
    many = [score(dice=value) for value in rng.normal(0.7, 0.1, 400)]
    assert summarise(many) == summarise(many)
    assert summarise(many, seed=1) != summarise(many)

    estimate = summarise(many).estimates["dice"]
    # The normal approximation of a mean's 95 % interval: ± 1.96 · 0.1 / √400.
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)


@settings(max_examples=30)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12))
def test_the_interval_stays_within_the_cases(values):
    estimate = summarise([score(dice=value) for value in values], resamples=200).estimates["dice"]
    assert min(values) - 1e-12 <= estimate.low <= estimate.high <= max(values) + 1e-12


def test_one_case_has_no_interval():
    estimate = summarise([score()]).estimates["dice"]
    assert estimate.value == 0.5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_no_case_is_an_error():
    with pytest.raises(ValueError, match="no scores"):
        summarise([])


def test_json_round_trip_turns_undefined_numbers_into_null(tmp_path):
    scores = [*SCORES, score("d", hd95=math.inf, masd=math.nan)]
    path = tmp_path / "scores.json"
    write_scores(path, scores, challenge_compatible=True)
    document = json.loads(path.read_text())

    assert document["challenge_compatible"] is True
    assert [CaseScore(**case) for case in document["cases"][:3]] == SCORES
    assert document["cases"][3]["hd95_mm"] is None
    assert document["cases"][3]["masd_mm"] is None
    assert document["summary"]["hd95_mm"]["value"] is None
    assert document["summary"]["dice"]["value"] == pytest.approx(0.5)
    assert document["summary"]["empty"] == 1


def test_csv_round_trip_is_exact(tmp_path):
    scores = [score("a,b", dice=1 / 3, error=-1e-7), *SCORES]
    path = tmp_path / "scores.csv"
    write_csv(path, scores)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))

    assert [row["case"] for row in rows] == ["a,b", "a", "b", "c"]
    assert [float(row["dice"]) for row in rows] == [case.dice for case in scores]
    assert float(rows[0]["volume_error_mm3"]) == -1e-7
    assert rows[3]["empty"] == "True"


def cells(table):
    """The texts of a Rich table's rows, its header included."""
    console = Console(width=160, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    rows = [re.split("[│┃]", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in rows if row]


# Of 27 equally likely draws of three cases one takes the same case three times. That is more than
# 2.5 %, so that the intervals end at the best and the worst case.
def test_the_terminal_gets_a_row_per_case_and_the_summary():
    table = terminal_table(SCORES)
    assert cells(table) == [
        ["Case", "Dice", "Surface Dice 5 mm", "HD95 mm", "MASD mm", "Volume error mm³"],
        ["a", "0.900", "0.900", "4.00", "1.00", "300"],
        ["b", "0.500", "0.500", "4.00", "1.00", "-400"],
        ["c", "0.100", "0.100", "50.00", "20.00", "0"],
        ["mean, n = 3", "0.500", "0.500", "19.33", "7.33", "RMSE 289"],
        ["95 % from", "0.100", "0.100", "4.00", "1.00", "0"],
        ["95 % to", "0.900", "0.900", "50.00", "20.00", "400"],
    ]
    # An empty mask stands out.
    assert [str(row.style) for row in table.rows[:3]] == ["", "", "red"]


def test_markdown_has_a_row_per_metric():
    assert markdown_summary(SCORES).splitlines() == [
        "| metric | mean (RMSE for the volume) | 95 % interval | worst case |",
        "|---|--:|--:|--:|",
        "| Dice | 0.500 | 0.100 to 0.900 | 0.100 |",
        "| Surface Dice 5 mm | 0.500 | 0.100 to 0.900 | 0.100 |",
        "| HD95 mm | 19.33 | 4.00 to 50.00 | 50.00 |",
        "| MASD mm | 7.33 | 1.00 to 20.00 | 20.00 |",
        "| Volume RMSE mm³ | 289 | 0 to 400 | -400 |",
    ]


def test_what_is_undefined_is_a_dash_in_every_table():
    scores = [score("a", hd95=math.inf, masd=math.nan, error=1234.0)]
    _, case, mean, low, high = cells(terminal_table(scores, title="One"))
    assert case == ["a", "0.500", "0.500", "–", "–", "1,234"]
    assert mean == ["mean, n = 1", "0.500", "0.500", "–", "–", "RMSE 1,234"]
    assert low[1:] == high[1:] == ["–"] * 5
    assert markdown_summary(scores).splitlines()[2:5] == [
        "| Dice | 0.500 | – | 0.500 |",
        "| Surface Dice 5 mm | 0.500 | – | 0.500 |",
        "| HD95 mm | – | – | – |",
    ]


def test_the_document_has_every_metric_with_its_interval():
    document = as_document(SCORES)
    assert document["challenge_compatible"] is False
    metrics = {"dice", "surface_dice", "hd95_mm", "masd_mm", "volume_rmse_mm3"}
    assert document["summary"].keys() == {"cases", "empty"} | metrics
    assert document["summary"]["masd_mm"] == {
        "value": pytest.approx(22 / 3),
        "low": pytest.approx(1.0),
        "high": pytest.approx(20.0),
        "worst": 20.0,
    }
