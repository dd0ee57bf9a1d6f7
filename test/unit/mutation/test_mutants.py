import ast
from pathlib import Path

import pytest
from mutants import find_mutants

ROOT = Path(__file__).parents[3]


def changed(source):
    """What a module becomes, by the kind of the fault."""
    return [(one.kind, one.apply(source)) for one in find_mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b < c", [("comparison", "a = (b <= c)")]),
        ("a = b is c", [("comparison", "a = (b is not c)")]),
        (
            "a = b < c <= d",
            [("comparison", "a = (b <= c <= d)"), ("comparison", "a = (b < c < d)")],
        ),
        ("a = b + c", [("arithmetic", "a = (b - c)")]),
        ("a -= b", [("arithmetic", "a += b"), ("statement", "pass")]),
        ("a = -b", [("arithmetic", "a = (b)")]),
        ("a = b and c", [("boolean", "a = (b or c)")]),
        ("a = not b", [("boolean", "a = (b)")]),
        ("if a: b = c", [("boolean", "if (not (a)): b = c")]),
        ("a = [b for b in c if b]", [("boolean", "a = [b for b in c if (not (b))]")]),
        ("a = True", [("constant", "a = False")]),
        ("a = 4", [("constant", "a = 5")]),
        ("a = 5.0", [("constant", "a = 4.5")]),
        ("a = 0.0", [("constant", "a = 1.0")]),
        ("a = 'é', 'b'", [("constant", "a = 'é~', 'b'"), ("constant", "a = 'é', 'b~'")]),
        ("a = b.clone()", [("call", "a = (b)")]),
        ("a = sorted(b)", [("call", "a = (b)")]),
        ("a = min(b, c)", [("call", "a = (max(b, c))")]),
        ("f(a)", [("statement", "pass")]),
        ("raise E", [("statement", "pass")]),
        ("for a in b: break", [("statement", "for a in b: continue")]),
        ("def f(): return a", [("return", "def f(): return None")]),
        ("def f(a=1): ...", [("constant", "def f(a=2): ...")]),
        ("with f(1): ...", [("constant", "with f(2): ...")]),
    ],
)
def test_each_kind_of_fault(source, expected):
    assert sorted(changed(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        "import a",
        "__all__ = ['a']",
        "def f(a: Literal[1]) -> Literal[2]:\n    '''Text.'''",
        "a: Literal[3]",
        "@dataclass(frozen=True)\nclass A: ...",
        "if TYPE_CHECKING:\n    a = 1",
        "a = f'{b + c}'",
        "a = zip(b, c, strict=True)",
        "def f(): return None",
    ],
)
def test_what_no_test_should_notice_is_left_out(source):
    assert changed(source) == []


def test_texts_for_people_are_left_out_and_what_decides_on_them_is_not():
    source = "if a:\n    raise E('no', b - 1)\nlogger.info('yes')"
    assert sorted(one.after for one in find_mutants(source)) == [
        "(b + 1)",
        "(not (a))",
        "2",
        "pass",
        "pass",
    ]


def test_a_fault_says_where_it_is_and_which_lines_have_to_run():
    lines = ["def f(", " a,", "):", " if (", "  a", "  < 1", " ):", "  return (", "   a", "  )"]
    source = "\n".join(lines)
    comparison, constant, returned = find_mutants(source)
    assert str(comparison) == "5: comparison: a < 1 -> (a <= 1)"
    assert str(constant) == "6: constant: 1 -> 2"
    assert comparison.statement == constant.statement == (4, 7)
    assert str(returned) == "8: return: return ( a ) -> return None"
    assert returned.statement == (8, 10)


@pytest.mark.parametrize(
    "name", ["imaging/roi.py", "nnunet/inference/windows.py", "platform/inputs.py"]
)
def test_every_fault_of_a_real_module_can_be_compiled_and_differs(name):
    source = (ROOT / "gc_panther" / name).read_text(encoding="utf-8")
    plain = ast.dump(ast.parse(source))
    for one in find_mutants(source):
        assert ast.dump(ast.parse(one.apply(source))) != plain, str(one)
