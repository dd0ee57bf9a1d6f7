"""Plugins of the earlier interface: ``Segmenter.segment`` returning a ``Segmentation``."""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gc_panther import plugins
from gc_panther.deprecated import as_predictor
from gc_panther.errors import PluginError
from gc_panther.imaging.images import read_image
from gc_panther.plugins import create_plugin_manager

#: As a stranger wrote it for the documentation of the time.
OLD = """
    import numpy as np

    from gc_panther.case import Case, Segmentation, Volume
    from gc_panther.hookspecs import hookimpl
    from gc_panther.task import CaseRun, Interface, Runtime, Segmenter, Socket, Task

    IMAGE = Socket(slug="old-mri", relative_path="images/old-mri")
    MASK = Socket(slug="old-mask", relative_path="images/old-mask")
    notified = []

    class OldSegmenter:
        def segment(self, case: Case, run: CaseRun) -> Segmentation:
            image = case.images[IMAGE.slug]
            with run.within("all").clock.stage("threshold"):
                mask = Volume((image.array_zyx > 250).astype(np.uint8), image.geometry)
            return Segmentation(mask, details={"old": 1}, notes=("a note",), warnings=("unusual",))

    class OldTask(Task):
        name, title, models = "old", "Old", ()
        interfaces = (Interface(inputs=(IMAGE,), outputs=(MASK,)),)

        def load(self, runtime: Runtime) -> Segmenter:
            return OldSegmenter()

    @hookimpl
    def gc_panther_tasks():
        return [OldTask()]

    @hookimpl
    def gc_panther_after_case(case, segmentation, report):
        notified.append((segmentation.mask.array_zyx.sum(), segmentation.details["old"]))
"""


@pytest.fixture
def old_plugin(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The plugin as an installed module; pluggy's warnings are in ``warned``."""
    module = types.ModuleType("old_plugin")
    exec(textwrap.dedent(OLD), module.__dict__)  # noqa: S102 - the text is above
    with pytest.warns(DeprecationWarning) as caught:
        create_plugin_manager([module])
    module.warned = [str(one.message) for one in caught]  # type: ignore[attr-defined]
    create = plugins.create_plugin_manager
    monkeypatch.setattr(
        plugins, "create_plugin_manager", lambda **options: create([module], **options)
    )
    return module


@pytest.mark.filterwarnings("ignore:gc_panther_after_case:DeprecationWarning")
def test_an_old_plugin_runs_with_one_line_that_names_the_replacement(
    old_plugin: Any,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from gc_panther import cli

    image, mask = write_volume(tmp_path / "scan.mha"), tmp_path / "mask.mha"
    report = tmp_path / "report.json"
    arguments = ["predict", "old", str(image), "-o", str(mask), "--report", str(report)]
    assert cli.invoke([*arguments, "--device", "cpu"]) == 0

    expected = read_image(image).array_zyx > 250
    assert np.array_equal(read_image(mask).array_zyx, expected)
    facts = json.loads(report.read_text())
    assert (facts["old"], facts["notes"], facts["warnings"]) == (1, ["a note"], ["unusual"])
    assert "all: threshold" in facts["seconds"]
    assert old_plugin.notified == [(expected.sum(), 1)]
    (line,) = [one for one in caplog.messages if "deprecated" in one]
    assert "the task old has OldSegmenter.segment" in line
    assert "predict(case, run) -> Result replaces it" in line


def test_the_hook_s_old_argument_warns_with_its_replacement(old_plugin: Any) -> None:
    (warning,) = old_plugin.warned
    assert "the argument 'segmentation' is deprecated, take 'result'" in warning


def test_what_can_neither_predict_nor_segment_is_refused(toy_plugin: Any) -> None:
    (toy,) = toy_plugin.hooks.gc_panther_tasks()
    with pytest.raises(PluginError, match=r"task toy has loaded \(object\) has no method predict"):
        as_predictor(object(), toy)
