"""One small change of a Python file at a time, as syntax trees: what `make mutants` works with.

Changed are comparisons, arithmetic, logic, constants, returned values and conditions; calls,
raises and additions are left out. Docstrings, annotations and the text of a ValueError stay.
"""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}


class Mutant(NamedTuple):
    """`function` is the qualified name of the outermost function changed, "" at module level."""

    function: str
    line: int
    before: str
    after: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module in the order of the file."""
    tree = ast.parse(source)
    total = len(list(_changes(copy.deepcopy(tree))))
    for n in range(total):
        changed = copy.deepcopy(tree)
        function, statement, apply = list(_changes(changed))[n]
        before = ast.unparse(statement)
        line = statement.lineno
        apply()
        ast.fix_missing_locations(changed)
        whole = statement if not hasattr(statement, "replaced_by") else statement.replaced_by
        yield Mutant(function, line, *_shortest(before, ast.unparse(whole)), changed)


def _shortest(before: str, after: str) -> tuple[str, str]:
    """Return the first lines that differ of two statements."""
    for a, b in zip(before.splitlines(), after.splitlines(), strict=False):
        if a != b:
            return a.strip(), b.strip()
    return before.splitlines()[0], after.splitlines()[0]


def _changes(tree: ast.Module) -> Iterator[tuple]:
    """Yield (function, statement, call that changes it) for each place and change."""
    yield from _in_body(tree, "body", "", "")


def _in_body(owner, field: str, scope: str, function: str) -> Iterator[tuple]:
    body = getattr(owner, field)
    for i, statement in enumerate(body):
        if _is_docstring(statement) or isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            name = scope + statement.name
            is_class = isinstance(statement, ast.ClassDef)
            if not is_class:
                for default in [*statement.args.defaults, *statement.args.kw_defaults]:
                    yield from _expression(default, statement.args, function or name, statement)
            inner = name + ("." if is_class else ".<locals>.")
            yield from _in_body(statement, "body", inner, function or ("" if is_class else name))
            continue
        yield from _statement(statement, body, i, function)
        for child in ("body", "orelse", "finalbody"):
            if isinstance(getattr(statement, child, None), list):
                yield from _in_body(statement, child, scope, function)
        for handler in getattr(statement, "handlers", []):
            yield from _in_body(handler, "body", scope, function)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _statement(statement: ast.stmt, body: list, i: int, function: str) -> Iterator[tuple]:
    def replace_by(other: ast.stmt):
        def apply() -> None:
            body[i] = ast.copy_location(other, statement)
            statement.replaced_by = other

        return function, statement, apply

    if isinstance(statement, ast.If | ast.While) and not isinstance(statement.test, ast.Constant):
        negated = ast.UnaryOp(ast.Not(), statement.test)
        yield function, statement, lambda: setattr(statement, "test", negated)
    removable = isinstance(statement, ast.Raise | ast.AugAssign) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    )
    if removable:
        yield replace_by(ast.Pass())
    if isinstance(statement, ast.Break):
        yield replace_by(ast.Continue())
    if isinstance(statement, ast.Continue):
        yield replace_by(ast.Break())
    if isinstance(statement, ast.Return) and statement.value is not None:
        nothing = isinstance(statement.value, ast.Constant) and statement.value.value is None
        if not nothing:
            yield replace_by(ast.Return(ast.Constant(None)))
    if isinstance(statement, ast.AugAssign):
        yield from _operator(statement, function, statement)
    if isinstance(statement, ast.Raise) and "ValueError(" in ast.unparse(statement):
        return
    for name in ("test", "value", "exc", "iter", "targets", "target"):
        value = getattr(statement, name, None)
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.expr):
                yield from _expression(node, statement, function, statement)


def _expression(node, parent, function: str, statement: ast.stmt) -> Iterator[tuple]:
    """Yield the changes of `node` and of all below it; `parent` holds `node`."""
    if node is None:
        return

    def swap(other: ast.expr):
        return function, statement, lambda: _replace(parent, node, other)

    if isinstance(node, ast.Constant):
        for value in _constants(node.value):
            yield swap(ast.Constant(value))
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                yield function, statement, lambda i=i, other=other: node.ops.__setitem__(i, other())
    elif isinstance(node, ast.BinOp):
        yield from _operator(node, function, statement)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield function, statement, lambda: setattr(node, "op", other)
    elif isinstance(node, ast.UnaryOp):
        yield swap(node.operand)
    elif isinstance(node, ast.IfExp):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield function, statement, lambda: setattr(node, "test", negated)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.keyword | ast.comprehension):
            for inner in ast.iter_child_nodes(child):
                if isinstance(inner, ast.expr):
                    yield from _expression(inner, child, function, statement)
        elif isinstance(child, ast.expr):
            yield from _expression(child, node, function, statement)


def _operator(node, function: str, statement: ast.stmt) -> Iterator[tuple]:
    texts = isinstance(node, ast.BinOp) and (
        isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
    )
    other = _OPERATORS.get(type(node.op))
    if other and not (texts and isinstance(node.op, ast.Mod)):
        yield function, statement, lambda: setattr(node, "op", other())


def _constants(value) -> list:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, str):
        return [value + "X"] if value else ["X"]
    if isinstance(value, bytes):
        return [value + b"X"]
    return []


def _replace(parent, old, new) -> None:
    for name, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, name, new)
            return
        if isinstance(value, list):
            for i, item in enumerate(value):
                if item is old:
                    value[i] = new
                    return
    raise LookupError("the parent does not hold the node")
