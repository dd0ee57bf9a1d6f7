"""Tumour accuracy of the installed tasks on full-size phantoms of a seed never trained on.

    python benchmarks/accuracy.py                         # 20 cases of each task
    python benchmarks/accuracy.py --tasks task2 --cases 5
    python benchmarks/accuracy.py --update-docs --check

Cases run one after the other in one warm process, through the session behind `gc-panther run`.
Finished cases are kept in the work folder, per phantom seed and weights, and not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from phantoms import SEED, phantom_files, say
from warm import ROOT, WarmTask

from gc_panther.case import Volume
from gc_panther.imaging.images import read_image, write_image
from gc_panther.json_files import finite
from gc_panther.options import RunOptions
from gc_panther.panther.evaluation.metrics import TUMOUR, CaseScore, score_volumes
from gc_panther.panther.evaluation.tables import COLUMNS, as_document, markdown_summary
from gc_panther.panther.options import PantherOptions
from gc_panther.report.overlay import save_overlay
from gc_panther.session import Choices

DOCS = ROOT / "docs" / "accuracy.md"
PICTURES = ROOT / "docs" / "img"
BEGIN, END = "<!-- accuracy:begin -->", "<!-- accuracy:end -->"

#: What has to be reached: mean tumour Dice per task, and the share of the tumour in the crop.
MEAN_DICE = {"task1": 0.70, "task2": 0.65}
SHARE_IN_CROP = 0.99


@dataclass(frozen=True)
class Result:
    """One finished case.

    Attributes:
        score: the metrics.
        seconds: time of the segmentation in the warm process, reading and scoring left out.
        fallback: the networks found no tumour and the most probable component was kept.
        share_in_crop: share of the reference tumour inside the region of interest, None where the
            task has none.
        roi: the region of interest, or None.
        diameter_mm: of a sphere of the reference tumour's volume.
    """

    score: CaseScore
    seconds: float
    fallback: bool
    share_in_crop: float | None
    roi: Mapping[str, Sequence[int]] | None
    diameter_mm: float

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Result:
        return cls(**{**document, "score": CaseScore(**document["score"])})


def share_in_crop(
    reference: Volume, roi: Mapping[str, Sequence[int]] | None, label: int = TUMOUR
) -> float | None:
    """Share of the labelled voxels inside (start_xyz, stop_xyz), stop exclusive."""
    if roi is None:
        return None
    tumour_xyz = (reference.array_zyx == label).T
    inside = tumour_xyz[
        tuple(slice(a, b) for a, b in zip(roi["start_xyz"], roi["stop_xyz"], strict=True))
    ]
    return float(inside.sum() / tumour_xyz.sum())


def fingerprint(models: Mapping[str, Path]) -> str:
    """A short hash of all files of the model folders, so that results of other weights differ."""
    digest = hashlib.sha256()
    for name, folder in sorted(models.items()):
        for path in sorted(
            path for path in folder.rglob("*") if path.suffix in (".pth", ".safetensors", ".json")
        ):
            digest.update(f"{name}/{path.relative_to(folder)}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def results_folder(work: Path, weights: str, seed: int, task: str) -> Path:
    """Where the masks and records of finished cases lie."""
    return work / f"results-{weights}-seed{seed}" / task


def measure(task: WarmTask, cases: int, seed: int, work: Path, finished: Path) -> Iterator[Result]:
    """Yield the results of all cases; runs those that are not in ``finished`` yet."""
    finished.mkdir(parents=True, exist_ok=True)
    for case in range(cases):
        name, image_file, label_file = phantom_files(task.name, case, seed, work)
        record = finished / f"{name}.json"
        if not record.is_file():
            result = measure_case(task, name, image_file, label_file, finished / f"{name}.mha")
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(asdict(result)), encoding="utf-8")
            partial.replace(record)
        result = Result.from_json(json.loads(record.read_text(encoding="utf-8")))
        inside = "" if result.share_in_crop is None else f", {result.share_in_crop:.1%} in crop"
        say(
            f"{task.name} {case + 1}/{cases} {name}: Dice {result.score.dice:.3f}, "
            f"{result.diameter_mm:.0f} mm, {result.seconds:.1f} s{inside}"
        )
        yield result


def measure_case(
    task: WarmTask, name: str, image_file: Path, label_file: Path, mask_file: Path
) -> Result:
    """Segment and score one phantom, and keep its mask."""
    image, reference = read_image(image_file), read_image(label_file)
    segmentation, seconds = task.segment(name, image)
    write_image(segmentation.mask, mask_file)
    score = score_volumes(
        segmentation.mask,
        reference,
        case=name,
        prediction_name=str(mask_file),
        reference_name=str(label_file),
    )
    roi = segmentation.details.get("roi")
    return Result(
        score=score,
        seconds=seconds,
        fallback=segmentation.details.get("empty_mask", "no") != "no",
        share_in_crop=share_in_crop(reference, roi),
        roi=roi,
        diameter_mm=(6.0 * score.reference_mm3 / math.pi) ** (1 / 3),
    )


def targets(task: str, results: Sequence[Result]) -> dict[str, tuple[str, bool]]:
    """What has to be reached: name → (measured, reached)."""
    dice = float(np.mean([result.score.dice for result in results]))
    empty = sum(result.score.empty for result in results)
    wanted = MEAN_DICE.get(task, 0.0)
    checks = {
        f"mean Dice ≥ {wanted:.2f}": (f"{dice:.3f}", dice >= wanted),
        "no empty mask": (str(empty), empty == 0),
    }
    shares = [result.share_in_crop for result in results if result.share_in_crop is not None]
    if shares:
        checks[f"tumour in the crop ≥ {SHARE_IN_CROP:.0%} in every case"] = (
            f"{min(shares):.2%}",
            min(shares) >= SHARE_IN_CROP,
        )
    return checks


def report(task: str, results: Sequence[Result], seed: int, weights: str) -> str:
    """The task's section of the document, Markdown."""
    scores = [result.score for result in results]
    seconds = [result.seconds for result in results]
    sizes = [result.diameter_mm for result in results]
    lines = [
        f"### {task}",
        "",
        f"{len(results)} phantoms of seed {seed}, tumours of {min(sizes):.0f} to {max(sizes):.0f} "
        f"mm; weights `{weights}`; {np.mean(seconds):.1f} s per case on average "
        f"({max(seconds):.1f} s at most), warm process; the networks found no tumour in "
        f"{sum(result.fallback for result in results)} cases, where the most probable component "
        "was kept.",
        "",
        markdown_summary(scores),
        "",
        "| wanted | measured | reached |",
        "|---|--:|---|",
    ]
    lines += [
        f"| {name} | {measured} | {'yes' if reached else '**no**'} |"
        for name, (measured, reached) in targets(task, results).items()
    ]
    header = ["case", "tumour mm", *(column.title for column in COLUMNS[:-1])]
    header += ["volume error mm³", "in crop", "s"]
    lines += ["", "<details><summary>Every case</summary>", "", f"| {' | '.join(header)} |"]
    lines += ["|---|" + "--:|" * (len(header) - 1)]
    lines += [f"| {' | '.join(case_cells(result))} |" for result in results]
    return "\n".join([*lines, "", "</details>", ""])


def case_cells(result: Result) -> list[str]:
    """One case's row."""
    metrics = [
        f"{getattr(result.score, column.attribute):,.{column.digits}f}" for column in COLUMNS
    ]
    inside = "–" if result.share_in_crop is None else f"{result.share_in_crop:.1%}"
    return [
        result.score.case,
        f"{result.diameter_mm:.0f}",
        *metrics,
        inside,
        f"{result.seconds:.1f}",
    ]


def save_pictures(task: str, results: Sequence[Result], seed: int, work: Path, folder: Path) -> str:
    """Draw the median and the worst case; return Markdown that shows them."""
    ranked = sorted(range(len(results)), key=lambda case: results[case].score.dice)
    lines = []
    for kind, case in (("median", ranked[len(ranked) // 2]), ("worst", ranked[0])):
        result = results[case]
        name, image_file, label_file = phantom_files(task, case, seed, work)
        path = PICTURES / f"accuracy-{task}-{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_overlay(
            read_image(image_file),
            read_image(folder / f"{name}.mha"),
            path,
            reference=read_image(label_file),
            roi=result.roi,
            title=f"{task}, phantom {name}: Dice {result.score.dice:.3f} ({kind} case)",
        )
        lines += [f"![{task}, {kind} case](img/{path.name})", ""]
    return "\n".join(lines)


def update_document(sections: Sequence[str]) -> None:
    """Replace what stands between the markers of ``docs/accuracy.md``."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    body = "\n".join(sections)
    DOCS.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Measure, print the tables, return 1 where --check was asked for and a target missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(MEAN_DICE))
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--model-dir", type=Path, help="weights to use instead of resources/")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "accuracy")
    parser.add_argument("--json", type=Path, help="write all results")
    parser.add_argument("--update-docs", action="store_true", help="rewrite docs/accuracy.md")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    arguments = parser.parse_args()

    # As the platform runs it: no mask is empty.
    choices = Choices(
        RunOptions(device=arguments.device, model_dir=arguments.model_dir),
        PantherOptions(never_empty=True),
    )
    sections, document, reached = [], {}, True
    for name in arguments.tasks:
        with WarmTask(name, choices) as task:
            weights = fingerprint(task.models)
            folder = results_folder(arguments.work, weights, arguments.seed, name)
            results = list(measure(task, arguments.cases, arguments.seed, arguments.work, folder))
        section = report(name, results, arguments.seed, weights)
        if arguments.update_docs:
            section += "\n" + save_pictures(name, results, arguments.seed, arguments.work, folder)
        sections.append(section)
        print(section, flush=True)
        checks = targets(name, results)
        reached &= all(passed for _, passed in checks.values())
        document[name] = {
            "weights": weights,
            "seed": arguments.seed,
            "targets": {key: {"value": v, "reached": ok} for key, (v, ok) in checks.items()},
            "results": [asdict(result) for result in results],
            **as_document([result.score for result in results]),
        }
    if arguments.json:
        text = json.dumps(finite(document), indent=2, ensure_ascii=False)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.update_docs:
        update_document(sections)
        say(f"wrote {DOCS}")
    return 0 if reached or not arguments.check else 1


if __name__ == "__main__":
    raise SystemExit(main())
