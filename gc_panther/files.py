"""Files and folders that are written as a whole or not at all, also several files at once."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gc_panther import interruption
from gc_panther.errors import OutputError, UserError

#: Bytes of a file's name that Linux's file systems take.
_LONGEST_NAME = 255


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes its own name when the block ends well.

    At every moment ``path`` holds all of the new content or is as it was, also where the process is
    killed or the disk is full. Its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(path, "part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder under a temporary name, which takes its own name when the block ends well.

    Where it ends with an error, ``path`` is as it was. What a process that was killed has left of
    the same folder is removed.

    Args:
        path: the folder to make.
        replace: whether it takes the place of an earlier one.

    Raises:
        OSError: there is one that is not to be replaced, or the folder cannot be made.
    """
    temporary, earlier = _hidden(path, "part"), _hidden(path, "earlier")
    if earlier.exists() and not path.exists():
        # The process was killed between the two renames below.
        earlier.rename(path)
    for left in (temporary, earlier):
        if left.exists():
            shutil.rmtree(left)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replace and path.exists():
            path.rename(earlier)
        try:
            temporary.rename(path)
        except OSError:
            if earlier.exists():
                earlier.rename(path)
            raise
        shutil.rmtree(earlier, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def staged_files() -> Iterator[StagedFiles]:
    """Files that appear together when the block ends well, or none of them.

    Until then their content lies where nobody sees it. What was written first appears last, so
    that where the most important file is, all are, also where the process is killed. The end of the
    block is a safe point (:func:`gc_panther.interruption.check`), the appearing is not interrupted.

    Raises:
        OutputError: a file cannot be written, or not under its name; all files are as they were.
    """
    staged = StagedFiles()
    try:
        yield staged
        interruption.check()
        staged.publish()
    finally:
        staged.discard()


class StagedFiles:
    """What :func:`staged_files` gives."""

    def __init__(self) -> None:
        self._files: list[_Staged] = []
        self._folders: list[Path] = []

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that is to appear at ``path``; its folder is made.

        Raises:
            OutputError: it cannot be written.
        """
        with _clear_errors(path):
            self._make_folder(path.parent)
            self._files.append(_staged(path, content))

    def publish(self) -> None:
        """Let all files appear.

        Raises:
            OutputError: one cannot take its name; all files are as they were then.
        """
        done: list[tuple[Path, Path | None]] = []
        try:
            for staged in reversed(self._files):
                with _clear_errors(staged.path):
                    earlier = _set_aside(staged.path)
                    done.append((staged.path, earlier))
                    staged.appear()
        except OutputError:
            for path, earlier in reversed(done):
                if earlier is None:
                    path.unlink(missing_ok=True)
                else:
                    earlier.replace(path)
            raise
        for _, earlier in done:
            if earlier is not None:
                earlier.unlink()
        self._folders.clear()

    def discard(self) -> None:
        """Remove what has not appeared, and the folders that were made for it."""
        for staged in self._files:
            staged.discard()
        for folder in reversed(self._folders):
            with suppress(OSError):
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
            missing.mkdir(exist_ok=True)
            self._folders.append(missing)


@dataclass(frozen=True)
class _Staged:
    """The content of a file that has not appeared yet.

    Attributes:
        path: where it is to appear.
        descriptor: a file without a name, where the file system has such files.
        temporary: its hidden name, elsewhere.
    """

    path: Path
    descriptor: int | None = None
    temporary: Path | None = None

    def appear(self) -> None:
        temporary = self.temporary
        if self.descriptor is not None:
            if not os.path.lexists(self.path):
                _name(self.descriptor, self.path)
                return
            temporary = _hidden(self.path, "part")
            # Of a process that was killed; a name is only given where none is.
            temporary.unlink(missing_ok=True)
            _name(self.descriptor, temporary)
        assert temporary is not None, "a staged file has one or the other"  # noqa: S101
        temporary.replace(self.path)

    def discard(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
        for hidden in (self.temporary, _hidden(self.path, "part")):
            if hidden is not None:
                hidden.unlink(missing_ok=True)


def _staged(path: Path, content: bytes) -> _Staged:
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError:
        # No such files on this file system; a folder that cannot be written says so again.
        return _staged_by_name(path, content)
    try:
        _write(descriptor, content)
        # Whether /proc is there to give it a name by; the name itself is taken later.
        Path(f"/proc/self/fd/{descriptor}").stat()
    except OSError:
        os.close(descriptor)
        return _staged_by_name(path, content)
    return _Staged(path, descriptor=descriptor)


def _staged_by_name(path: Path, content: bytes) -> _Staged:
    temporary = _hidden(path, "part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write(descriptor, content)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return _Staged(path, temporary=temporary)


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _name(descriptor: int, path: Path) -> None:
    """Give a file without a name one that is free."""
    folder = os.open("/proc/self/fd", os.O_PATH)
    try:
        # With a folder Python calls linkat, which alone follows the link that /proc shows.
        os.link(str(descriptor), path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _set_aside(path: Path) -> Path | None:
    """A second name for the file at ``path``, which stays there if it can; None where none is."""
    if not os.path.lexists(path):
        return None
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    earlier = _hidden(path, "earlier")
    earlier.unlink(missing_ok=True)
    try:
        os.link(path, earlier, follow_symlinks=False)
    except OSError:
        # A file system without hard links.
        path.rename(earlier)
    return earlier


def _hidden(path: Path, what: str) -> Path:
    """A hidden name in a file's folder."""
    name = f".{path.name}.{what}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        name = f".{digest}.{what}"
    return path.with_name(name)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the file cannot be written ({error.strerror})",
            where=path,
            fix="Check the folder and the free space",
        ) from error


def check_target(path: Path) -> None:
    """Refuse a file that could not be written after minutes of work.

    Its folder need not be there; the nearest one that is has to take files.

    Raises:
        UserError: it is a folder or a device, or it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(
                f"the file to be written is a {'folder' if path.is_dir() else 'device'}",
                where=path,
                fix="Give the name of a file",
            )
        nearest = next(one for one in path.absolute().parents if os.path.lexists(one))
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(
            f"the file cannot be written ({error.strerror})",
            where=path,
            fix="Check its name and its folder",
        ) from error


def check_distinct(files: Mapping[str, Path]) -> None:
    """Refuse two files of one place, whatever links and spellings lead there.

    Args:
        files: by what they are called; the later ones are written.

    Raises:
        UserError: one would replace another.
    """
    for (name, first), (later, second) in itertools.combinations(files.items(), 2):
        if _same(first, second):
            raise UserError(
                f"{later} would replace {name}", where=second, fix="Give it another name"
            )


def _same(first: Path, second: Path) -> bool:
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return first.samefile(second)
    except OSError:
        return False
