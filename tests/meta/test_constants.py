"""Every constant and limit of the firmware is used by code, or waived with a reason.

A limit that is defined and never enforced protects nobody. Used means read by an expression in the
firmware or the host tools (an import alone is no use, nor is a test); a private name counts only in
its own module.
"""

import ast
import csv
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.meta.repository import DATA, FIRMWARE, HOST_TOOLS, ROOT, python_files

WAIVERS = DATA / "constant_waivers.csv"

# CAPITALS; the flag bits are written as the RFCs do, so FLAG_r is a constant too.
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9]*(_[A-Z0-9]+)*(_[a-z])?")


def defined(tree: ast.Module) -> set[str]:
    """Return the names of the constants assigned at module level."""
    names = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for item in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(item, ast.Name) and _CONSTANT.fullmatch(item.id):
                    names.add(item.id)
    return names


def read(tree: ast.Module) -> set[str]:
    """Return all names that expressions read: `NAME` and `anything.NAME`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            names.add(node.attr)
    return names


def unused(
    firmware: Iterable[tuple[Path, ast.Module]], others: Iterable[tuple[Path, ast.Module]]
) -> set[str]:
    """Return "path:NAME" of each constant defined in `firmware` that no file reads."""
    firmware = list(firmware)
    everywhere = set().union(*(read(tree) for _, tree in [*firmware, *others]))
    return {
        f"{path.relative_to(ROOT)}:{name}"
        for path, tree in firmware
        for name in defined(tree)
        if name not in (read(tree) if name.startswith("_") else everywhere)
    }


def waivers() -> dict[str, str]:
    with WAIVERS.open(newline="") as file:
        return {row["constant"]: row["reason"] for row in csv.DictReader(file)}


def test_every_constant_and_limit_is_used_or_waived():
    found = unused(python_files(FIRMWARE), python_files(HOST_TOOLS))
    assert sorted(found - set(waivers())) == []


def test_every_waiver_has_a_reason_and_is_still_needed():
    found = unused(python_files(FIRMWARE), python_files(HOST_TOOLS))
    assert {name for name, reason in waivers().items() if not reason.strip()} == set()
    assert sorted(set(waivers()) - found) == []


@pytest.mark.parametrize(
    ("source", "other", "count"),
    [
        ("_LIMIT = const(4)", "", 1),
        ("_LIMIT = const(4)", "print(_LIMIT)", 1),
        ("_LIMIT = const(4)\ndef f(n):\n    return n > _LIMIT", "", 0),
        ("MAX_RATE = 5", "from planted import MAX_RATE", 1),
        ("MAX_RATE = 5", "import planted\nprint(planted.MAX_RATE)", 0),
        ("FLAG_r, FLAG_T = 4, 2", "print(FLAG_T)", 1),
        ("MAX_RATE: int = 5", "", 1),
    ],
)
def test_the_check_sees_an_unused_constant(source, other, count):
    planted = [(ROOT / "planted.py", ast.parse(source))]
    assert len(unused(planted, [(ROOT / "other.py", ast.parse(other))])) == count
