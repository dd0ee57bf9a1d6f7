"""What the platform calls an algorithm's inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SocketKind = Literal["Image", "File", "Value"]


@dataclass(frozen=True)
class Socket:
    """One named input or output of an algorithm, as Grand Challenge defines it.

    Attributes:
        slug: the platform's identifier, such as ``abdominal-t1-mri``.
        relative_path: where the value lies below ``/input`` or ``/output``.
        kind: the platform's super kind.
        title: what a person reads.
    """

    slug: str
    relative_path: str
    kind: SocketKind = "Image"
    title: str = ""


@dataclass(frozen=True)
class Interface:
    """One combination of inputs an algorithm accepts, and what it writes for them."""

    inputs: tuple[Socket, ...]
    outputs: tuple[Socket, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The platform's key of an interface: the sorted slugs of its inputs."""
        return tuple(sorted(socket.slug for socket in self.inputs))
