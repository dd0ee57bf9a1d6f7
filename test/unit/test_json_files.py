import json
import os

import pytest

from gc_panther.json_files import as_json, finite, write_json


def test_json_is_utf8_and_has_no_nan() -> None:
    text = as_json([{"größe": float("nan"), "b": (1, 0.5, float("-inf"))}]).decode("utf-8")
    assert json.loads(text) == [{"größe": None, "b": [1, 0.5, None]}]
    assert "größe" in text
    assert text.endswith("]\n")


def test_a_file_name_that_is_not_unicode_is_escaped_in_json() -> None:
    name = os.fsdecode(b"scan\xff.mha")
    assert json.loads(as_json([name]).decode("utf-8")) == [name]


def test_what_is_no_number_becomes_null_at_every_depth() -> None:
    value = {"a": (1.0, float("nan"), {"b": [float("inf"), "x"]}), "c": float("-inf"), "d": 2}
    assert finite(value) == {"a": [1.0, None, {"b": [None, "x"]}], "c": None, "d": 2}


def test_files_for_programs_are_ascii_and_whole(tmp_path) -> None:
    path = tmp_path / "new" / "facts.json"
    write_json(path, {"größe": [1, float("nan")]})
    assert path.read_bytes() == b'{\n "gr\\u00f6\\u00dfe": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"no JSON": object()})
    assert json.loads(path.read_text()) == {"größe": [1, None]}
