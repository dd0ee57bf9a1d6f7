"""What a mask was made of, and how two runs differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gc_panther.commands.cohort_record import Recipe, differences, image_digest, read_report
from gc_panther.errors import InputError

RECIPE = Recipe("task1", {"gc_panther": "1"}, {"folds": None, "combine": "vote"}, {"task1": "ab"})


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (RECIPE, []),
        (replace(RECIPE, task="task2"), ["another task (task2 instead of task1)"]),
        (
            replace(RECIPE, versions={"gc_panther": "2"}),
            ["another version of the task or of gc-panther"],
        ),
        (replace(RECIPE, options={"folds": [0], "combine": "vote"}), ["other options (folds)"]),
        (replace(RECIPE, options={**RECIPE.options, "new": 1}), ["other options (new)"]),
        (
            replace(RECIPE, options={}, weights={"task1": "cd"}),
            ["other options (combine)", "other weights (task1)"],
        ),
    ],
)
def test_differences_are_named(now: Recipe, said: list[str]) -> None:
    assert differences(json.loads(json.dumps(RECIPE.record("image", picture=True))), now) == said


def test_a_record_of_an_earlier_name_of_an_option_differs() -> None:
    earlier = {**RECIPE.options, "keep_empty": False}
    now = replace(RECIPE, options={**RECIPE.options, "never_empty": True})
    record = replace(RECIPE, options=earlier).record("image", picture=False)
    assert differences(record, now) == ["other options (keep_empty, never_empty)"]


def test_a_damaged_record_differs() -> None:
    assert differences({"options": 1, "weights": []}, RECIPE)


def test_a_missing_image_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        image_digest(tmp_path / "x.mha")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_not_a_report_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read_report(tmp_path / "x.json") == {}
