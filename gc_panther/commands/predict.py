"""``gc-panther predict``: one image file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import interruption
from gc_panther.case import Case, Result
from gc_panther.commands.flow import process
from gc_panther.errors import UserError
from gc_panther.files import StagedFiles, check_distinct, check_target
from gc_panther.imaging.images import check_mask_ending, check_mask_format, read_image
from gc_panther.imaging.names import without_ending
from gc_panther.platform.outputs import encode_image, encode_picture
from gc_panther.session import Choices, Session, check_sockets, errors_notified
from gc_panther.settings import Settings
from gc_panther.task import Task


def predict(
    task: Task,
    manager: pluggy.PluginManager,
    settings: Settings,
    choices: Choices,
    *,
    image_path: Path,
    mask_path: Path,
    report_path: Path | None = None,
    picture_path: Path | None = None,
) -> dict[str, Any]:
    """Segment one image file.

    Args:
        task: a task that takes one image.
        manager: the plugins.
        settings: the environment.
        choices: device, weights and inference options.
        image_path: in any format that :func:`~gc_panther.imaging.images.read_image` reads.
        mask_path: its ending chooses the format; an existing file is replaced.
        report_path: where the run report goes, if anywhere.
        picture_path: where a PNG of the mask over the image goes, if anywhere.

    Returns:
        The run report.

    Raises:
        GCPantherError: with what was wrong; nothing has been written then.
    """
    with errors_notified(manager, task):
        check_sockets(task, manager)
        slug = image_slug(task)
        check_targets(image_path, mask_path, report=report_path, picture=picture_path)
        case = read_case(slug, image_path)
    with errors_notified(manager, task, case):
        check_mask_format(mask_path, case.images[slug].geometry, settings.scratch)
        outputs = FileOutputs(mask_path, report_path, picture_path)
        with Session(task, manager, settings, choices) as session:
            return process(session, case, outputs, began=choices.started)


@dataclass(frozen=True)
class FileOutputs:
    """The files of a result of one image; existing ones are replaced.

    Attributes:
        mask: the mask; its ending chooses the format.
        report: where the run report goes, if anywhere.
        picture: where a PNG of the mask over the image goes, if anywhere.
        facts: further entries of the run report.
        outdated: a file that would not belong to the new result, and is removed before.
    """

    mask: Path
    report: Path | None = None
    picture: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    outdated: Path | None = None

    def write(
        self, staged: StagedFiles, case: Case, result: Result, scratch: Path
    ) -> Mapping[str, Any]:
        """Stage mask and picture; return ``facts``, and the mask's path and digest.

        Raises:
            OutputError: one of them cannot be written.
        """
        if self.outdated is not None:
            self.outdated.unlink(missing_ok=True)
        content = encode_image(result.mask, self.mask, scratch)
        staged.write(self.mask, content)
        if self.picture is not None:
            staged.write(self.picture, _picture(case, result, scratch))
        digest = hashlib.sha256(content).hexdigest()
        return {**self.facts, "mask": str(self.mask), "mask_sha256": digest}


def _picture(case: Case, result: Result, scratch: Path) -> bytes:
    from gc_panther.report.overlay import save_overlay

    (image,) = case.images.values()

    def draw(path: Path) -> None:
        save_overlay(
            image,
            result.mask,
            path,
            roi=result.details.get("roi"),
            title=case.name,
            warnings=result.warnings,
        )

    return encode_picture(draw, scratch)


def image_slug(task: Task) -> str:
    """The socket of the one image that a task takes.

    Raises:
        UserError: it takes several.
    """
    single = [i.inputs[0] for i in task.interfaces if len(i.inputs) == 1]
    slug = next((socket.slug for socket in single if socket.kind == "Image"), None)
    if slug is None:
        raise UserError(
            f"{task.name} needs several images at once",
            fix="Use `gc-panther run` with an input folder",
        )
    return slug


def read_case(slug: str, image_path: Path) -> Case:
    """A case of one image file, called by the file's name without its ending.

    Raises:
        InputError: the image cannot be read.
        Interrupted: a signal asked the work to stop.
    """
    interruption.check()
    return Case(without_ending(image_path.name), {slug: read_image(image_path)}, {slug: image_path})


def check_targets(
    image: Path, mask: Path, *, report: Path | None = None, picture: Path | None = None
) -> None:
    """Refuse what would fail after minutes of work, or would cost the user a file.

    Raises:
        UserError: a file cannot be written, or one would replace another.
    """
    optional = {"the report": report, "the picture": picture}
    targets = {"the mask": mask} | {name: path for name, path in optional.items() if path}
    check_distinct({"the image": image} | targets)
    for target in targets.values():
        check_target(target)
        if not target.parent.is_dir():
            raise UserError("the folder does not exist", where=target.parent, fix="Make it first")
    if picture is not None and picture.suffix.lower() != ".png":
        raise UserError("pictures are PNG files", where=picture, fix="Let its name end in .png")
    check_mask_ending(mask)
