"""Firmware files and functions stay small: each module is compiled on the device, in its heap."""

import ast
from collections.abc import Iterator

import pytest

from tests.meta.repository import FIRMWARE, ROOT, python_files

FILE_LINES = 400
FUNCTION_LINES = 60


def oversize(name: str, lines: int, tree: ast.Module) -> Iterator[str]:
    """Yield what is too long in one file: the file itself, or a function with its decorators."""
    if lines > FILE_LINES:
        yield f"{name}: {lines} lines, {FILE_LINES} allowed"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if length > FUNCTION_LINES:
                yield f"{name}:{first} {node.name}: {length} lines, {FUNCTION_LINES} allowed"


def test_firmware_files_and_functions_stay_within_their_size():
    found = []
    for path, tree in python_files(FIRMWARE):
        lines = len(path.read_text().splitlines())
        found += oversize(str(path.relative_to(ROOT)), lines, tree)
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("pass\n" * (FILE_LINES + 1), 1),
        ("pass\n" * FILE_LINES, 0),
        ("def f():\n" + "    pass\n" * FUNCTION_LINES, 1),
        ("@staticmethod\ndef f():\n" + "    pass\n" * (FUNCTION_LINES - 1), 1),
        ("class C:\n    def f(self):\n" + "        pass\n" * (FUNCTION_LINES - 1), 0),
    ],
)
def test_the_check_counts_lines_as_it_says(source, count):
    assert len(list(oversize("planted", len(source.splitlines()), ast.parse(source)))) == count
