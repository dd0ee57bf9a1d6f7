"""Model archives are unpacked whole, or refused."""

import errno
import gzip
import io
import tarfile
from pathlib import Path

import pytest

from gc_panther.errors import WeightsError
from gc_panther.runtime.archives import is_archive, unpack, unpacked
from gc_panther.runtime.weights import find_models, weight_roots
from gc_panther.settings import read_settings


def archive(path: Path, *members: tuple[str, bytes | str], mode: str = "w:gz") -> Path:
    """Files by name; a text is where a symbolic link leads."""
    with tarfile.open(path, mode) as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                file.addfile(member)
            else:
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


def test_an_archive_serves_as_a_folder(tmp_path):
    path = archive(tmp_path / "model.tar.gz", ("task/plans.json", b"{}"))
    assert is_archive(path)
    settings = read_settings({"GC_PANTHER_SCRATCH": str(tmp_path)})
    root = weight_roots(settings, path)[0]
    assert root.parent == tmp_path
    assert (root / "task/plans.json").read_bytes() == b"{}"
    assert unpacked(path, tmp_path) == root

    class Needy:
        name = "needy"
        models = (type("Model", (), {"name": "task", "folds": (), "source": ""}),)

    assert find_models(Needy(), (root,), explicit=True) == {"task": root / "task"}


def test_a_folder_may_be_named_like_an_archive(tmp_path):
    (tmp_path / "model.tar.gz").mkdir()
    assert not is_archive(tmp_path / "model.tar.gz")
    assert not is_archive(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("../outside", b"x", "leads out of its folder"),
        ("task/../../outside", b"x", "leads out of its folder"),
        ("task/link", "/etc/passwd", "holds a link"),
        ("task/link", "plans.json", "holds a link"),
    ],
)
def test_what_leads_elsewhere_is_refused(tmp_path, name, content, said):
    path = archive(tmp_path / "model.tar.gz", ("task/plans.json", b"{}"), (name, content))
    with pytest.raises(WeightsError, match=said) as caught:
        unpack(path, tmp_path / "deep" / "folder")
    assert str(path) in str(caught.value)
    assert not list(tmp_path.rglob("outside"))
    assert not list(tmp_path.rglob("link"))


def test_an_absolute_name_stays_inside(tmp_path):
    path = archive(tmp_path / "model.tar.gz", (f"{tmp_path}/outside", b"x"))
    unpack(path, tmp_path / "folder")
    assert not (tmp_path / "outside").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = tarfile.TarInfo("task/fold_0.safetensors")
    bomb.size = 1 << 40
    path = tmp_path / "model.tar"
    path.write_bytes(bomb.tobuf())
    with pytest.raises(WeightsError, match="far more than weights"):
        unpack(path, tmp_path / "folder")
    assert not list((tmp_path / "folder").rglob("*"))


def test_a_file_twice_is_refused(tmp_path):
    path = archive(tmp_path / "model.tar.gz", ("task/a", b"1"), ("task/a", b"2"))
    with pytest.raises(WeightsError, match="a file twice"):
        unpack(path, tmp_path / "folder")


@pytest.mark.parametrize("ending", ["model.tar.gz", "model.tar"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("task/" + "n" * 300, "over-long name"),
        ("/".join(["deep"] * 3000), "over-long name"),
        ("task/a\x07b", "unusable name"),
        ("task/a/b", "a file twice"),
        ("task", "a file twice"),
    ],
    ids=["long", "deep", "bell", "below a file", "folder as file"],
)
def test_names_that_no_file_can_have_are_refused(tmp_path, name, said, ending):
    mode = "w:gz" if ending.endswith("gz") else "w"
    path = archive(tmp_path / ending, ("task/a", b"1"), (name, b"2"), mode=mode)
    with pytest.raises(WeightsError, match=said) as caught:
        unpack(path, tmp_path / "folder")
    assert len(str(caught.value)) < 400


def test_gzip_s_checksum_is_compared(tmp_path):
    path = archive(tmp_path / "model.tar.gz", ("a", bytes(range(256)) * 50))
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"damaged or incomplete.*CRC"):
        unpack(path, tmp_path / "folder")


def test_a_bomb_within_a_header_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("gc_panther.runtime.archives._ALWAYS_ALLOWED", 1 << 20)
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    path = tmp_path / "model.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf() + bytes(4 << 20))
    with pytest.raises(WeightsError, match="far more than weights"):
        unpack(path, tmp_path / "folder")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_a_damaged_archive(tmp_path, kept):
    content = bytes(range(256)) * 50
    path = archive(tmp_path / "model.tar.gz", ("a", content), ("b", content[::-1]))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        unpack(path, tmp_path / "folder")


def test_a_missing_archive(tmp_path):
    with pytest.raises(WeightsError, match="no such model archive"):
        weight_roots(read_settings({}), tmp_path / "model.tar.gz")


def test_an_archive_of_very_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gc_panther.runtime.archives._MOST_MEMBERS", 2)
    path = archive(tmp_path / "model.tar.gz", *((f"task/{n}", b"") for n in range(3)))
    with pytest.raises(WeightsError, match="holds more than 2 files"):
        unpack(path, tmp_path / "model")


def test_a_full_disk_says_so_itself(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gc_panther.runtime.archives._unpack_member", full)
    path = archive(tmp_path / "model.tar.gz", ("task/plans.json", b"{}"))
    with pytest.raises(OSError, match="No space left"):
        unpack(path, tmp_path / "model")
