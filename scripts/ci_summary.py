"""The last lines of `.ci/run`: what was tested, and what was not and why.

python scripts/ci_summary.py FOLDER CHECKS

FOLDER holds pytest's JUnit reports and, where the images could not be tested, what
`test/container/build.sh` said; CHECKS are the steps that passed, separated by commas.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree  # reports that this run has written
from collections import Counter
from pathlib import Path

STEPS = ("the source", "the first and second tier", "the images")


def counts(reports: list[Path]) -> tuple[int, int, Counter[str]]:
    """Tests that passed and failed, and how many were skipped for which reason."""
    passed, failed, skipped = 0, 0, Counter[str]()
    for report in reports:
        for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif skip is not None:
                skipped[skip.get("message") or "no reason given"] += 1
            else:
                passed += 1
    return passed, failed, skipped


def main(folder: Path, checks: list[str]) -> int:
    """Print the summary; 1 where a test was skipped without a reason."""
    passed, failed, skipped = counts(sorted(folder.glob("*.xml")))
    print(f"\nTested: {', '.join(checks) or 'nothing'}")
    missing = [step for step in STEPS if step not in checks]
    if missing:
        log = folder / "images.log"
        said = re.findall(r"^error: (.*)$", log.read_text(), re.MULTILINE) if log.is_file() else []
        because = f" ({said[-1]})" if said and tuple(missing) == STEPS[-1:] else ""
        print(f"Not tested: {', '.join(missing)}{because}")
    for reason, number in skipped.most_common():
        print(f"Skipped: {number} × {reason}")
    print(f"{passed} passed, {failed} failed, {sum(skipped.values())} skipped")
    return int("no reason given" in skipped)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [word for word in sys.argv[2].split(",") if word]))
