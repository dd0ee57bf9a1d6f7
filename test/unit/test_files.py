import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gc_panther.errors import EXIT_FAILED, describe
from gc_panther.files import whole_file
from gc_panther.training.dataset import write_json


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


def test_a_full_disk_is_said_so_and_leaves_the_old_file(tmp_path):
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
