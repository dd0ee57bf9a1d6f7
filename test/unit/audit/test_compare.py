import io
import tarfile

import pytest
from compare import differences, entries


def packed(**changes):
    """A tar stream of a small image; a value of None leaves the path out."""
    files = {"opt/a.py": b"a", "opt/b.py": b"b", "etc/hostname": b"x", ".dockerenv": b"", **changes}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content in files.items():
            if content is None:
                continue
            member = tarfile.TarInfo(path)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                content, member.mode = content if isinstance(content, tuple) else (content, 0o644)
                member.size, member.mtime = len(content), hash(path) % 10_000
                archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return entries(stream)


def test_what_the_engine_writes_is_not_compared():
    assert sorted(packed()) == ["opt/a.py", "opt/b.py"]
    assert differences(packed(), packed(**{"etc/hostname": b"y"})) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"opt/a.py": None}, "opt/a.py: only in the first"),
        ({"opt/c.py": b"c"}, "opt/c.py: only in the second"),
        ({"opt/a.py": b"other"}, "opt/a.py: another content"),
        ({"opt/a.py": (b"a", 0o755)}, "opt/a.py: another mode"),
        ({"opt/a.py": "b.py"}, "opt/a.py: another kind, content"),
    ],
)
def test_each_difference_is_a_line(change, line):
    assert differences(packed(), packed(**change)) == [line]
