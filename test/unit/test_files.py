import errno
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther import files, interruption
from gc_panther.errors import EXIT_FAILED, OutputError, UserError, describe
from gc_panther.files import check_distinct, check_target, staged_files, whole_file, whole_folder
from gc_panther.json_files import write_json


@given(old=st.none() | st.binary(), new=st.binary(), end=st.integers(0, 20))
def test_a_file_holds_all_of_the_new_content_or_what_it_held(tmp_path_factory, old, new, end):
    path = tmp_path_factory.mktemp("files") / "folder" / "file"
    if old is not None:
        path.parent.mkdir()
        path.write_bytes(old)
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(new[:end])
        raise ZeroDivisionError
    assert (path.read_bytes() if path.exists() else None) == old
    with whole_file(path) as file:
        file.write(new)
    assert path.read_bytes() == new
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"made": 1})
    (tmp_path / ".facts.json.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as caught:
        write_json(path, {"made": 2})
    assert json.loads(path.read_text()) == {"made": 1}
    message, code = describe(caught.value)
    assert message.startswith("the disk is full")
    assert code == EXIT_FAILED
    assert "internal error" in describe(OSError(errno.EIO, "input/output error"))[0]


@pytest.fixture(params=["unnamed", "named"])
def staging(request, monkeypatch):
    """Both ways to stage a file; the second is that of file systems without unnamed files."""
    if request.param == "named":
        monkeypatch.setattr(files, "_staged", files._staged_by_name)
    return request.param


def there(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_staged_files_appear_at_the_end_of_the_block(staging, tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    with staged_files() as staged:
        staged.write(tmp_path / "deep" / "er" / "a", b"A")
        staged.write(tmp_path / "b", b"B")
        assert {name for name in there(tmp_path) if not name.split("/")[-1].startswith(".")} == {
            "b"
        }
        assert (tmp_path / "b").read_bytes() == b"old"
    assert there(tmp_path) == {"deep/er/a", "b"}
    assert (tmp_path / "b").read_bytes() == b"B"
    assert (tmp_path / "deep/er/a").stat().st_mode & 0o444 == 0o444


def test_nothing_is_left_of_a_block_that_fails(staging, tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), staged_files() as staged:
        staged.write(tmp_path / "deep" / "er" / "a", b"A")
        staged.write(tmp_path / "b", b"B")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_file_that_cannot_appear_takes_the_others_back(staging, tmp_path):
    (tmp_path / "c").write_bytes(b"old")
    with pytest.raises(OutputError, match="Is a directory"), staged_files() as staged:
        staged.write(tmp_path / "a", b"A")
        staged.write(tmp_path / "new" / "b", b"B")
        staged.write(tmp_path / "c", b"C")
        (tmp_path / "a" / "folder").mkdir(parents=True)
    assert there(tmp_path) == {"c"}
    assert (tmp_path / "c").read_bytes() == b"old"
    assert not (tmp_path / "new").exists()


def test_a_signal_that_came_while_files_were_staged_keeps_them_from_appearing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(interruption, "_noted", [15])
    with pytest.raises(interruption.Interrupted), staged_files() as staged:
        staged.write(tmp_path / "a", b"A")
    assert there(tmp_path) == set()


def test_a_process_killed_at_any_moment_leaves_the_first_file_only_with_the_others(
    staging, tmp_path
):
    """Ends a process before each of its calls that touch the file system."""
    moments = 0
    while True:
        folder = tmp_path / str(moments)
        folder.mkdir()
        (folder / "results").write_bytes(b"old")
        child = os.fork()
        if child == 0:
            left = iter(range(moments))

            def end(event, _, left=left):
                if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir"):
                    next(left, None) is not None or os._exit(9)

            sys.addaudithook(end)
            with staged_files() as staged:
                staged.write(folder / "images" / "mask", b"all of the mask" * 1000)
                staged.write(folder / "results", b"all of them")
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        mask, results = folder / "images" / "mask", folder / "results"
        if mask.exists():
            assert mask.read_bytes() == b"all of the mask" * 1000
            assert results.read_bytes() == b"all of them"
        assert results.read_bytes() in (b"old", b"all of them")
        if ended == 0:
            break
        moments += 1
    assert moments > 5
    assert there(folder) == {"images/mask", "results"}


def test_names_as_long_as_they_may_be(staging, tmp_path):
    path = tmp_path / ("n" * 255)
    for content in (b"1", b"2"):
        with staged_files() as staged:
            staged.write(path, content)
        assert path.read_bytes() == content
    with whole_file(path) as file:
        file.write(b"3")
    assert path.read_bytes() == b"3"
    assert there(tmp_path) == {path.name}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "is a folder"),
        ("/dev/null", "is a device"),
        ("n" * 256, "File name too long"),
        ("d/" * 3000 + "f", "File name too long"),
        ("file/below", "Not a directory"),
        ("loop/below", "symbolic links"),
        ("gone/below", "No such file"),
        # Permission bits do not bind root; /proc takes no files from anybody.
        ("/proc/file", "No such file"),
    ],
)
def test_a_file_that_could_not_be_written_is_refused(name, said, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=said):
        check_target(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_can_be_written_is_not_touched(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "gone").symlink_to("nowhere")
    for name in ("old", "new", "gone", "folder/that/will/be/made"):
        check_target(tmp_path / name)
    assert there(tmp_path) == {"old"}


@pytest.mark.parametrize("second", ["m", "folder/../m", "link/m", "alias", "hard"])
def test_two_names_of_one_file_are_refused(second, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "m").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to("m")
    (tmp_path / "hard").hardlink_to(tmp_path / "m")
    with pytest.raises(UserError, match="the report would replace the mask"):
        check_distinct({"the mask": tmp_path / "m", "the report": tmp_path / second})
    check_distinct({"the mask": tmp_path / "m", "the report": tmp_path / "other"})


def test_two_names_of_a_file_that_is_not_there_yet_are_refused(tmp_path):
    with pytest.raises(UserError, match="would replace"):
        check_distinct({"a": tmp_path / "m", "b": tmp_path / "folder" / ".." / "m"})


def write_folder(path, content, **options):
    with whole_folder(path, **options) as folder:
        assert not (folder / "name").exists()
        (folder / "name").write_text(content)
        if content == "fails":
            raise ValueError(content)


def test_a_folder_appears_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "model"
    with pytest.raises(ValueError, match="fails"):
        write_folder(path, "fails")
    assert list(path.parent.iterdir()) == []
    write_folder(path, "first")
    with pytest.raises(OSError, match="not empty"):
        write_folder(path, "second")
    with pytest.raises(ValueError, match="fails"):
        write_folder(path, "fails", replace=True)
    assert (path / "name").read_text() == "first"
    write_folder(path, "second", replace=True)
    assert (path / "name").read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_take_its_name_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "model"
    write_folder(path, "first")
    rename = Path.rename

    def refuse(self, target):
        if self.name.endswith(".part"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        write_folder(path, "second", replace=True)
    assert (path / "name").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_set_aside_by_a_process_that_was_killed_comes_back(tmp_path):
    path = tmp_path / "model"
    write_folder(tmp_path / ".model.earlier", "first")
    with pytest.raises(ValueError, match="fails"):
        write_folder(path, "fails", replace=True)
    assert (path / "name").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
