"""Input folders as nobody meant them: the files of a case, or one line that says what is wrong.

A good input folder of the platform is damaged up to four times: in what ``inputs.json`` says, in
its bytes, or by what lies in the place of files and folders. 10,000 cases::

    GC_PANTHER_FUZZ_CASES=10000 ./run_tests.sh --all -s test/fuzz/test_inputs.py
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from harness import run_cases

from gc_panther.case import Case, Geometry, Volume
from gc_panther.errors import LONGEST_ERROR, GCPantherError, describe, error_line
from gc_panther.platform.inputs import find_inputs
from gc_panther.platform.outputs import PlatformOutputs, platform_outputs
from gc_panther.task import Interface, Socket, Task

MASK = Socket("m", "images/m")
SOCKETS = (Socket("a", "images/a"), Socket("b", "images/b"))

#: Values in the place of others; what JSON cannot say is written by hand afterwards.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), [], {}, [[]], {"a": {}}),
    *("", ".", "..", "/", "//", "a", "images", "images/a", "images/a/", "./images//a", "../a"),
    *("images/../../b", "/etc", "images/a/x.mha", "\0", "images/\0a", "\ud800", "a\nerror: b"),
    *("\x1b[31m", "%s%n", "n" * 256, "n" * 5000, "d/" * 3000, "ä" * 200, "x.nii.gz", ".gz", "~"),
)
#: Names of files in a folder of images.
NAMES = (
    *(b"\xff.mha", b"a\nb.mha", b".mha", b"..mha", b"n" * 251 + b".mha", b" .mha", b"-o.mha"),
    *(b"x.MHA", b"x.tif", b"x.mha.gz", b"x.txt", "ä😀.tiff".encode(), b"%n%s.mha", b"\x1b[2J.mha"),
)
#: What the system may answer; permission bits do not bind root, who runs the tests.
ANSWERS = (errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE)


class Two(Task):
    name = "two"
    title = "One image or two"
    interfaces = (Interface(SOCKETS[:1], (MASK,)), Interface(SOCKETS, (MASK,)))
    models = ()

    def load(self, runtime: Any) -> Any:
        raise AssertionError("not loaded here")


def found_in(folder: Path, output: Path) -> tuple[Case, PlatformOutputs]:
    """The case in a folder, with other pixels than those of the files, and where its outputs go."""
    inputs = find_inputs(folder, Two())
    image = Volume(np.zeros((1, 1, 1)), Geometry((1, 1, 1), (1.0, 1.0, 1.0)))
    case = Case(inputs.name, dict.fromkeys(inputs.images, image), inputs.images)
    return case, platform_outputs(Two(), case, output)


def good_folder(rng: random.Random, folder: Path) -> None:
    """An input folder that is as it should be, with or without a list."""
    sockets = rng.choice(Two.interfaces).inputs
    entries = []
    for one in sockets:
        (folder / one.relative_path).mkdir(parents=True)
        (folder / one.relative_path / "x.mha").write_bytes(b"pixels")
        described = {"slug": one.slug, "relative_path": one.relative_path, "kind": "Image"}
        key = rng.choice(["socket", "interface"])
        entries.append({key: described, "image": {"pk": "u", "name": "scan.mha"}, "pk": 1})
    if rng.random() < 0.9:
        (folder / "inputs.json").write_text(json.dumps(entries))


def below(folder: Path) -> list[Path]:
    """Everything in a folder, links not followed."""
    found = []
    for place, folders, files in os.walk(folder):
        found += [Path(place) / name for name in (*folders, *files)]
    return sorted(found)


def change_the_list(rng: random.Random, folder: Path) -> None:
    """Put another value, or none, somewhere into ``inputs.json``."""
    file = folder / "inputs.json"
    with suppress(OSError, ValueError, RecursionError):
        if not stat.S_ISREG(file.lstat().st_mode):
            return
        document = json.loads(file.read_text())
        spots: list[tuple[Any, Any]] = []

        def collect(value: Any) -> None:
            keys = value if isinstance(value, dict) else range(len(value))
            for key in keys:
                spots.append((value, key))
                if isinstance(value[key], (dict, list)):
                    collect(value[key])

        collect(document)
        if not spots:
            return
        where, key = rng.choice(spots)
        match rng.randrange(4):
            case 0:
                del where[key]
            case 1 if isinstance(where, list):
                where += [where[key]] * rng.choice([1, 2, 2000])
            case _:
                where[key] = rng.choice(VALUES)
        file.write_text(json.dumps(document))


def change_the_bytes(rng: random.Random, folder: Path) -> None:
    """Make ``inputs.json`` something that its writer did not write."""
    file = folder / "inputs.json"
    with suppress(OSError):
        if not stat.S_ISREG(file.lstat().st_mode):
            return
        content = bytearray(file.read_bytes())
        at = rng.randrange(len(content) + 1)
        match rng.randrange(9):
            case 0:
                content = content[:at]
            case 1 if content:
                content[at % len(content)] ^= 1 << rng.randrange(8)
            case 2:
                content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 8)))
            case 3:
                content = bytearray(rng.choice([b"[", b'{"a":', b'[{"socket":']) * 200_000)
            case 4:
                content = bytearray(content.decode("latin-1").encode("utf-16"))
            case 5:
                content = bytearray(b"\xef\xbb\xbf") + content
            case 6:
                content += bytearray(b" " * (1 << 21))
            case 7:
                number = rng.choice([b"9" * 6000, b"-1e99999", b"NaN", b"0" * 99, b"1e-400"])
                content = content.replace(b"1", number)
            case _:
                content = bytearray()
        file.write_bytes(content)


def remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def replace_something(rng: random.Random, folder: Path) -> None:
    """Put a link, a pipe, a device or the like in the place of a file or a folder."""
    there = below(folder)
    if not there:
        return
    place = rng.choice(there)
    outside = folder.parent / "outside"
    (outside / "a").mkdir(parents=True, exist_ok=True)
    (outside / "a" / "x.mha").write_bytes(b"of somebody else")
    (outside / "inputs.json").write_text("[]")
    remove(place)
    with suppress(OSError):
        match rng.randrange(10):
            case 0:
                place.symlink_to(place.name)
            case 1:
                place.symlink_to("nowhere")
            case 2:
                targets = [outside, outside / "a", outside / "a" / "x.mha", outside / "inputs.json"]
                place.symlink_to(rng.choice([*targets, Path("/etc/passwd"), Path("/")]))
            case 3:
                place.symlink_to(rng.choice([*there, folder, Path(".."), Path()]))
            case 4:
                place.mkdir()
            case 5:
                os.mkfifo(place)
            case 6:
                # The null and the endless device.
                os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, rng.choice([3, 5])))
            case 7:
                place.symlink_to(rng.choice(["/dev/zero", "/dev/stdin", "/proc/self/mem"]))
            case 8:
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(place))
            case _:
                place.write_bytes(b"")


def add_something(rng: random.Random, folder: Path) -> None:
    """Put a further file, or one of another name, into a folder."""
    folders = [folder, *(place for place in below(folder) if place.is_dir())]
    place = rng.choice(folders)
    added = place / os.fsdecode(rng.choice(NAMES))
    with suppress(OSError):
        first = sorted(entry for entry in place.iterdir() if entry.suffix == ".mha")
        if first and rng.random() < 0.6:
            first[0].rename(added)
        elif rng.random() < 0.5:
            added.mkdir()
        else:
            added.touch()


DAMAGES: tuple[Callable[[random.Random, Path], None], ...] = (
    change_the_list,
    change_the_list,
    change_the_bytes,
    replace_something,
    add_something,
)


@contextmanager
def moody_system(rng: random.Random) -> Iterator[None]:
    """Now and then one of the system's answers is an error."""
    if rng.random() < 0.85:
        yield
        return
    name = rng.choice(["iterdir", "read_text", "stat", "lstat", "is_dir"])
    real, calls, number = getattr(Path, name), iter(range(rng.randrange(6))), rng.choice(ANSWERS)

    def answer(path: Path, *arguments: Any, **options: Any) -> Any:
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)

    with mock.patch.object(Path, name, answer):
        yield


def state(folder: Path) -> list[tuple[str, int, int]]:
    """What is in a folder, as far as a change would show."""
    facts = [(str(place), place.lstat()) for place in below(folder)]
    return [(name, fact.st_mode, fact.st_mtime_ns) for name, fact in facts]


def check_case(rng: random.Random, workplace: Path) -> None:
    """Damage a folder; find a sound case in it, or one clear line."""
    shutil.rmtree(workplace, ignore_errors=True)
    folder, output = workplace / "input", workplace / "output"
    folder.mkdir(parents=True)
    good_folder(rng, folder)
    for _ in range(rng.randrange(5)):
        rng.choice(DAMAGES)(rng, folder)
    before = state(workplace)
    try:
        with moody_system(rng):
            case, outputs = found_in(folder, output)
    except GCPantherError as error:
        line = error_line(describe(error)[0])
        assert len(line) <= LONGEST_ERROR
        assert "\n" not in line
        assert "\x1b" not in line
        line.encode(errors="backslashreplace")
    else:
        for image in case.sources.values():
            real = Path(os.path.realpath(image, strict=True))
            assert real.is_relative_to(os.path.realpath(folder))
            assert stat.S_ISREG(real.stat().st_mode)
        assert 0 < len(case.name) <= 255
        assert case.name.isprintable()
        assert Path(os.path.normpath(outputs.mask)).parent == output / MASK.relative_path
    assert state(workplace) == before


@pytest.mark.slow  # 300 cases; the classes that were found have tests of their own
def test_damaged_input_folders_give_a_case_or_one_line(tmp_path: Path) -> None:
    failures = run_cases(lambda rng: check_case(rng, tmp_path / "case"), 300)
    assert not failures, "\n".join(map(str, failures[:10]))


def test_a_folder_that_is_not_damaged_is_a_case(tmp_path: Path) -> None:
    rng = random.Random(0)
    good_folder(rng, tmp_path / "input")
    case, _ = found_in(tmp_path / "input", tmp_path / "output")
    assert case.sources["a"] == tmp_path / "input/images/a/x.mha"
