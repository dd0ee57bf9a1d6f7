"""Whether two images hold the same: a build of a commit can be repeated, and checked, anywhere.

    ./do_build.sh task1 --tag first
    ./do_build.sh task1 --tag second --no-cache
    python3 scripts/audit/compare.py first second

Compares every file's path, kind, mode, owner and content; times of change are ignored. Exit
status 1 where anything differs, with the first differences by name. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
from typing import IO, NamedTuple

#: docker, or podman, which takes the same commands.
ENGINE = os.environ.get("CONTAINER_ENGINE") or "docker"
#: Written by the engine for each container.
ENGINE_FILES = {".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"}
SHOWN = 20


class Entry(NamedTuple):
    """A file, folder or link of an image; the content's SHA-256, or where the link goes."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str


def entries(stream: IO[bytes]) -> dict[str, Entry]:
    """What a tar stream holds, by path."""
    found = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./").strip("/")
            if path in ENGINE_FILES or path.startswith(("dev/", "proc/", "sys/")):
                continue
            content = member.linkname
            if member.isfile():
                file = archive.extractfile(member)
                content = hashlib.file_digest(file, "sha256").hexdigest() if file else ""
            owner = (member.uid, member.gid)
            found[path] = Entry(str(member.type), member.mode, owner, content)
    return found


def of_image(image: str) -> dict[str, Entry]:
    """What an image holds, by path.

    Raises:
        SystemExit: there is no such image, or no engine.
    """
    made = subprocess.run([ENGINE, "create", image], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise SystemExit(f"error: {made.stderr.strip().splitlines()[-1]}")
    container = made.stdout.strip()
    try:
        with subprocess.Popen([ENGINE, "export", container], stdout=subprocess.PIPE) as export:
            return entries(export.stdout) if export.stdout else {}
    finally:
        subprocess.run([ENGINE, "rm", container], capture_output=True, check=False)


def differences(first: dict[str, Entry], second: dict[str, Entry]) -> list[str]:
    """One line per path that is not the same in both, in the order of the paths."""
    lines = []
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one is None or other is None:
            lines.append(f"{path}: only in the {'second' if one is None else 'first'}")
        elif one != other:
            which = [name for name in Entry._fields if getattr(one, name) != getattr(other, name)]
            lines.append(f"{path}: another {', '.join(which)}")
    return lines


def main() -> int:
    """Compare, print, return 1 where they differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    arguments = parser.parse_args()
    first, second = of_image(arguments.first), of_image(arguments.second)
    found = differences(first, second)
    for line in found[:SHOWN]:
        print(line)
    if len(found) > SHOWN:
        print(f"… and {len(found) - SHOWN} more")
    print(f"{len(first)} files, folders and links; {len(found)} differ")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
