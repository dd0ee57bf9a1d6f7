"""Which file belongs to which socket."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gc_panther.errors import InputError
from gc_panther.imaging.images import read_image
from gc_panther.platform.inputs import find_inputs, read_case
from gc_panther.task import Interface, Socket, Task

A, B, MASK = Socket("a", "images/a"), Socket("b", "images/b"), Socket("m", "images/m")


class TwoInterfaces(Task):
    name = "two"
    title = "Two interfaces"
    interfaces = (Interface((A,), (MASK,)), Interface((A, B), (MASK,)))
    models = ()

    def load(self, runtime: Any) -> Any:
        raise AssertionError("not loaded here")


def entry(slug: str, path: str, key: str = "socket", **more: Any) -> dict[str, Any]:
    return {key: {"slug": slug, "relative_path": path, "kind": "Image"}, "pk": 1, **more}


def put(folder: Path, entries: Any, *images: str) -> Path:
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).touch()
    if entries is not None:
        (folder / "inputs.json").write_text(
            entries if isinstance(entries, str) else json.dumps(entries)
        )
    return folder


def test_the_relative_path_and_not_the_slug_says_where_the_image_is(tmp_path: Path) -> None:
    put(tmp_path, [entry("a", "images/elsewhere")], "images/elsewhere/x.mha", "images/a/y.mha")
    files = find_inputs(tmp_path, TwoInterfaces())
    assert files.images == {"a": tmp_path / "images/elsewhere/x.mha"}
    assert files.interface == TwoInterfaces.interfaces[0]


@pytest.mark.parametrize("key", ["socket", "interface"])
def test_old_and_new_entries_are_read(tmp_path: Path, key: str) -> None:
    image = {"pk": "u", "name": "patient.nii.gz"}
    put(tmp_path, [entry("a", "images/a", key, image=image)], "images/a/u.mha")
    assert find_inputs(tmp_path, TwoInterfaces()).name == "patient"


def test_without_inputs_json_the_folders_of_the_task_are_searched(tmp_path: Path) -> None:
    put(tmp_path, None, "images/a/some.case.mha")
    files = find_inputs(tmp_path, TwoInterfaces())
    assert files.images.keys() == {"a"}
    assert files.name == "some.case"


def test_a_case_is_read_with_its_name_its_images_and_where_they_came_from(
    tmp_path: Path, write_volume: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    image = {"pk": "u", "name": "patient.nii.gz"}
    put(tmp_path, [entry("a", "images/a", image=image)])
    file = write_volume(tmp_path / "images/a/u.mha")
    with caplog.at_level("INFO", "gc_panther.platform.inputs"):
        case = read_case(tmp_path, TwoInterfaces())
    assert (case.name, case.sources) == ("patient", {"a": file})
    assert case[A].geometry == read_image(file).geometry
    assert np.array_equal(case[A].array_zyx, read_image(file).array_zyx)
    assert caplog.messages == ["case patient: a 7×6×5 voxels at 1.5×1.25×3 mm"]
    file.write_bytes(b"no pixels")
    with pytest.raises(InputError, match="damaged, incomplete or cannot be read"):
        read_case(tmp_path, TwoInterfaces())


def test_without_inputs_json_an_interface_needs_all_its_folders(tmp_path: Path) -> None:
    class Pair(TwoInterfaces):
        interfaces = TwoInterfaces.interfaces[:0:-1]  # the one of two inputs

    put(tmp_path, None, "images/a/x.mha")
    with pytest.raises(InputError, match=r"neither inputs\.json .*\(expected: a \+ b\)"):
        find_inputs(tmp_path, Pair())
    put(tmp_path, None, "images/b/y.mha")
    assert find_inputs(tmp_path, Pair()).images.keys() == {"a", "b"}


@pytest.mark.parametrize("image", [None, {"pk": "u"}, {"pk": "u", "name": ""}])
def test_a_case_without_the_name_of_its_file_has_that_of_the_image(
    tmp_path: Path, image: Any
) -> None:
    put(tmp_path, [entry("a", "images/a", image=image)], "images/a/u.mha")
    assert find_inputs(tmp_path, TwoInterfaces()).name == "u"


def test_the_interface_is_chosen_by_all_slugs(tmp_path: Path) -> None:
    put(
        tmp_path,
        [entry("b", "images/b"), entry("a", "images/a")],
        "images/a/1.mha",
        "images/b/2.tif",
    )
    files = find_inputs(tmp_path, TwoInterfaces())
    assert {slug: path.name for slug, path in files.images.items()} == {"a": "1.mha", "b": "2.tif"}


def test_a_symlinked_input_is_not_resolved(tmp_path: Path) -> None:
    put(tmp_path / "real", None, "images/a/x.mha")
    (tmp_path / "input").symlink_to(tmp_path / "real")
    files = find_inputs(tmp_path / "input", TwoInterfaces())
    assert files.images["a"] == tmp_path / "input/images/a/x.mha"


@pytest.mark.parametrize(
    ("entries", "images", "said"),
    [
        ([entry("a", "images/a")], [], r"\(\.mha or \.tif\), found 0 \(none\)"),
        (
            [entry("a", "images/a")],
            ["images/a/1.mha", "images/a/2.mha"],
            r"found 2 \(1\.mha, 2\.mha\)",
        ),
        ([entry("zzz", "images/a")], ["images/a/1.mha"], r"\(zzz\) fit no interface of two"),
        ([entry("a", "../a")], ["images/a/1.mha"], "leads out of the input folder"),
        ([entry("a", "/etc")], ["images/a/1.mha"], "leads out of the input folder"),
        ("{not json", [], "not valid JSON"),
        ("[]", [], r"not understood \(entries: List should have at least 1 item"),
        ('{"a": 1}', [], r"not understood \(the list: Input should be a valid list"),
        ('[{"socket": {"slug": "a"}}]', [], r"not understood \(0\.socket\.relative_path: "),
        ([{"pk": 1}], [], "neither a socket nor an interface"),
        (None, ["images/other/1.mha"], "neither inputs.json nor a folder"),
    ],
)
def test_what_breaks_the_contract_is_refused(
    tmp_path: Path, entries: Any, images: list[str], said: str
) -> None:
    put(tmp_path, entries, *images)
    with pytest.raises(InputError, match=said):
        find_inputs(tmp_path, TwoInterfaces())


def test_a_missing_input_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input folder") as caught:
        find_inputs(tmp_path / "nowhere", TwoInterfaces())
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize("what", ["images/a/x.mha", "images/a", "inputs.json"])
def test_a_link_that_leads_out_of_the_input_folder_is_refused(tmp_path: Path, what: str) -> None:
    folder = put(tmp_path / "input", [entry("a", "images/a")], "images/a/x.mha")
    (folder / what).rename(tmp_path / "elsewhere")
    (folder / what).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of it"):
        find_inputs(folder, TwoInterfaces())


def test_a_link_within_the_input_folder_is_followed(tmp_path: Path) -> None:
    put(tmp_path, [entry("a", "images/a")], "images/b/x.mha")
    (tmp_path / "images/a").symlink_to("b")
    assert find_inputs(tmp_path, TwoInterfaces()).images["a"] == tmp_path / "images/a/x.mha"


@pytest.mark.parametrize(
    ("text", "said"),
    [("[" * 100_000, "not valid JSON"), ("[" + " " * (1 << 20) + "]", "too long")],
)
def test_a_list_that_exhausts_its_reader_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_inputs(put(tmp_path, text), TwoInterfaces())


def _loop(folder: Path) -> None:
    (folder / "inputs.json").unlink()
    (folder / "inputs.json").symlink_to("inputs.json")


def _pipe(path: str) -> Any:
    def make(folder: Path) -> None:
        (folder / path).unlink()
        os.mkfifo(folder / path)

    return make


def _image_loop(folder: Path) -> None:
    (folder / "images/a/x.mha").unlink()
    (folder / "images/a/x.mha").symlink_to("x.mha")


def _folder_for(path: str) -> Any:
    def make(folder: Path) -> None:
        (folder / path).unlink()
        (folder / path).mkdir()

    return make


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_loop, "symbolic links"),
        (_image_loop, "symbolic links"),
        (_pipe("inputs.json"), "not a regular file"),
        (_pipe("images/a/x.mha"), "not a regular file"),
        (_folder_for("inputs.json"), "not a regular file"),
        (_folder_for("images/a/x.mha"), "not a regular file"),
    ],
)
def test_what_is_not_a_file_is_refused_and_never_waited_for(
    spoil: Any, said: str, tmp_path: Path
) -> None:
    folder = put(tmp_path, [entry("a", "images/a")], "images/a/x.mha")
    spoil(folder)
    with pytest.raises(InputError, match=said):
        find_inputs(folder, TwoInterfaces())


@pytest.mark.parametrize(
    ("path", "said"),
    [("n" * 256, "name too long"), ("d/" * 3000, "name too long"), ("images/\0", "found 0")],
)
def test_paths_that_no_file_system_has_are_refused(path: str, said: str, tmp_path: Path) -> None:
    folder = put(tmp_path, [entry("a", path)], "images/a/x.mha")
    with pytest.raises(InputError, match=said):
        find_inputs(folder, TwoInterfaces())
    with pytest.raises(InputError):
        find_inputs(folder / path.replace("\0", "z"), TwoInterfaces())


@pytest.mark.parametrize("what", ["inputs.json", "images/a"])
def test_what_may_not_be_read_is_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission bits do not bind root, who runs the tests: the system's answer is made up."""
    folder = put(tmp_path, [entry("a", "images/a")], "images/a/x.mha")

    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    name = "read_text" if what == "inputs.json" else "iterdir"
    monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(InputError, match="cannot be read \\(Permission denied\\)") as caught:
        find_inputs(folder, TwoInterfaces())
    assert str(folder / what) in str(caught.value)


def test_a_name_is_what_fits_on_a_line(tmp_path: Path) -> None:
    image = {"name": "a\nerror: b\ud800" + "c" * 1000 + ".mha"}
    folder = put(tmp_path, [entry("a", "images/a", image=image)], "images/a/u.mha")
    name = find_inputs(folder, TwoInterfaces()).name
    assert name.startswith("a_error: b_ccc")
    assert len(name) == 255


def test_names_in_a_message_cannot_command_a_terminal(tmp_path: Path) -> None:
    folder = put(tmp_path, None, "images/a/\x1b[2J\n.mha", os.fsdecode(b"images/a/\xff.mha"))
    with pytest.raises(InputError) as caught:
        find_inputs(folder, TwoInterfaces())
    assert r"(\x1b[2J .mha, \udcff.mha)" in str(caught.value)
