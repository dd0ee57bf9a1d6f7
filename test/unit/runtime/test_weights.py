"""Where weights are found, and the error if they are not."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gc_panther.errors import WeightsError
from gc_panther.runtime.weights import (
    find_models,
    model_digest,
    model_records,
    model_warnings,
    weight_roots,
)
from gc_panther.settings import read_settings
from gc_panther.task import ModelRequirement, Task


def task_with(*names: str) -> Task:
    class Needy(Task):
        name = "needy"
        title = "Needs weights"
        interfaces = ()
        models = tuple(ModelRequirement(name, (0,), f"Get {name} at home") for name in names)

        def load(self, runtime: Any) -> Any:
            raise AssertionError("not loaded here")

    return Needy()


def test_the_order_of_the_roots(tmp_path: Path) -> None:
    environ = {
        "GC_PANTHER_PLATFORM_MODEL_DIR": "/platform",
        "GC_PANTHER_RESOURCES": "/bundled",
    }
    settings = read_settings(environ)
    assert weight_roots(settings) == (Path("/platform"), Path("/bundled"))
    assert weight_roots(settings, tmp_path) == (tmp_path, Path("/platform"), Path("/bundled"))


def test_a_chosen_folder_that_no_file_system_has_is_refused(tmp_path: Path) -> None:
    settings = read_settings({})
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / ("n" * 300), tmp_path / ("d/" * 3000)):
        with pytest.raises(WeightsError, match="the chosen model folder cannot be read"):
            weight_roots(settings, path)
    assert weight_roots(settings, tmp_path / "missing")[0] == tmp_path / "missing"


def test_the_first_root_that_has_a_model_wins_for_each_model(tmp_path: Path) -> None:
    for place in ("one/b", "two/a", "two/b"):
        (tmp_path / place).mkdir(parents=True)
    found = find_models(task_with("a", "b"), (tmp_path / "one", tmp_path / "two"), explicit=False)
    assert found == {"a": tmp_path / "two/a", "b": tmp_path / "one/b"}


def test_a_model_folder_itself_serves_a_task_with_one_model(tmp_path: Path) -> None:
    (tmp_path / "plans.json").touch()
    assert find_models(task_with("a"), (tmp_path,), explicit=True) == {"a": tmp_path}
    with pytest.raises(WeightsError):
        find_models(task_with("a", "b"), (tmp_path,), explicit=False)


def test_a_missing_model_is_reported_with_the_folders_and_its_source(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        find_models(task_with("a"), (tmp_path / "x", tmp_path / "y"), explicit=False)
    for part in (str(tmp_path / "x/a"), str(tmp_path / "y/a"), "Get a at home"):
        assert part in str(caught.value)


def test_a_chosen_folder_without_any_of_the_models_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bundled/a").mkdir(parents=True)
    (tmp_path / "chosen").mkdir()
    with pytest.raises(WeightsError, match="holds none of the models"):
        find_models(task_with("a"), (tmp_path / "chosen", tmp_path / "bundled"), explicit=True)


def raw_model(folder: Path, checkpoint: bytes = b"weights") -> Path:
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text("{}")
    (folder / "fold_0/checkpoint_final.pth").write_bytes(checkpoint)
    return folder


def test_the_digest_of_a_pack_is_its_manifests(tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text("{}")
    (tmp_path / "fold_0.safetensors").write_bytes(b"checked when it is read")
    assert model_digest(tmp_path) == hashlib.sha256(b"{}").hexdigest()


def test_the_digest_of_a_folder_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    first, same = raw_model(tmp_path / "a"), raw_model(tmp_path / "b")
    (same / ".DS_Store").touch()
    assert model_digest(first) == model_digest(same)
    assert model_digest(raw_model(tmp_path / "c", b"Weights")) != model_digest(first)
    (same / "fold_0").rename(same / "fold_1")
    assert model_digest(same) != model_digest(first)


def test_a_digest_costs_no_second_reading_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib,
        "file_digest",
        lambda file, name: read.append(file.name) or digest(file, name),
    )
    folder = raw_model(tmp_path / "a")
    first = model_digest(folder)
    assert model_digest(folder) == first
    assert len(read) == 2
    checkpoint = folder / "fold_0/checkpoint_final.pth"
    checkpoint.write_bytes(b"Weights")
    os.utime(checkpoint, ns=(0, 0))
    assert model_digest(folder) != first
    assert len(read) == 3


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    folder, linked = raw_model(tmp_path / "a"), tmp_path / "b"
    linked.mkdir()
    for entry in folder.iterdir():
        (linked / entry.name).symlink_to(entry)
    assert model_digest(linked) == model_digest(folder)
    (linked / "loop").symlink_to(linked)
    assert len(model_digest(linked)) == 64


def test_a_model_that_cannot_be_read_has_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Any, _: str) -> Any:
        raise PermissionError(13, "Permission denied", file.name)

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\).*final.pth"):
        model_digest(raw_model(tmp_path / "a"))


def test_records_hold_digest_and_identity(tmp_path: Path) -> None:
    unknown, demonstration = raw_model(tmp_path / "a"), raw_model(tmp_path / "b")
    identity = {"kind": "demonstration", "title": "A title", "licence": "Apache-2.0"}
    (demonstration / "model.json").write_text(json.dumps(identity))
    records = model_records({"one": unknown, "two": demonstration})
    assert records["one"].facts() == {
        "path": str(unknown),
        "digest": model_digest(unknown),
        "kind": "unknown origin",
        "title": "",
        "licence": "",
        "model_card": "",
    }
    assert records["two"].facts().items() >= identity.items()
    assert model_warnings({"one": records["one"]}) == ()
    assert model_warnings(records) == (
        "demonstration weights, trained on synthetic images, not for patients (two)",
    )


def test_a_digest_that_cannot_be_computed_is_an_error_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> str:
        raise WeightsError("a file of the model cannot be read", where=folder)

    monkeypatch.setattr("gc_panther.runtime.weights.model_digest", refuse)
    record = model_records({"one": raw_model(tmp_path / "a")})["one"]
    with pytest.raises(WeightsError, match="cannot be read"):
        record.facts()
