"""What becomes of the errors of a check."""

from gc_panther.errors import WeightsError
from gc_panther.findings import Finding, checked, failure


def test_a_foreseen_error_keeps_its_place_and_its_fix():
    error = WeightsError("there are no weights", where="/models", fix="Train some")
    assert failure("weights net", error) == Finding(
        "weights net", "fail", "there are no weights: /models", "Train some"
    )


def test_a_missing_package_is_named():
    found = failure("trial", ModuleNotFoundError("no", name="abacus.beads"))
    assert found.failed
    assert found.found == "the Python package 'abacus' is not installed"


def test_another_error_is_one_line():
    found = failure("trial", LookupError("no\n  such organ"))
    assert found.found == "LookupError: no such organ"
    assert "LOG_LEVEL=DEBUG" in found.fix


def test_what_was_found_before_an_error_is_kept():
    def find():
        yield Finding("one", "ok", "1")
        raise LookupError("two")

    rows = checked("numbers", find)
    assert [(row.check, row.verdict) for row in rows] == [("one", "ok"), ("numbers", "fail")]
    assert checked("numbers", lambda: [rows[0]]) == [rows[0]]
