"""Write docs/conformance.md, from the tests themselves: `python -m tests.meta.conformance`.

A test proves a requirement of RFC 6521 by naming its id (R3.3.3-12) in its docstring. Ids and
levels are in tests/data/requirements.csv; tests/data/conformance_waivers.csv says why an id has
no test and will get none.
"""

import ast
import csv
import re
from collections import Counter
from pathlib import Path

from tests.meta.repository import DATA, ROOT, python_files

DOCUMENT = ROOT / "docs" / "conformance.md"
SUITES = (ROOT / "tests", ROOT / "unix_port_tests")

_ID = re.compile(r"\bR\d+(?:\.\d+)*-i?\d+\b")

_HEAD = """\
# Conformance with RFC 6521

Written by `make conformance` from the docstrings of the tests; do not edit. A test that names an
id is the proof; "not yet" is a duty without one. Ids are numbered within their section: `R3.3.3-12`
is the twelfth RFC 2119 keyword of section 3.3.3, `R3.3.3-i2` the second duty there that is written
in lower case or only implied, its level in parentheses. DEF marks a definition or a constant.

"""


def read_csv(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def named_ids(tree: ast.Module) -> dict[str, set[str]]:
    """Return {id: names of the test functions whose docstring has it}."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test"
        ):
            for identifier in _ID.findall(ast.get_docstring(node) or ""):
                found.setdefault(identifier, set()).add(node.name)
    return found


def proofs(*suites: Path) -> dict[str, list[str]]:
    """Return {id: ["path::test", ...]} over all test files under `suites`."""
    found: dict[str, list[str]] = {}
    for path, tree in python_files(*suites):
        for identifier, names in named_ids(tree).items():
            place = path.relative_to(ROOT).as_posix()
            found.setdefault(identifier, []).extend(f"{place}::{name}" for name in sorted(names))
    return found


def document() -> str:
    """Return the whole text of docs/conformance.md."""
    proved = proofs(*SUITES)
    waived = {row["id"]: row["reason"] for row in read_csv("conformance_waivers.csv")}
    table, counts = [], Counter()
    section = None
    for row in read_csv("requirements.csv"):
        identifier = row["id"]
        if row["section"] != section:
            section = row["section"]
            table.append(
                f"\n## Section {section}\n\n| Id | Level | Role | Proved by |\n|---|---|---|---|"
            )
        if identifier in proved:
            state, text = "proved", "<br>".join(f"`{test}`" for test in proved[identifier])
        elif identifier in waived:
            state, text = "out of scope", f"out of scope: {waived[identifier]}"
        else:
            state, text = "not yet", "not yet"
        counts[group(row["level"]), state] += 1
        table.append(f"| {identifier} | {row['level']} | {row['role']} | {text} |")
    return _HEAD + summary(counts) + "\n".join(table) + "\n"


def group(level: str) -> str:
    """Return the row of the summary that a level belongs to."""
    level = level.strip("()").upper()
    if level == "DEF":
        return "definition"
    if level.startswith(("MUST", "SHALL")):
        return "must"
    return "may" if level == "MAY" else "should"


def summary(counts: Counter) -> str:
    states = ("proved", "not yet", "out of scope")
    lines = ["| Level | " + " | ".join(states) + " |", "|---|---|---|---|"]
    for level in ("must", "should", "may", "definition"):
        lines.append(f"| {level} | " + " | ".join(str(counts[level, s]) for s in states) + " |")
    return "\n".join(lines) + "\n"


def drop_needless_waivers() -> None:
    """Rewrite conformance_waivers.csv without the ids that a test proves by now."""
    proved = proofs(*SUITES)
    rows = [row for row in read_csv("conformance_waivers.csv") if row["id"] not in proved]
    with (DATA / "conformance_waivers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "reason"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    drop_needless_waivers()
    DOCUMENT.write_text(document())
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
