"""The steps that every case takes, in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gc_panther.case import Case, Geometry, Volume
from gc_panther.commands.flow import process
from gc_panther.errors import ProcessingError
from gc_panther.hookspecs import hookimpl
from gc_panther.options import RunOptions
from gc_panther.plugins import create_plugin_manager, find_task
from gc_panther.session import Choices, Session
from gc_panther.settings import read_settings


class Outputs:
    """Two files and a report in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report: Path | None = folder / "report.json"

    def write(self, staged: Any, case: Any, result: Any, scratch: Path) -> dict[str, Any]:
        staged.write(self.folder / "mask", result.mask.array_zyx.tobytes())
        staged.write(self.folder / "more", b"more")
        return {"written": case.name}


@pytest.fixture
def session(toy_plugin: Any) -> Any:
    manager = create_plugin_manager([toy_plugin.hooks])
    with Session(
        find_task(manager, "toy"), manager, read_settings({}), Choices(RunOptions(device="cpu"))
    ) as session:
        yield session


def case_of() -> Case:
    array = np.full((3, 4, 5), 300, np.int16)
    return Case("a case", {"toy-mri": Volume(array, Geometry((5, 4, 3), (1.0, 1.0, 2.0)))})


def test_plugins_see_the_report_before_anything_is_published_and_add_to_it(
    session: Session, tmp_path: Path
) -> None:
    seen: list[Any] = []

    class Hooks:
        @hookimpl
        def gc_panther_after_case(self, result: Any, report: dict[str, Any]) -> None:
            seen.append((result.mask.array_zyx.sum(), report["written"], list(tmp_path.iterdir())))
            report["added"] = True

    session._manager.register(Hooks())
    report = process(session, case_of(), Outputs(tmp_path))
    assert seen == [(60, "a case", [])]
    assert report["added"]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask", "more", "report.json"]


def test_the_declared_output_appears_last(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gc_panther import files

    appeared: list[str] = []
    appear = files._Staged.appear
    monkeypatch.setattr(
        files._Staged, "appear", lambda one: appeared.append(one.path.name) or appear(one)
    )
    process(session, case_of(), Outputs(tmp_path))
    assert appeared == ["report.json", "more", "mask"]


def test_a_plugin_that_fails_leaves_nothing(
    toy_plugin: Any, session: Session, tmp_path: Path
) -> None:
    toy_plugin.report_extra = None
    with pytest.raises(TypeError):
        process(session, case_of(), Outputs(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_predictor_is_followed_by_no_hook(
    toy_plugin: Any, session: Session, tmp_path: Path
) -> None:
    def fail(mask: Any) -> Any:
        raise ProcessingError("broken")

    toy_plugin.change = fail
    with pytest.raises(ProcessingError, match="broken"):
        process(session, case_of(), Outputs(tmp_path))
    assert [name for name, *_ in toy_plugin.calls] == ["check", "before"]
    assert list(tmp_path.iterdir()) == []
