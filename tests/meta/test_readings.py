"""Each reading of an unclear place that code, tests or vectors name is explained in the docs."""

import re

from tests.meta.repository import ROOT, committed_files

_LABEL = re.compile(r"\bA\d\d\b")
_NAMED = re.compile(r"\[((?:A\d\d(?:, ?)?)+)\]")


def named(text: str) -> set[str]:
    """Return the labels in `text`: [A31], [A37, A57]."""
    return {label for group in _NAMED.findall(text) for label in _LABEL.findall(group)}


def test_every_reading_that_is_named_is_explained():
    used = set()
    for path in committed_files():
        if path.suffix in (".py", ".json"):
            used |= named(path.read_text())
    explained = (ROOT / "docs" / "readings.md").read_text()
    rows = re.findall(r"^\| (A\d\d) \|", explained, re.M)
    assert len(rows) == len(set(rows))
    assert sorted(used - set(rows)) == []
    assert used


def test_labels_are_found_in_brackets_alone_or_in_lists():
    assert named("by the tunnel [A56], or [A37, A57]; not A12") == {"A56", "A37", "A57"}
