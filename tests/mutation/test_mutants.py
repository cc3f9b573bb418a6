"""The mutator changes one thing at a time; each equivalent mutant is still of a line there is."""

import ast

import pytest

from tests.mutation import run
from tests.mutation.mutants import mutants


def changes(source):
    return [(m.function, m.before, m.after) for m in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a):\n    return a < 1", ["return None", "return a <= 1", "return a >= 1"]),
        ("x = not y", ["x = y"]),
        ("x = a and b'z'", ["x = a or b'z'", "x = a and b'zX'"]),
        ("if a:\n    f()", ["if not a:", "pass"]),
        ("x += 2", ["pass", "x -= 2", "x += 3"]),
        ('raise ValueError("for people")', ["pass"]),
        ('"""Text."""\nimport a', []),
    ],
)
def test_each_change_is_made_alone(source, expected):
    found = [after for _, _, after in changes(source)]
    assert found[: len(expected)] == expected
    for mutant in mutants(source):
        compile(mutant.tree, "mutant", "exec")
        assert ast.dump(mutant.tree) != ast.dump(ast.parse(source))


def test_a_method_is_named_with_its_class():
    assert {name for name, *_ in changes("class A:\n    b = 1\n    def c(self):\n        d()")} == {
        "",
        "A.c",
    }


def test_every_equivalent_mutant_is_of_a_line_there_is_and_has_a_reason():
    lines = {
        path.name: {line.strip() for line in ast.unparse(ast.parse(path.read_text())).splitlines()}
        for path in run.wire_files()
    }
    for (name, _, before, after), reason in run.equivalents().items():
        assert before in lines[name] and before != after
        assert reason.strip()
