"""Put small faults into a package, one at a time, and see whether its unit tests fail.

A fault is put into a copy of the checkout. The tests are those that mirror the module, or the whole
package's where no file does: ``test/unit/imaging/test_roi.py`` for ``gc_panther/imaging/roi.py``.
They run in a fork of this process, which has imported the libraries once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant, find_mutants

ROOT = Path(__file__).resolve().parents[2]
#: What the tests need besides the code; linked into the copy.
LINKED = ("benchmarks", "docs", "resources", "scripts", "pyproject.toml", "README.md")
COPIED = ("gc_panther", "tasks", "test")
#: How many times as long as without a fault tests may take.
PATIENCE = 4.0
OUTCOMES = ("killed", "timeout", "survived", "not covered")
#: Libraries that take long to import, or that start threads, if the tests import them.
LIBRARIES = (
    "acvl_utils", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures",
    "matplotlib", "nibabel", "nnunetv2", "numpy", "pandas", "pydantic", "rich", "safetensors",
    "scipy", "SimpleITK", "skimage", "surface_distance", "torch", "typer",
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A module and its tests, relative to the checkout."""

    path: Path
    tests: Path


@dataclass(frozen=True)
class Baseline:
    """What the tests do without a fault.

    Attributes:
        code: pytest's exit code.
        lines: of the module that they run.
        libraries: that they import.
        seconds: that they take.
    """

    code: int
    lines: frozenset[int]
    libraries: tuple[str, ...]
    seconds: float

    def covers(self, mutant: Mutant) -> bool:
        """Whether the tests run the statement that is changed."""
        first, last = mutant.statement
        return any(first <= line <= last for line in self.lines)


def modules_of(package: str, root: Path = ROOT, skip: Sequence[str] = ()) -> list[Module]:
    """The modules of a package, or the one module that is named.

    Raises:
        SystemExit: there is none.
    """
    top = root / "gc_panther"
    below = top / package
    files = [below] if below.suffix == ".py" else sorted(below.rglob("*.py"))
    files = [file for file in files if file.is_file() and str(file.relative_to(top)) not in skip]
    modules = []
    for file in files:
        name = file.relative_to(top)
        tests = root / "test" / "unit" / name.with_name(f"test_{name.name}")
        while not tests.exists():
            tests = tests.parent
        modules.append(Module(file.relative_to(root), tests.relative_to(root)))
    if not modules:
        sys.exit(f"error: there is no such package or module: gc_panther/{package}")
    return modules


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of the checkout whose code may be changed."""
    with tempfile.TemporaryDirectory(prefix="gc_panther-mutants-") as folder:
        copy = Path(folder)
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
            shutil.copytree(root / name, copy / name, ignore=ignored)
        for name in LINKED:
            if (root / name).exists():
                (copy / name).symlink_to(root / name)
        yield copy


def in_fork(work: Callable[[], int], limit: float) -> int | None:
    """The exit code of some work in a process of its own; None where it took too long."""
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            code = work()
        finally:
            os._exit(code)
    deadline = time.monotonic() + limit
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        raise


def run_tests(copy: Path, tests: Path) -> int:
    """Run tests of the copy in this process, up to the first that fails; pytest's exit code."""
    os.chdir(copy)
    paths = [str(copy), *(str(copy / "tasks" / task) for task in ("task1", "task2"))]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    import hypothesis
    import pytest

    # The same examples each time; to know that a test fails, no smaller one is needed.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutation", deadline=None, database=None, derandomize=True, phases=phases
    )
    options = "-x -q -n 0 -p no:randomly -p no:cacheprovider --hypothesis-profile mutation"
    # pytest cannot rewrite the assertions of a plugin that is imported already, nor need it.
    options += " -W ignore::pytest.PytestAssertRewriteWarning"
    kept = "not slow and not container and not gpu"
    return int(pytest.main([*options.split(), "-m", kept, str(tests)]))


def baseline(copy: Path, module: Module) -> Baseline:
    """Run a module's tests without a fault."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"

        def work() -> int:
            import coverage

            measured = coverage.Coverage(
                data_file=None, config_file=False, include=[str(copy / module.path)]
            )
            measured.start()
            code = run_tests(copy, module.tests)
            measured.stop()
            lines = measured.get_data().lines(str(copy / module.path)) or []
            wanted = {name for name in sys.modules if name.partition(".")[0] in LIBRARIES}
            file.write_text(json.dumps([sorted(lines), sorted(wanted)]))
            return code

        start = time.monotonic()
        code = in_fork(work, 3600)
        seconds = time.monotonic() - start
        if code or not file.is_file():
            return Baseline(code or 1, frozenset(), (), seconds)
        lines, libraries = json.loads(file.read_text())
    return Baseline(0, frozenset(lines), tuple(libraries), seconds)


def outcome(copy: Path, module: Module, mutant: Mutant, known: Baseline, least: float) -> str:
    """What becomes of a fault; tests that take longer than ``least`` seconds may hang."""
    if not known.covers(mutant):
        return "not covered"
    file = copy / module.path
    source = file.read_text(encoding="utf-8")
    file.write_text(mutant.apply(source), encoding="utf-8")
    try:
        code = in_fork(lambda: run_tests(copy, module.tests), max(least, PATIENCE * known.seconds))
    finally:
        file.write_text(source, encoding="utf-8")
    if code is None:
        return "timeout"
    return "killed" if code else "survived"


def outcomes(
    copy: Path, picked: Mapping[Module, Sequence[Mutant]], limit: float
) -> Iterator[tuple[Module, Mutant, str]]:
    """Try all faults.

    Raises:
        SystemExit: a module's tests fail without a fault.
    """
    for module, found in picked.items():
        known = baseline(copy, module)
        if known.code:
            sys.exit(f"error: {module.tests} fails without a fault (exit code {known.code})")
        for name in known.libraries:
            __import__(name)
        for mutant in found:
            yield module, mutant, outcome(copy, module, mutant, known, limit)


def chosen(
    modules: Sequence[Module], root: Path, sample: int | None, seed: int
) -> tuple[dict[Module, list[Mutant]], int]:
    """The faults to try, by module, and how many there are in all."""
    every = [
        (module, mutant)
        for module in modules
        for mutant in find_mutants((root / module.path).read_text(encoding="utf-8"))
    ]
    numbers = range(len(every))
    if sample is not None and sample < len(every):
        numbers = sorted(random.Random(seed).sample(numbers, sample))  # noqa: S311 - not a secret
    picked: dict[Module, list[Mutant]] = {}
    for module, mutant in (every[number] for number in numbers):
        picked.setdefault(module, []).append(mutant)
    return picked, len(every)


def summary(counts: Counter[str], total: int) -> str:
    """One line: the counts, and the share of faults that were noticed."""
    tried = counts.total()
    share = 100 * (counts["killed"] + counts["timeout"]) / tried if tried else 0.0
    parts = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES)
    return f"{tried} of {total} mutants: {parts}; noticed: {share:.0f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the faults that no test notices, and the counts."""
    parser = argparse.ArgumentParser(prog="scripts/mutate.sh", description=__doc__)
    parser.add_argument("package", help="below gc_panther: imaging, or nnunet/inference/windows.py")
    parser.add_argument("--sample", type=int, help="how many faults to try; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--limit", type=float, default=15.0, help="seconds that tests may take at least"
    )
    parser.add_argument("--skip", action="append", default=[], help="a module to leave out")
    given = parser.parse_args(arguments)
    picked, total = chosen(
        modules_of(given.package, ROOT, given.skip), ROOT, given.sample, given.seed
    )
    # The environment has to be set before the libraries are imported.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    counts: Counter[str] = Counter()
    try:
        with copied(ROOT) as copy:
            for module, mutant, result in outcomes(copy, picked, given.limit):
                counts[result] += 1
                if result in ("survived", "not covered"):
                    show(f"{result}: {module.path}:{mutant}")
                done = f"{counts.total()} of {sum(map(len, picked.values()))}, {module.path.name}"
                progress(done)
    except KeyboardInterrupt:
        show(f"interrupted: {summary(counts, total)}")
        return 130
    show(summary(counts, total))
    return 0


def show(line: str) -> None:
    """Print a line, in the place of the progress."""
    progress("")
    print(line, flush=True)


def progress(text: str) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
