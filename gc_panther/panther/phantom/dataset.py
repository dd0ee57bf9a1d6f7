"""Folders of phantoms in PANTHER's layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from gc_panther.case import Volume
from gc_panther.errors import UserError
from gc_panther.imaging.images import write_image
from gc_panther.imaging.names import channel_file
from gc_panther.json_files import write_json
from gc_panther.panther.phantom.generate import (
    PHANTOM_VERSION,
    PROTOCOLS,
    generate_phantom,
)
from gc_panther.processes import end_with_parent

#: First patient number of each task, as in PANTHER's own file names.
FIRST_PATIENT = {"task1": 10000, "task2": 10303}
#: Noise does not compress; higher levels only take longer.
COMPRESSION = 2
NOTE = "Synthetic data from gc_panther's digital phantom. No patient data. Not for clinical use."


@dataclass(frozen=True)
class Job:
    """One case to make and where to write it; small, because it travels to a worker process."""

    task: str
    seed: int
    case: int
    name: str
    out: Path
    images: str
    labelled: bool
    organs: bool
    options: tuple[tuple[str, Any], ...] = ()


def case_name(task: str, case: int) -> str:
    """PANTHER's name of a case: ``10000_0001`` (patient, study) in task 1, ``10303`` in task 2."""
    patient = FIRST_PATIENT[task] + case
    return f"{patient}_0001" if task == "task1" else f"{patient}"


def make_case(job: Job) -> dict[str, Any]:
    """Generate one case, write its files, return its entry for ``phantoms.json``."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    phantom = generate_phantom(job.task, job.seed, case=job.case, **dict(job.options))
    files = {f"{job.images}/{channel_file(job.name)}": phantom.image_zyx}
    if job.labelled:
        files[f"LabelsTr/{job.name}.mha"] = phantom.label_zyx
    if job.organs and job.labelled:
        files[f"OrgansTr/{job.name}.mha"] = phantom.organs_zyx
    for file, array_zyx in files.items():
        write_image(Volume(array_zyx, phantom.geometry), job.out / file, level=COMPRESSION)
    return {"name": job.name, "folder": job.images, **phantom.facts}


def make_dataset(
    task: str,
    out: Path | str,
    cases: int,
    seed: int,
    *,
    first_case: int = 0,
    unlabelled: int = 0,
    organs: bool = True,
    workers: int = 1,
    progress: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Write a folder of phantoms in PANTHER's layout.

    ``ImagesTr/10000_0001_0000.mha`` and ``LabelsTr/10000_0001.mha`` for task 1,
    ``ImagesTr/10303_0000.mha`` and ``LabelsTr/10303.mha`` for task 2,
    ``ImagesTr_unlabeled/`` for images without labels. Beyond PANTHER: ``OrgansTr/`` with organ
    labels in MRSegmentator's numbering, and ``phantoms.json``.

    Args:
        task: ``"task1"`` or ``"task2"``.
        out: folder to write; must be empty or not exist.
        cases: number of labelled cases.
        seed: any non-negative integer. The bytes of a case depend on (task, seed, case) alone.
        first_case: number of the first case; later ones count on, the unlabelled ones last.
        unlabelled: number of further images without labels.
        organs: whether to write ``OrgansTr``.
        workers: number of processes.
        progress: called with each finished case's entry, in the order of the cases.
        **options: passed to :func:`generate_phantom` (size_xyz, spacing_xyz, contrast,
            varied).

    Returns:
        The entries of ``phantoms.json``, one per case.

    Raises:
        UserError: unknown task, a number out of range, or a folder that isn't empty.
    """
    out = Path(out)
    _check(task, out, cases, unlabelled, seed, first_case, workers)
    folders = ["ImagesTr", "LabelsTr"] if cases else []
    folders += ["OrgansTr"] if cases and organs else []
    folders += ["ImagesTr_unlabeled"] if unlabelled else []
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            task,
            seed,
            case,
            case_name(task, case),
            out,
            "ImagesTr" if n < cases else "ImagesTr_unlabeled",
            n < cases,
            organs,
            tuple(sorted(options.items())),
        )
        for n, case in enumerate(range(first_case, first_case + cases + unlabelled))
    ]
    entries = []
    for entry in _run(jobs, workers):
        entries.append(entry)
        if progress is not None:
            progress(entry)
    summary = {
        "note": NOTE,
        "phantom_version": PHANTOM_VERSION,
        "task": task,
        "seed": seed,
        "cases": entries,
    }
    write_json(out / "phantoms.json", summary)
    return entries


def _run(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1 or len(jobs) < 2:
        yield from map(make_case, jobs)
        return
    from multiprocessing import get_context

    # spawn: a forked child of a process that has started threads can hang.
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        yield from pool.map(make_case, jobs)


def _check(
    task: str, out: Path, cases: int, unlabelled: int, seed: int, first_case: int, workers: int
) -> None:
    if task not in PROTOCOLS:
        raise UserError(f"unknown task {task!r}", fix=f"Known tasks: {', '.join(PROTOCOLS)}")
    for name, value, least in (
        ("cases", cases, 0),
        ("unlabelled", unlabelled, 0),
        ("seed", seed, 0),
        ("first case", first_case, 0),
        ("workers", workers, 1),
        ("cases and unlabelled together", cases + unlabelled, 1),
    ):
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
    if out.exists() and not out.is_dir():
        raise UserError("the output is a file", where=out, fix="Give a folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            "the output folder is not empty", where=out, fix="Give a new or an empty folder"
        )
