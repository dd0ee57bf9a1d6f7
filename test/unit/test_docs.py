"""What the documentation names exists: files, modules, their attributes, packages and links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TASKS = sorted((ROOT / "tasks").iterdir())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tasks/*/*.md")])
#: Names of earlier versions are in the list of changes, and nowhere else.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
#: Where a page's path may begin.
BASES = [ROOT, ROOT / "gc_panther", *TASKS, *ROOT.glob("tasks/*/gc_panther_*")]
#: The distribution of the example in docs/plugins.md.
EXAMPLE = "gc_panther_bright"
#: In the challenge's own repository.
ELSEWHERE = {"Evaluation/evaluate_local.py"}

_FILE = re.compile(r"(?<![\w./*{…])[\w./]*\w\.(?:py|sh)\b(?![\w/])")
_MODULE = re.compile(r"\b(?:gc_panther|gc_panther_task\d)(?:\.\w+)+")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def quoted(text: str) -> str:
    """What a page marks as code, outside of blocks."""
    return "\n".join(re.findall(r"`([^`\n]+)`", re.sub(r"(?s)```.*?```", "", text)))


def missing_files(text: str, page: Path) -> Iterator[str]:
    """The files that a page names and nobody has."""
    bases = [*BASES, page.parent]
    for name in _FILE.findall(quoted(text)):
        known = name in ELSEWHERE or EXAMPLE in name
        if not known and not any((base / name).is_file() for base in bases):
            yield name


def missing_modules(text: str) -> Iterator[str]:
    """The dotted names of a page that are neither a module nor defined in one."""
    for name in _MODULE.findall(text):
        package = name.partition(".")[0]
        parents = [ROOT, *TASKS]
        if package != EXAMPLE and not any(is_defined(parent, name) for parent in parents):
            yield name


def is_defined(parent: Path, dotted: str) -> bool:
    """Whether a dotted name is a module below a folder, or a name at the top of one."""
    path, parts = parent, dotted.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    file = path / "__init__.py"
    if parts and (path / f"{parts[0]}.py").is_file():
        file = path / f"{parts.pop(0)}.py"
    if not file.is_file():
        return False
    return not parts or parts[0] in names_of(file)


def names_of(file: Path) -> set[str]:
    """What a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    assert [*missing_files(text, page), *missing_modules(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_package_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = {
        file.parent.relative_to(ROOT / "gc_panther").as_posix()
        for file in (ROOT / "gc_panther").rglob("__init__.py")
    } - {"."}
    assert [package for package in sorted(packages) if f"`{package}/`" not in text] == []


@pytest.mark.parametrize(
    "text",
    ["`gc_panther/gone.py`", "`imaging/gone.py`: `read`", "see `scripts/gone.sh`"],
)
def test_a_file_that_is_gone_is_found(text: str) -> None:
    assert len([*missing_files(text, ROOT / "README.md")]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "gc_panther.gone",
        "gc_panther.gone.module",
        "`gc_panther.session.Gone`",
        "gc_panther_task1.gone",
    ],
)
def test_a_module_or_attribute_that_is_gone_is_found(text: str) -> None:
    assert [*missing_modules(text)] == [text.strip("`")]
    assert [*missing_modules("`gc_panther.session.Session`, gc_panther.imaging.images")] == []
