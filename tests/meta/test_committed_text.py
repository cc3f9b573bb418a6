"""Nothing committed depends on, or names, the place where it was written."""

import re
from collections.abc import Iterator

import pytest

from tests.meta.repository import ROOT, committed_files

# Each pattern has a bracket in it, so that this file does not match itself.
FORBIDDEN = [
    (r"\.\./(s[h]ared|s[p]ec|des[i]gn|prototyp[e]s)\b", "a folder that a clone does not have"),
    (r"(?<![\w.])/(w[o]rk|ro[o]t|op[t]|Us[e]rs)/\w", "a path of one machine"),
    (r"(?<![\w.])/ho[m]e/(?!user\b)\w", "a path of one machine"),
    (
        r"\bpyp[i]\.org|py[t]honhosted|deb\.de[b]ian\.org|registry\.npm[j]s|proxy\.gol[a]ng",
        "a registry host",
    ),
    (r"--(extra-)?index-u[r]l|--find-lin[k]s", "a package index of one place"),
    (r"(?i)\bco-autho[r]ed-by|generate[d] with\b", "a tool's signature"),
    (
        r"(?i)\b(cl[a]ude|anthr[o]pic|chatg[p]t|open[a]i|gem[i]ni|cop[i]lot|a[i] assistant)\b",
        "a tool's name",
    ),
]


def findings(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, what in FORBIDDEN:
            match = re.search(pattern, line)
            if match:
                yield f"{name}:{number} has {match[0]!r}: {what}"


def test_no_committed_file_names_the_place_where_it_was_written():
    found = []
    for path in committed_files():
        name = str(path.relative_to(ROOT))
        found += findings(name, name)
        try:
            found += findings(name, path.read_text())
        except UnicodeDecodeError:
            continue
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "see ../sha" + "red/notes.md",
        "[A1] of ../sp" + "ec/interpretations.md",
        "python /wo" + "rk/main/x.py",
        "cd /r" + "oot/haaro",
        "https://py" + "pi.org/simple",
        "pip install --index-" + "url x",
        "Co-Auth" + "ored-By: someone",
    ],
)
def test_the_check_sees_a_planted_name(line):
    assert list(findings("planted", line))


@pytest.mark.parametrize("line", ["frame/work/x", "a network/work/", "https://example.org/home/x"])
def test_the_check_lets_ordinary_text_pass(line):
    assert list(findings("planted", line)) == []
