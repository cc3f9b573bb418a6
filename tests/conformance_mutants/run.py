"""Naming an id is not proof: switch each rule off and see its tests turn red.

`python -m tests.conformance_mutants.run [ID...]` copies the tree, applies one change of
tests/data/conformance_mutants.toml at a time to the copy, and runs only the tests that name its
ids. An id holds when at least one of them fails. Slow tests run only where no quick one did.
The outcome is kept in build/; docs/conformance-mutants.md is written from all of it, after that of
the named ids was made anew.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.meta import conformance
from tests.meta.repository import DATA, ROOT, committed_files, micropython

TABLE = DATA / "conformance_mutants.toml"
KEPT = ROOT / "build" / "conformance-mutants.json"
DOCUMENT = ROOT / "docs" / "conformance-mutants.md"
GOAL = 95

_SLOW = ("tests/topology/", "tests/core/test_soak.py", "tests/core/test_renewal.py", "tests/shell/")
_SECONDS = 300
_HEAD = """\
# Do the named tests turn red?

Written by `make conformance-mutants`; do not edit. A test proves a requirement of RFC 6521 by
naming its id; here the code of each rule is switched off, or its constant changed, and only the
tests that name its id are run. Red: how many of the tests that were run failed.

"""


def table() -> list[dict]:
    """Return the changes: "ids", "file", "search", "replace"."""
    with TABLE.open("rb") as file:
        return tomllib.load(file)["mutant"]


def changed(text: str, mutant: dict) -> str:
    """Return `text` with the change; ValueError unless there is exactly one place for it."""
    if text.count(mutant["search"]) != 1:
        places = text.count(mutant["search"])
        raise ValueError(f"{mutant['ids']}: {places} places in {mutant['file']}")
    return text.replace(mutant["search"], mutant["replace"])


class Tree:
    """A copy of the repository that may be broken."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for path in committed_files():
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)

    def failures(self, tests: list[str]) -> set[str]:
        """Run `tests` ("path::name"); return those that failed. RuntimeError when none could."""
        ours = [test for test in tests if not test.startswith("unix_port_tests/")]
        theirs = [test for test in tests if test.startswith("unix_port_tests/")]
        failed = self._pytest(ours) if ours else set()
        for test in theirs:
            path, name = test.split("::")
            title = f"{Path(path).stem}.{name}"
            command = [micropython(), "-X", "heapsize=384k", "unix_port_tests/run.py", title]
            if self._run(command).returncode:
                failed.add(test)
        return failed

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        paths = [self.root / "firmware", self.root / "host_tools", self.root]
        environment = dict(
            os.environ,
            PYTHONPATH=":".join(str(path) for path in paths),
            PYTHONDONTWRITEBYTECODE="1",
            MICROPYTHON=micropython(),
        )
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS * 2,
        )

    def _pytest(self, tests: list[str]) -> set[str]:
        report = self.root / "report.xml"
        report.unlink(missing_ok=True)
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
        ]
        result = self._run([sys.executable, "-m", "pytest", *options, *tests])
        if result.returncode not in (0, 1) or not report.exists():
            raise RuntimeError(result.stdout[-2000:] + result.stderr[-2000:])
        failed = set()
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                name = (case.get("name") or "").split("[")[0]
                failed.add(f"{case.get('file')}::{name}")
        return failed


def judge(tree: Tree, mutant: dict, proofs: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """Apply one change; return {id: (tests red, tests run)}."""
    path = tree.root / mutant["file"]
    intact = path.read_text()
    path.write_text(changed(intact, mutant))
    outcome: dict[str, tuple[int, int]] = {}
    try:
        for slow in (False, True):
            left = [i for i in mutant["ids"] if not outcome.get(i, (0, 0))[0]]
            tests = sorted({t for i in left for t in proofs[i] if t.startswith(_SLOW) == slow})
            if not tests:
                continue
            red = tree.failures(tests)
            for identifier in left:
                run = set(proofs[identifier]) & set(tests)
                before = outcome.get(identifier, (0, 0))
                outcome[identifier] = before[0] + len(run & red), before[1] + len(run)
    finally:
        path.write_text(intact)
    return outcome


def document(outcome: dict[str, tuple[int, int]], named: set[str]) -> str:
    mutants = {i: m for m in table() for i in m["ids"]}
    red = [i for i in named if outcome.get(i, (0, 0))[0]]
    share = 100 * len(red) / len(named)
    lines = [
        f"**{len(red)} of {len(named)} ids named turn red: {share:.1f} %** (goal {GOAL} %).",
        "",
        "| Id | Red | Run | Changed in |",
        "|---|---|---|---|",
    ]
    order = [row["id"] for row in conformance.read_csv("requirements.csv") if row["id"] in named]
    for identifier in order:
        count, run = outcome.get(identifier, (0, 0))
        file = mutants[identifier]["file"] if identifier in mutants else "no change for it yet"
        verdict = str(count) if count else "**none**"
        lines.append(f"| {identifier} | {verdict} | {run} | `{file}` |")
    return _HEAD + "\n".join(lines) + "\n"


def main(wanted: list[str]) -> int:
    proofs = conformance.proofs(*conformance.SUITES)
    mutants = [m for m in table() if not wanted or set(m["ids"]) & set(wanted)]
    kept = json.loads(KEPT.read_text()) if wanted and KEPT.exists() else {}
    outcome = {i: (kept[i][0], kept[i][1]) for i in kept if i in proofs}
    with tempfile.TemporaryDirectory(prefix="haaro-mutants-") as folder:
        tree = Tree(Path(folder))
        used = {t for m in mutants for i in m["ids"] for t in proofs[i]}
        already = tree.failures(sorted(t for t in used if not t.startswith(_SLOW)))
        if already:
            print("fail without a change:", *sorted(already), sep="\n  ")
            return 1
        for mutant in mutants:
            found = judge(tree, mutant, proofs)
            outcome.update(found)
            text = ", ".join(f"{i} {red}/{run}" for i, (red, run) in found.items())
            print(text, flush=True)
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(outcome))
    print("green:", *(i for i, (red, _) in outcome.items() if not red))
    share = 100 * sum(1 for i in proofs if outcome.get(i, (0, 0))[0]) / len(proofs)
    print(f"{share:.1f} % of {len(proofs)} ids that tests name turn red")
    if set(outcome) >= set(proofs):
        DOCUMENT.write_text(document(outcome, set(proofs)))
    return 0 if share >= GOAL or wanted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
