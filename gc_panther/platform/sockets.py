"""Which of a task's sockets are served: images in, one image out."""

from __future__ import annotations

from pathlib import PurePosixPath

from gc_panther.errors import PluginError
from gc_panther.task import Socket, Task


def unserved(task: Task) -> list[str]:
    """What this package cannot do with a task's sockets, one phrase each; empty where it can."""
    found = []
    for interface in task.interfaces:
        for socket in interface.inputs:
            if socket.kind != "Image":
                found.append(f"the input {socket.slug} is a {socket.kind}, only images are read")
        for socket in interface.outputs:
            if socket.kind != "Image":
                found.append(
                    f"the output {socket.slug} is a {socket.kind}, only one image is written"
                )
        if not interface.inputs:
            found.append("an interface has no input")
        images = [socket.slug for socket in interface.outputs if socket.kind == "Image"]
        if len(images) > 1:
            found.append(f"the outputs {' and '.join(images)} are several images, not one")
        elif not interface.outputs:
            found.append(f"the interface {' + '.join(interface.key)} has no output")
        found += [
            f"the path {socket.relative_path!r} of {socket.slug} is not one below a folder"
            for socket in (*interface.inputs, *interface.outputs)
            if not _is_below(socket)
        ]
    if not task.interfaces:
        found.append("it has no interface")
    return list(dict.fromkeys(found))


def check_served(task: Task, plugin: str) -> None:
    """Refuse to use a task with sockets that would be ignored.

    Args:
        task: the task.
        plugin: the name of what provides it.

    Raises:
        PluginError: with what is not served.
    """
    problems = unserved(task)
    if problems:
        raise PluginError(
            f"the task {task.name} cannot be used: {'; '.join(problems)}",
            where=f"plugin {plugin}",
            fix="Its author has to change its interfaces",
        )


def _is_below(socket: Socket) -> bool:
    path = PurePosixPath(socket.relative_path)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
