"""The model archive's unpacking in the platform emulation, with and without tar's own filter."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plain_tar
import pytest
from platform_checks import check_archive


def archive(path: Path, *members: tuple[str, bytes, bytes | str]) -> Path:
    """Name, kind and content of each member; of a link, where it leads."""
    with tarfile.open(path, "w:gz") as file:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o6777
            if isinstance(content, str):
                member.linkname = content
                file.addfile(member)
            else:
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(params=["unchanged", "as in Python 3.11.2"])
def patched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tarfile.TarFile, "extractall", tarfile.TarFile.extractall)
    if request.param != "unchanged":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        # Python 3.12 and 3.13 warn where no filter is given.
        every = staticmethod(lambda member, path: member)
        monkeypatch.setattr(tarfile.TarFile, "extraction_filter", every, raising=False)
        whole = plain_tar._extractall
        # Which takes no filter.
        monkeypatch.setattr(plain_tar, "_extractall", lambda self, path, of: whole(self, path, of))
    plain_tar.install()
    yield


def extract(path: Path, folder: Path) -> None:
    """As the shim does."""
    with tarfile.open(path) as file:
        file.extractall(path=folder, filter="data")


HOSTILE: dict[str, tuple[str, bytes, Any]] = {
    "a link out of the folder": ("task1/plans.json", tarfile.SYMTYPE, "../../secret"),
    "a link": ("task1/plans.json", tarfile.SYMTYPE, "other.json"),
    "a hard link": ("task1/plans.json", tarfile.LNKTYPE, "task1/other.json"),
    "a device": ("task1/null", tarfile.CHRTYPE, b""),
    "the parent folder": ("task1/../../plans.json", tarfile.REGTYPE, b"{}"),
}


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_but_files_and_folders_below_is_refused(kind: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "model.tar.gz", HOSTILE[kind])
    with pytest.raises(tarfile.ReadError, match="task1"):
        extract(path, tmp_path / "model" / "deep")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.tar.gz"]


@pytest.mark.usefixtures("patched")
def test_files_and_folders_are_unpacked_below_the_folder(tmp_path: Path) -> None:
    members = [
        ("./task1", tarfile.DIRTYPE, b""),
        ("task1/plans.json", tarfile.REGTYPE, b"{}"),
        (f"{tmp_path}/elsewhere", tarfile.REGTYPE, b"x"),
    ]
    extract(archive(tmp_path / "model.tar.gz", *members), tmp_path / "model")
    plans = tmp_path / "model" / "task1" / "plans.json"
    assert plans.read_bytes() == b"{}"
    assert plans.stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "model" / str(tmp_path)[1:] / "elsewhere").read_bytes() == b"x"


def test_a_refused_archive_is_a_line_of_the_verdict(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.tar.gz", HOSTILE["a link"])
    (check,) = check_archive(path, None)
    assert not check.passed
    assert "a link or a device" in check.found
    assert check.fix
