"""Small faults that can be put into a module's source: what they are and where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
#: Functions of one argument without which a value of the same type is left.
_WRAPPERS = {"abs", "ascontiguousarray", "ceil", "floor", "rint", "round", "sorted"}
#: Methods without arguments that return a value like the one they are called on.
_COPIES = {
    "absolute", "casefold", "clone", "contiguous", "copy", "detach", "flatten", "float", "half",
    "lower", "ravel", "resolve", "rstrip", "strip", "upper",
}  # fmt: skip
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: Keywords that change nothing where the code is right and the machine's text is UTF-8.
_WITHOUT_EFFECT = {"encoding", "strict"}
_LOGGERS = {"log", "logger", "logging"}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        kind: ``comparison``, ``arithmetic``, ``boolean``, ``constant``, ``call``, ``return`` or
            ``statement``.
        line: of the source, from 1.
        before: the code that is replaced.
        after: the code in its place.
        start: where it begins in the source's UTF-8, bytes.
        end: where it ends.
        statement: first and last line of the statement, or of a compound statement's head.
    """

    kind: str
    line: int
    before: str
    after: str
    start: int
    end: int
    statement: tuple[int, int]

    def apply(self, source: str) -> str:
        """The module's source with the fault in it."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()

    def __str__(self) -> str:
        """One line, without the module's name."""
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.line}: {self.kind}: {before} -> {after}"


def find_mutants(source: str) -> list[Mutant]:
    """All faults of a module, in the order of its source.

    Left out is what no test should notice: annotations, docstrings, decorators, imports, names of
    exports, and the texts of errors and of log lines.
    """
    finder = _Finder(source)
    finder.visit_body(ast.parse(source).body)
    return sorted(finder.found, key=lambda one: (one.start, one.end, one.after))


class _Finder:
    def __init__(self, source: str) -> None:
        self.found: list[Mutant] = []
        self._raw = source.encode()
        self._lines = [0]
        for line in self._raw.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def visit_body(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.Global | ast.Nonlocal):
            return
        if isinstance(node, ast.Assign) and "__all__" in map(ast.unparse, node.targets):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring, or ...
        self._where = _head(node)
        if isinstance(node, ast.Raise | ast.AugAssign | ast.Delete | ast.Assert) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            self._add("statement", node, "pass")
        if isinstance(node, ast.Continue | ast.Break):
            self._add("statement", node, "break" if isinstance(node, ast.Continue) else "continue")
        if isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
            self._add("return", node, "return None")
        if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
            changed = ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
            self._add("arithmetic", node, ast.unparse(changed))
        if isinstance(node, ast.If | ast.While):
            self._condition(node.test)
        for expression in _expressions(node):
            self._expression(expression, texts=not _is_message(node))
        for body in _bodies(node):
            self.visit_body(body)

    def _condition(self, test: ast.expr) -> None:
        """Negate what no other kind negates."""
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.Constant) and not _is_not(test):
            self._add("boolean", test, f"not ({ast.unparse(test)})")

    def _expression(self, node: ast.expr, *, texts: bool) -> None:
        if isinstance(node, ast.JoinedStr):
            return  # Python 3.11 does not know where the parts of an f-string are
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            changed = ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators)
            self._add("comparison", node, ast.unparse(changed))
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            for number, operator in enumerate(node.ops):
                operators = list(node.ops)
                operators[number] = _COMPARISONS[type(operator)]()
                changed = ast.Compare(node.left, operators, node.comparators)
                self._add("comparison", node, ast.unparse(changed))
        if isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            self._add("boolean", node, ast.unparse(ast.BoolOp(other, node.values)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            kind = "boolean" if isinstance(node.op, ast.Not) else "arithmetic"
            self._add(kind, node, ast.unparse(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
            changed = ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
            self._add("arithmetic", node, ast.unparse(changed))
        if isinstance(node, ast.IfExp):
            self._condition(node.test)
        if isinstance(node, ast.Constant):
            self._constant(node, texts=texts)
        if isinstance(node, ast.Call):
            self._call(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, texts=texts)
            elif isinstance(child, ast.keyword) and child.arg not in _WITHOUT_EFFECT:
                self._expression(child.value, texts=texts)
            elif isinstance(child, ast.comprehension):
                self._expression(child.iter, texts=texts)
                for test in child.ifs:
                    self._condition(test)
                    self._expression(test, texts=texts)

    def _constant(self, node: ast.Constant, *, texts: bool) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add("constant", node, repr(not value))
        elif isinstance(value, int):
            self._add("constant", node, repr(value + 1))
        elif isinstance(value, float):
            self._add("constant", node, repr(0.9 * value or 1.0))
        elif isinstance(value, str) and texts:
            self._add("constant", node, repr(f"{value}~"))

    def _call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if isinstance(node.func, ast.Name) and name in _OPPOSITES:
            other = ast.Call(ast.Name(_OPPOSITES[name]), node.args, node.keywords)
            self._add("call", node, ast.unparse(other))
        if name in _WRAPPERS and len(node.args) == 1:
            self._add("call", node, ast.unparse(node.args[0]))
        if name in _COPIES and isinstance(node.func, ast.Attribute) and not node.args:
            self._add("call", node, ast.unparse(node.func.value))

    def _add(self, kind: str, node: ast.expr | ast.stmt, after: str) -> None:
        start = self._lines[node.lineno - 1] + node.col_offset
        end = self._lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before = self._raw[start:end].decode()
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
            after = f"({after})"
        self.found.append(Mutant(kind, node.lineno, before, after, start, end, self._where))


def _head(node: ast.stmt) -> tuple[int, int]:
    inner = [body[0].lineno - 1 for body in _bodies(node) if body]
    last = max(node.lineno, min(inner)) if inner else node.end_lineno
    return node.lineno, last or node.lineno


def _bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
        yield part.body


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement itself, but for annotations and decorators."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from (one for one in (*node.args.defaults, *node.args.kw_defaults) if one)
    elif isinstance(node, ast.AnnAssign):
        if node.value:
            yield node.value
    elif isinstance(node, ast.With | ast.AsyncWith):
        yield from (item.context_expr for item in node.items)
    elif not isinstance(node, ast.ClassDef):
        yield from (one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr))


def _is_message(node: ast.stmt) -> bool:
    """Whether the statement's texts are for a person."""
    if isinstance(node, ast.Raise):
        return True
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).partition(".")[0] in _LOGGERS


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_text(node: ast.expr) -> bool:
    """Whether an operand is text, or a list; nothing can be subtracted from those."""
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
