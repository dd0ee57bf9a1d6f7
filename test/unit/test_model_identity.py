"""What models say about themselves, and the errors if that is not valid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gc_panther.errors import UserError, WeightsError
from gc_panther.model_identity import ModelIdentity, changed_identity, describe_model, read_identity
from gc_panther.nnunet.model.manifest import read_manifest, verify

BUNDLED = Path(__file__).resolve().parents[2] / "resources"


@pytest.mark.parametrize("name", ["task1", "task2", "mrsegmentator"])
def test_the_bundled_weights_say_that_they_are_for_demonstration(name: str) -> None:
    identity = read_identity(BUNDLED / name)
    assert (identity.kind, identity.licence) == ("demonstration", "Apache-2.0")
    card = (BUNDLED / name / identity.model_card).read_text()
    assert card.startswith(f"# {identity.title}\n")
    assert "Demonstration weights, trained on synthetic images, not for patients" in card
    assert "not for patients" in describe_model(BUNDLED / name, identity)


@pytest.mark.parametrize("name", ["task1", "task2", "mrsegmentator"])
def test_the_bundled_cards_name_the_commit_and_the_recipe_that_trained_them(name: str) -> None:
    card = (BUNDLED / name / "MODEL_CARD.md").read_text()
    reproduce = re.search(r"^git checkout ([0-9a-f]{12})\ngc-panther train (task\d) ", card, re.M)
    assert reproduce is not None
    commit, task = reproduce.groups()
    assert f", commit {commit}" in card.partition("## Training")[2]
    recipe = f"tasks/{task}/gc_panther_{task}/demo.yaml"
    assert f"The recipe is `{recipe}` of that commit" in card
    assert (BUNDLED.parent / recipe).is_file()


@pytest.mark.parametrize("name", ["task1", "task2", "mrsegmentator"])
def test_every_bundled_file_is_the_one_of_the_manifest(name: str) -> None:
    manifest = read_manifest(BUNDLED / name)
    files = {path.name for path in (BUNDLED / name).iterdir()}
    assert files == {*manifest.files, "pack.json"}
    for file in manifest.files:
        verify(BUNDLED / name, manifest, file)


def test_a_folder_that_says_nothing_is_of_unknown_origin(tmp_path: Path) -> None:
    assert read_identity(tmp_path) == ModelIdentity()
    assert describe_model(tmp_path, ModelIdentity()) == str(tmp_path)


def test_an_older_pack_is_of_unknown_origin(tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text(json.dumps({"version": 1, "files": {}}))
    assert read_identity(tmp_path).kind is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "Invalid JSON"),
        (b"[1]", "should be an object"),
        (b"\xff", "is not UTF-8 text"),
        (json.dumps({"kind": "finest"}).encode(), "kind: Input should be 'demonstration'"),
        (json.dumps({"title": 3}).encode(), "title: Input should be a valid string"),
        (json.dumps({"title": "two\nlines"}).encode(), "title: must be one line"),
        (json.dumps({"licence": "x" * 201}).encode(), "licence: String should have at most 200"),
    ],
)
def test_a_wrong_identity_is_refused_in_one_line(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_identity(tmp_path)
    assert problem in str(caught.value)
    assert str(tmp_path / "model.json") in str(caught.value)


def test_a_document_that_is_far_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gc_panther.model_identity.LARGEST_DOCUMENT", 1 << 20)
    (tmp_path / "model.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(WeightsError, match="larger than 1 MiB"):
        read_identity(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"kind": "finest"}, "the model's kind"), ({"title": "a\nb"}, "the model's title")],
)
def test_an_identity_is_changed_by_fields(changes: dict[str, Any], problem: str) -> None:
    identity = ModelIdentity(title="A title")
    assert changed_identity(identity, kind="trained", title=None).kind == "trained"
    assert changed_identity(identity, kind="trained", title=None).title == "A title"
    with pytest.raises(UserError, match=problem):
        changed_identity(identity, **changes)
