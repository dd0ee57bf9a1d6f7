"""The entry point for a person with an image file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import interruption
from gc_panther.case import Case, Result, Volume
from gc_panther.errors import UserError
from gc_panther.files import check_distinct, check_target, staged_files
from gc_panther.imaging.images import check_mask_ending, check_mask_format, read_image
from gc_panther.platform.outputs import as_json, encode_image, encode_picture
from gc_panther.progress import shown_progress
from gc_panther.session import Choices, Engine, check_sockets, told_to_plugins
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
    with told_to_plugins(manager, task) as work:
        check_sockets(task, manager)
        slug = image_slug(task)
        check_targets(image_path, mask_path, report=report_path, picture=picture_path)
        case = work.case = read_case(slug, image_path)
        check_mask_format(mask_path, case.images[slug].geometry, settings.scratch)
        with Engine(task, manager, settings, choices) as engine:
            with shown_progress() as progress:
                result, report = engine.process(case, progress)
            write_results(
                engine,
                case,
                result,
                report,
                mask_path=mask_path,
                report_path=report_path,
                picture_path=picture_path,
            )
    return report


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
    return Case(_stem(image_path), {slug: read_image(image_path)}, {slug: image_path})


def write_results(
    engine: Engine,
    case: Case,
    result: Result,
    report: dict[str, Any],
    *,
    mask_path: Path,
    report_path: Path | None,
    picture_path: Path | None,
) -> None:
    """Tell the plugins of the result, and write mask, picture and report, all or none of them.

    Args:
        engine: what has segmented the case.
        case: a case of one image.
        result: what :meth:`Engine.process` returned.
        report: the run report; ``mask`` and ``mask_sha256`` are added.
        mask_path: its ending chooses the format; an existing file is replaced.
        report_path: where the run report goes, if anywhere.
        picture_path: where a PNG of the mask over the image goes, if anywhere.

    Raises:
        OutputError: a file cannot be written; all are as they were then.
    """
    (image,) = case.images.values()
    mask = Volume(result.mask.array_zyx, image.geometry)
    report["mask"] = str(mask_path)
    with staged_files() as staged:
        content = encode_image(mask, mask_path, engine.scratch)
        report["mask_sha256"] = hashlib.sha256(content).hexdigest()
        staged.write(mask_path, content)
        if picture_path is not None:
            from gc_panther.report.overlay import save_overlay

            def draw(path: Path) -> None:
                save_overlay(
                    image,
                    mask,
                    path,
                    roi=result.details.get("roi"),
                    title=case.name,
                    warnings=result.warnings,
                )

            staged.write(picture_path, encode_picture(draw, engine.scratch))
        engine.finished(case, result, report)
        if report_path is not None:
            staged.write(report_path, as_json(report))


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


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
