"""What lies in ``/input``: which interface is asked for, and which file belongs to which socket.

The platform describes a case in ``inputs.json``, a list with one entry per socket value. Older
entries call the socket ``interface``. Without the file, the task's own sockets are looked for.
``relative_path``, not the slug, says where a value lies.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from gc_panther.case import Case
from gc_panther.errors import InputError
from gc_panther.imaging.images import read_image
from gc_panther.imaging.names import without_ending
from gc_panther.task import Interface, Socket, Task

logger = logging.getLogger(__name__)

INPUTS_FILE = "inputs.json"
#: Bytes; the platform's have less than two thousand.
_LONGEST_LIST = 1 << 20
#: Characters of a case's name; file names are no longer.
_LONGEST_NAME = 255

#: Endings of the images the platform writes.
IMAGE_ENDINGS = (".mha", ".tif", ".tiff")


class SocketEntry(BaseModel):
    """A socket as ``inputs.json`` describes it; keys that are not needed are ignored."""

    slug: str
    relative_path: str


class ImageEntry(BaseModel):
    """The image of a socket value."""

    name: str = ""


class InputEntry(BaseModel):
    """One entry of ``inputs.json``."""

    socket: SocketEntry | None = None
    interface: SocketEntry | None = None
    image: ImageEntry | None = None

    @property
    def described(self) -> SocketEntry | None:
        """The socket under its new name, else under its old one."""
        return self.socket or self.interface


class InputList(BaseModel):
    """All of ``inputs.json``."""

    entries: list[InputEntry] = Field(min_length=1)


@dataclass(frozen=True)
class InputFiles:
    """The files of one case.

    Attributes:
        interface: the one of the task's that they fit.
        images: file of each of its image sockets, by slug; below the input folder as it was given,
            which may be a symlink, and never resolved.
        name: the case's name: the first image's original file name without its ending.
    """

    interface: Interface
    images: Mapping[str, Path]
    name: str


def read_case(folder: Path, task: Task) -> Case:
    """Read the case in an input folder.

    Args:
        folder: the platform's ``/input``.
        task: whose sockets are expected.

    Raises:
        InputError: the folder breaks the contract (:func:`find_inputs`), or an image cannot be
            read.
    """
    inputs = find_inputs(folder, task)
    images = {slug: read_image(path) for slug, path in inputs.images.items()}
    sizes = ", ".join(
        f"{slug} {'×'.join(map(str, volume.geometry.size_xyz))} voxels at "
        f"{'×'.join(f'{mm:.3g}' for mm in volume.geometry.spacing_xyz)} mm"
        for slug, volume in images.items()
    )
    logger.info("case %s: %s", inputs.name, sizes)
    return Case(inputs.name, images, inputs.images)


def find_inputs(folder: Path, task: Task) -> InputFiles:
    """Find the files of the case in an input folder.

    Args:
        folder: the platform's ``/input``.
        task: whose sockets are expected.

    Raises:
        InputError: a folder or an image is missing, there is more than one image, the sockets fit
            none of the task's interfaces, ``inputs.json`` is damaged, a link leads elsewhere, or
            something cannot be read or is not a regular file.
    """
    try:
        return _find_inputs(folder, task)
    except OSError as error:
        raise InputError(
            f"the input cannot be read ({error.strerror})",
            where=error.filename or folder,
            fix="Check the paths, links and permissions in the input folder",
        ) from error


def _find_inputs(folder: Path, task: Task) -> InputFiles:
    if not folder.is_dir():
        raise InputError("there is no input folder", where=folder, fix="Mount the case there")
    entries = _read_entries(folder)
    if entries is None:
        interface = _interface_from_folders(folder, task)
        paths = {socket.slug: socket.relative_path for socket in interface.inputs}
        original = ""
    else:
        interface = _interface_from_slugs(entries, task, folder / INPUTS_FILE)
        paths = {socket.slug: socket.relative_path for socket, _ in entries}
        original = next((image.name for _, image in entries if image and image.name), "")
    images = {
        socket.slug: _single_image(folder, paths[socket.slug], socket)
        for socket in interface.inputs
        if socket.kind == "Image"
    }
    name = Path(original).name or next(iter(images.values())).name
    return InputFiles(interface, images, _shown(name))


def _read_entries(folder: Path) -> list[tuple[SocketEntry, ImageEntry | None]] | None:
    file = folder / INPUTS_FILE
    if not os.path.lexists(file):
        return None
    _check_file(folder, file)
    if file.stat().st_size > _LONGEST_LIST:
        raise InputError(f"{INPUTS_FILE} is too long to be the platform's", where=file)
    try:
        listed = TypeAdapter(list[InputEntry]).validate_python(
            json.loads(file.read_text(encoding="utf-8"))
        )
        InputList(entries=listed)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the list"
        raise InputError(
            f"{INPUTS_FILE} is not understood ({place}: {first['msg']})", where=file
        ) from error
    # Brackets within brackets exhaust the parser.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{INPUTS_FILE} is not valid JSON ({error})", where=file) from error
    entries = []
    for entry in listed:
        if entry.described is None:
            raise InputError(
                f"an entry of {INPUTS_FILE} names neither a socket nor an interface", where=file
            )
        entries.append((entry.described, entry.image))
    return entries


def _interface_from_slugs(
    entries: list[tuple[SocketEntry, ImageEntry | None]], task: Task, file: Path
) -> Interface:
    given = sorted(socket.slug for socket, _ in entries)
    interface = task.interface_for(given)
    if interface is None:
        raise InputError(
            f"the inputs ({', '.join(given)}) fit no interface of {task.name} "
            f"(expected: {_expected(task)})",
            where=file,
            fix="Run the container of the task these inputs belong to",
        )
    return interface


def _interface_from_folders(folder: Path, task: Task) -> Interface:
    for interface in task.interfaces:
        if all((folder / socket.relative_path).is_dir() for socket in interface.inputs):
            return interface
    first = task.interfaces[0].inputs[0]
    raise InputError(
        f"there is neither {INPUTS_FILE} nor a folder of the task's inputs "
        f"(expected: {_expected(task)})",
        where=folder,
        fix=f"Put one image into {folder / first.relative_path}",
    )


def _expected(task: Task) -> str:
    return " or ".join(" + ".join(interface.key) for interface in task.interfaces)


def _single_image(folder: Path, relative_path: str, socket: Socket) -> Path:
    relative = PurePosixPath(relative_path)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(
            f"the path of {socket.slug} leads out of the input folder", where=relative_path
        )
    place = folder / relative
    # A zero byte, which no path holds, is for Python another error than the system's.
    images = (
        sorted(entry for entry in place.iterdir() if entry.name.lower().endswith(IMAGE_ENDINGS))
        if "\0" not in relative_path and place.is_dir()
        else []
    )
    if len(images) != 1:
        found = ", ".join(image.name for image in images[:5]) or "none"
        raise InputError(
            f"{socket.slug} needs exactly one image ({' or '.join(IMAGE_ENDINGS[:2])}), "
            f"found {len(images)} ({found})",
            where=place,
            fix="Leave exactly one image in this folder",
        )
    _check_file(folder, images[0])
    return images[0]


def _check_file(folder: Path, file: Path) -> None:
    """Refuse what is not a regular file, or not below the input folder, which may be a link itself.

    A pipe or a device may never end.
    """
    place = Path(os.path.realpath(file, strict=True))
    if not place.is_relative_to(os.path.realpath(folder, strict=True)):
        raise InputError(
            "a link in the input folder leads out of it", where=file, fix="Copy the file there"
        )
    if not place.is_file():
        raise InputError("this is not a regular file", where=file, fix="Copy the file there")


def _shown(name: str) -> str:
    """The file's name without its ending, as it can be shown on a line."""
    stem = without_ending(name)
    return "".join(sign if sign.isprintable() else "_" for sign in stem)[:_LONGEST_NAME]
