"""Which images a cohort has, and where the results of each go."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from gc_panther.errors import InputError, OutputError, UserError
from gc_panther.imaging.names import without_channel, without_ending

#: Which files are images, and what their masks end in; the longest that fits counts.
ENDINGS = {
    ".nii.gz": ".nii.gz",
    ".nii": ".nii.gz",
    ".nrrd": ".nrrd",
    ".nhdr": ".nrrd",
    ".mha": ".mha",
    ".mhd": ".mha",
}


@dataclass(frozen=True)
class Planned:
    """An image of the cohort and where its results go.

    Attributes:
        name: the image's path below the cohort's folder, in printable characters, as in the
            table.
        image: the image.
        mask: its mask.
    """

    name: str
    image: Path
    mask: Path

    @property
    def report(self) -> Path:
        """The run report, next to the mask."""
        return self.mask.with_name(f"{without_ending(self.mask.name)}.json")

    @property
    def picture(self) -> Path:
        """The picture, next to the mask."""
        return self.mask.with_name(f"{without_ending(self.mask.name)}.png")

    def check(self, mask_folder: Path) -> None:
        """Refuse, before any work, results that could not take their places.

        Raises:
            InputError: the image's name is not valid UTF-8.
            OutputError: a result's name is too long, or a folder or a mask of another format is
                there.
        """
        try:
            str(self.image).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "the name of the image is not valid UTF-8", where=self.image, fix="Rename it"
            ) from error
        longest = os.pathconf(mask_folder, "PC_NAME_MAX")
        for target in (self.mask, self.report, self.picture):
            if len(os.fsencode(target.name)) > longest:
                raise OutputError(
                    f"the name of the result is longer than {longest} bytes",
                    where=target.name,
                    fix="Rename the image",
                )
            if os.path.isdir(target):  # noqa: PTH112 - False where the path is too long
                raise OutputError("a folder is where the result belongs", where=target)
        others = {without_ending(self.mask.name) + ending for ending in ENDINGS.values()}
        for other in sorted(others - {self.mask.name}):
            if os.path.lexists(self.mask.with_name(other)):
                raise OutputError(
                    "there is a mask of the same name in another format",
                    where=self.mask.with_name(other),
                    fix="Move it away, or choose another folder for the masks",
                )


def plan_cohort(image_folder: Path, mask_folder: Path) -> list[Planned]:
    """Find the images, and say where their masks go.

    Raises:
        InputError: there are no images, two would have the same mask, or the masks would be
            among the images.
    """
    if not image_folder.is_dir():
        raise InputError("there is no such folder of images", where=image_folder)
    if Path(os.path.realpath(mask_folder)).is_relative_to(os.path.realpath(image_folder)):
        raise InputError(
            "the masks would be among the images",
            where=mask_folder,
            fix="Give a folder outside the images'",
        )
    plan: dict[str, Planned] = {}
    for image in sorted(_files(image_folder)):
        below = image.relative_to(image_folder)
        ending = _ending(image)
        if not ending or not _is_file(image):
            continue
        mask = mask_folder / below.with_name(f"{_result_name(image)}{ENDINGS[ending]}")
        one = Planned(printable(below.as_posix()), image, mask)
        other = plan.setdefault(result_key(one.name), one)
        if other is not one:
            raise InputError(
                "two images would have the same results",
                where=f"{other.name} and {one.name} in {image_folder}",
                fix="Rename one, or take it out of the folder",
            )
    if not plan:
        raise InputError(
            f"there are no images ({', '.join(ENDINGS)})",
            where=image_folder,
            fix="DICOM series have to be converted first, for instance by dcm2niix",
        )
    return list(plan.values())


def result_key(name: str) -> str:
    """What the names of an image's results begin with; images of one key share their results."""
    path = PurePath(name)
    return str(path.with_name(_result_name(path))) if path.name else name


def printable(name: str) -> str:
    """A file's name in characters that can be printed and written as UTF-8, the others escaped."""
    return "".join(
        letter
        if letter.isprintable() and letter != "\\"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in name
    )


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, without hidden ones.

    Raises:
        UserError: a folder cannot be read; its images would be missing without a word.
    """

    def stop(error: OSError) -> None:
        raise UserError(
            f"a folder of images cannot be read ({error.strerror})",
            where=error.filename or folder,
            fix="Check its permissions, or take it out of the cohort",
        ) from error

    for place, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in files if not name.startswith("."))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        # A broken link, for instance: an image that cannot be read, which the table has to say.
        return True


def _result_name(path: PurePath) -> str:
    """An image's name without ending and channel."""
    return without_channel(without_ending(path.name) if _ending(path) else path.name)


def _ending(path: PurePath) -> str:
    """Which of :data:`ENDINGS` a file has, or nothing."""
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
