"""What is put into ``/output``: one checked mask and ``results.json``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from gc_panther.case import Case, Geometry, Result, Volume
from gc_panther.errors import OutputError
from gc_panther.files import StagedFiles, check_distinct, check_target
from gc_panther.imaging import images
from gc_panther.imaging.names import image_ending
from gc_panther.json_files import as_json
from gc_panther.task import Socket, Task

RESULTS_FILE = "results.json"
MASK_ENDING = ".mha"


@dataclass(frozen=True)
class PlatformOutputs:
    """The files of a case's outputs in the platform's output folder.

    Attributes:
        mask: the mask's file.
        results: the file of ``results.json``.
        report: where the run report goes, if anywhere.
    """

    mask: Path
    results: Path
    report: Path | None = None

    def write(
        self, staged: StagedFiles, case: Case, result: Result, scratch: Path
    ) -> Mapping[str, Any]:
        """Stage the mask and ``results.json``; the run report has nothing to say about them.

        Raises:
            OutputError: one of them cannot be written.
        """
        staged.write(self.mask, encode_image(result.mask, self.mask, scratch))
        staged.write(self.results, as_json([self._entry(case, result)]))
        return {}

    def _entry(self, case: Case, result: Result) -> dict[str, Any]:
        """The case's entry in ``results.json``, in the form that evalutils gave it."""
        return {
            "outputs": [{"type": "metaio_image", "filename": self.mask.name}],
            "inputs": [
                {"type": "metaio_image", "filename": source.name, "socket": slug}
                for slug, source in case.sources.items()
            ],
            "error_messages": [],
            "notes": list(result.notes),
            "warnings": list(result.warnings),
            "empty_mask": result.details.get("empty_mask"),
        }


def platform_outputs(
    task: Task, case: Case, output_path: Path, report_path: Path | None = None
) -> PlatformOutputs:
    """Say where a case's outputs go, and refuse what could not be written after the work.

    Args:
        task: the task.
        case: as :func:`gc_panther.platform.inputs.read_case` read it.
        output_path: the platform's ``/output``.
        report_path: where the run report goes, if anywhere.

    Raises:
        GCPantherError: a file cannot be written, or would replace another one.
    """
    (socket,) = task.interface_of(case).outputs
    mask_name = next(iter(case.sources.values())).stem + MASK_ENDING
    mask = output_path / socket.relative_path / mask_name
    outputs = PlatformOutputs(mask, output_path / RESULTS_FILE, report_path)
    written = {"the mask": outputs.mask, "results.json": outputs.results}
    if report_path is not None:
        written["the report"] = report_path
    check_distinct({f"the image {slug}": path for slug, path in case.sources.items()} | written)
    for path in written.values():
        check_target(path)
    check_output_folder(mask.parent, mask_name)
    return outputs


def check_outputs(result: Result, case: Case, task: Task) -> None:
    """Refuse a result that is not what the case's interface declares.

    Args:
        result: what the task returned.
        case: for this case.
        task: the task.

    Raises:
        OutputError: an output is missing or undeclared, or a mask is not sound.
    """
    declared, returned = task.interface_of(case).outputs, result.outputs
    if set(returned) != set(declared):
        raise OutputError(
            f"{task.name} returned {_listed(returned)} instead of {_listed(declared)}",
            fix="This is a fault of the task; please report it",
        )
    grid = next(iter(case.images.values())).geometry
    for mask in returned.values():
        check_mask(mask, grid, task)


def _listed(sockets: Iterable[Socket]) -> str:
    return ", ".join(sorted(socket.slug for socket in sockets)) or "nothing"


def check_mask(mask: Volume, expected: Geometry, task: Task) -> None:
    """Refuse a mask that the platform or a reader of it could misunderstand.

    Args:
        mask: what the task returned.
        expected: the geometry of the image that was segmented.
        task: says which values a mask may hold.

    Raises:
        OutputError: another grid than the image's, another type than uint8, or other values.
    """
    if not mask.geometry.matches(expected):
        raise OutputError(
            f"{task.name} returned a mask that does not lie on the image's grid",
            fix="This is a fault of the task; please report it",
        )
    if mask.array_zyx.dtype != np.uint8:
        raise OutputError(
            f"{task.name} returned a mask of type {mask.array_zyx.dtype} instead of uint8",
            fix="This is a fault of the task; please report it",
        )
    unknown = sorted(set(np.unique(mask.array_zyx).tolist()) - set(task.mask_values))
    if unknown:
        raise OutputError(
            f"{task.name} returned a mask with the values {unknown}, "
            f"allowed are {list(task.mask_values)}",
            fix="This is a fault of the task; please report it",
        )


def check_output_folder(folder: Path, file_name: str) -> None:
    """Refuse a socket's folder that would hold more than one image afterwards.

    The platform empties ``/output`` before each case. On another machine an earlier result of the
    same case is replaced, but nothing else is deleted.

    Raises:
        OutputError: other files are there.
    """
    with _clear_errors("the output folder cannot be read", folder):
        others = (
            [entry.name for entry in sorted(folder.iterdir()) if entry.name != file_name]
            if folder.is_dir()
            else []
        )
    if others:
        raise OutputError(
            f"the output folder already holds other files ({', '.join(others[:5])})",
            where=folder,
            fix="Empty it; the platform takes exactly one image from there",
        )


def encode_image(volume: Volume, path: Path, scratch: Path) -> bytes:
    """The content of an image file.

    Args:
        volume: a mask, compressed where the format can.
        path: the file it is for; its ending chooses the format.
        scratch: a folder for temporary files.

    Raises:
        OutputError: the format is unknown, or the folder for temporary files cannot be written.
    """
    return images.encode_image(volume, image_ending(path), scratch=scratch)


def encode_picture(draw: Callable[[Path], object], scratch: Path) -> bytes:
    """The content of a picture (PNG).

    Args:
        draw: writes it to a file.
        scratch: a folder for temporary files.

    Raises:
        OutputError: the folder for temporary files cannot be written.
    """
    with _temporary(scratch, "picture.png") as file:
        draw(file)
        return file.read_bytes()


@contextmanager
def _temporary(scratch: Path, name: str) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            yield Path(folder) / name
    except OSError as error:
        raise OutputError(
            f"the folder for temporary files cannot be written ({error.strerror})",
            where=scratch,
            fix="Check the free space, or set GC_PANTHER_SCRATCH to another folder",
        ) from error


def remove_earlier_results(output_path: Path, task: Task) -> None:
    """Remove what an earlier case left in the output folder, lest it is taken for the next one's.

    That is ``results.json`` and the masks it names. Nothing else is deleted.

    Args:
        output_path: the platform's ``/output``.
        task: whose sockets may hold the masks.

    Raises:
        OutputError: it cannot be removed.
    """
    results = output_path / RESULTS_FILE
    with _clear_errors("the results of an earlier case cannot be removed", results):
        if not results.is_file():
            return
        try:
            listed = TypeAdapter(list[_Result]).validate_json(results.read_bytes())
        except ValidationError:
            listed = []
        names = {output.filename for entry in listed for output in entry.outputs}
        for socket in (socket for interface in task.interfaces for socket in interface.outputs):
            for name in names:
                if name == ".." or Path(name).name != name:
                    continue
                (output_path / socket.relative_path / name).unlink(missing_ok=True)
        results.unlink()


def remove_earlier_mask(path: Path) -> None:
    """Remove a mask that an earlier run has left in the place of the next one, if it has.

    Raises:
        OutputError: it cannot be removed.
    """
    with _clear_errors("the mask of an earlier run cannot be removed", path):
        path.unlink(missing_ok=True)


@contextmanager
def _clear_errors(problem: str, where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{problem} ({error.strerror})",
            where=error.filename or where,
            fix="Check that the output is writable for this user",
        ) from error


class _Output(BaseModel):
    filename: str


class _Result(BaseModel):
    """An entry of ``results.json``, as far as it is read here."""

    outputs: list[_Output]
