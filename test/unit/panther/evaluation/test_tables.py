import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gc_panther.panther.evaluation.metrics import CaseScore
from gc_panther.panther.evaluation.tables import (
    COLUMNS,
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


def test_every_table_shows_every_metric():
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(terminal_table(SCORES, title="T"))
    terminal = console.export_text()
    document = as_document(SCORES)
    for column in COLUMNS:
        assert column.title.split(" mm")[0].split(" RMSE")[0] in terminal
        assert column.title in markdown_summary(SCORES)
        assert set(document["summary"][column.key]) == {"value", "low", "high", "worst"}
    assert "0.500" in terminal
    assert "289" in markdown_summary(SCORES)
