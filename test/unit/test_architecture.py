"""What import-linter does not check: circles of imports, those for types included, and lengths."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    ROOT / "gc_panther",
    ROOT / "tasks" / "task1" / "gc_panther_task1",
    ROOT / "tasks" / "task2" / "gc_panther_task2",
)
MODULES = {
    ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in package.rglob("*.py")
}
LONGEST = 400


def imported(source: str, modules: frozenset[str]) -> set[str]:
    """Those of the modules which a module imports when it is loaded or type-checked."""

    def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield child
                yield from outside_functions(child)

    found = set()
    for node in outside_functions(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                found.add(below if below in modules else str(node.module))
    return found & modules


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, each imported by the next; empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = frozenset(MODULES)
    imports = {name: imported(file.read_text(), names) for name, file in MODULES.items()}
    assert circle(imports) == []


@pytest.mark.parametrize(
    "text",
    [
        "import a.b",
        "from a import b",
        "from a.b import name",
        "if TYPE_CHECKING:\n    from a.b import Name",
        "class C:\n    import a.b",
    ],
)
def test_a_circle_is_found_however_it_is_closed(text: str) -> None:
    names = frozenset({"a", "a.b", "c"})
    assert imported(text, names) == {"a.b"}
    assert circle({"a.b": {"c"}, "c": imported(text, names)}) in (
        ["a.b", "c", "a.b"],
        ["c", "a.b", "c"],
    )


def test_an_import_inside_a_function_closes_no_circle() -> None:
    assert imported("def f():\n    import a.b", frozenset({"a.b"})) == set()


def test_modules_are_short_enough_to_be_read() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}
