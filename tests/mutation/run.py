"""Mutation testing of firmware/haaro/wire: `python -m tests.mutation.run [--survivors] [FILE...]`.

The tests of tests/wire are collected once and run once, noting which functions each of them calls.
Then each mutant gets a forked process: a changed function takes its new code there and the tests
that call it run, quickest first, until one fails; a change at module level is imported anew and all
tests run. Hypothesis is derandomised, so a score can be repeated.

The verdicts of each file are kept in build/mutation; docs/mutation.md is written from them all,
after those of FILE were made anew, or with --survivors those of mutants that nothing killed.
"""

import ast
import contextlib
import csv
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import types
from collections import Counter
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.meta.repository import FIRMWARE, ROOT
from tests.mutation.mutants import Mutant, mutants

WIRE = FIRMWARE / "haaro" / "wire"
BUILD = ROOT / "build" / "mutation"
DOCUMENT = ROOT / "docs" / "mutation.md"
EQUIVALENT = ROOT / "tests" / "mutation" / "equivalent.csv"
GOAL = 90

_SECONDS = 4  # for one test, beside five times what it takes without a mutant
_SECONDS_ALL = 90
_MEMORY = 3 << 30
_KILLED, _SURVIVED = 1, 0

_HEAD = """\
# Mutation testing of the wire layer

Written by `make mutants`; do not edit. Each mutant is one small change of `firmware/haaro/wire`
(a comparison, an operator, a constant, a condition, a returned value, a statement left out). It is
killed when a test of `tests/wire` fails or does not end. Mutants that no test could tell apart are
listed with the reason and do not count.

"""


def quick_hypothesis() -> None:
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")


class Plugin:
    """Takes over after collection: one run for coverage, then one fork a mutant."""

    def __init__(self, files: list[Path], survivors: bool) -> None:
        self.files = files
        self.survivors = survivors
        self.failed_at_first: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        quick_hypothesis()
        self.cover(session.items)
        self.live = live_functions()
        gc.collect()
        gc.freeze()  # children share the parent's pages
        if not self.failed_at_first:
            for path in self.files:
                self.judge_file(path)
        return True

    def cover(self, items) -> None:
        """Run each test once; note its duration and the functions of wire that it enters."""
        self.duration: dict[str, float] = {}
        self.callers: dict[tuple[str, str], list] = {}
        prefix = str(WIRE)
        for item in items:
            seen: set[tuple[str, str]] = set()

            def profile(frame, event, argument, seen=seen):
                code = frame.f_code
                if event == "call" and code.co_filename.startswith(prefix):
                    seen.add((code.co_filename, code.co_qualname.split(".<locals>")[0]))

            start = time.perf_counter()
            sys.setprofile(profile)
            ok = passes(item)
            sys.setprofile(None)
            self.duration[item.nodeid] = time.perf_counter() - start
            if not ok:
                self.failed_at_first.append(item.nodeid)
            for key in seen:
                self.callers.setdefault(key, []).append(item)

    def judge_file(self, path: Path) -> None:
        counts: Counter[str] = Counter()
        start = time.monotonic()
        rows: list[list[str]] = []
        kept = BUILD / f"{path.name}.json"
        known = json.loads(kept.read_text()) if self.survivors else {"seconds": 0, "rows": []}
        for mutant in mutants(path.read_text()):
            place = [*key(path, mutant)]
            before = known["rows"][len(rows)] if known["rows"] else []
            if before[:4] == place and before[4] != "survived":
                rows.append(before)
                continue
            if mutant.function:
                items = self.callers.get((str(path), mutant.function), [])
                items = sorted(items, key=lambda item: self.duration[item.nodeid])
                verdict = in_fork(lambda m=mutant, i=items: self.try_function(path, m, i))
            else:
                verdict = in_fork(lambda m=mutant: try_module(path, m))
            rows.append([*place, verdict])
            counts[verdict] += 1
            if verdict == "survived":
                print(
                    f"  {path.name}:{mutant.line} {mutant.before}  ->  {mutant.after}", flush=True
                )
        seconds = time.monotonic() - start + known["seconds"]
        print(f"{path.name}: {dict(counts)} in {seconds:.0f} s", flush=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"seconds": seconds, "rows": rows}))

    def try_function(self, path: Path, mutant: Mutant, items: list) -> int:
        """Give the live function the mutant's code and defaults, run `items`; return the status."""
        space = {"__name__": "mutant", "__file__": str(path)}
        exec(compile(mutant.tree, str(path), "exec"), space)
        changed = function_of(space, mutant.function)
        for live in self.live[str(path), mutant.function]:
            live.__code__ = changed.__code__
            live.__defaults__ = changed.__defaults__
        for item in items:
            limit_cpu(_SECONDS + 5 * self.duration[item.nodeid])
            if not passes(item):
                return _KILLED
        return _SURVIVED


def limit_cpu(seconds: float) -> None:
    """End this process after so much of its own time, however busy the machine is."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def passes(item) -> bool:
    return all(report.outcome != "failed" for report in runtestprotocol(item, log=False))


def in_fork(judge) -> str:
    """Return "killed", "timeout" or "survived" as `judge` finds in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = _KILLED
        try:
            limit_cpu(_SECONDS_ALL)
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            status = judge()
        except BaseException:
            # A mutant may raise anything, SystemExit too, and each of them is a test that is red.
            status = _KILLED
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGPROF else "killed"
    return "survived" if os.WEXITSTATUS(status) == _SURVIVED else "killed"


def live_functions() -> dict[tuple[str, str], list[types.FunctionType]]:
    """Return {(file, qualified name): functions} of wire as they are in memory now."""
    found: dict[tuple[str, str], list[types.FunctionType]] = {}
    for live in gc.get_objects():
        if isinstance(live, types.FunctionType):
            place = live.__code__.co_filename, live.__qualname__
            if place[0].startswith(str(WIRE)):
                found.setdefault(place, []).append(live)
    return found


def function_of(space: dict, qualified: str) -> types.FunctionType:
    first, *rest = qualified.split(".")
    found = space[first]
    for name in rest:
        found = vars(found)[name]
    return found.fget if isinstance(found, property) else found


class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module in a syntax tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname, path, target=None):
        if fullname == self.name:
            return importlib.util.spec_from_loader(fullname, self, origin=str(self.path))
        return None

    def exec_module(self, module):
        module.__file__ = str(self.path)
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def try_module(path: Path, mutant: Mutant) -> int:
    """Import everything anew with the mutant and run all tests until one fails."""
    for name in list(sys.modules):
        if name.startswith(("haaro.wire", "tests.wire", "unix_port_tests")):
            del sys.modules[name]
    sys.meta_path.insert(0, Importer("haaro.wire." + path.stem, path, mutant.tree))
    return _SURVIVED if run_pytest(Quick()) == pytest.ExitCode.OK else _KILLED


class Quick:
    def pytest_collection_finish(self, session):
        quick_hypothesis()


def run_pytest(plugin) -> int:
    # Quick files first: a mutant is killed sooner.
    order = ("vectors", "messages", "ipv4", "encapsulation", "auth", "prefixes", "realms")
    files = [f"tests/wire/test_{name}.py" for name in order]
    return pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", "--timeout=0", *files, "tests/wire"],
        plugins=[plugin],
    )


def equivalents() -> dict[tuple[str, str, str, str], str]:
    with EQUIVALENT.open(newline="") as file:
        rows = csv.DictReader(file)
        return {(r["file"], r["function"], r["before"], r["after"]): r["reason"] for r in rows}


def key(path: Path, mutant: Mutant) -> tuple[str, str, str, str]:
    return path.name, mutant.function, mutant.before, mutant.after


def document() -> tuple[str, float]:
    """Return (text of docs/mutation.md, score in percent) from the verdicts that are kept."""
    waived = equivalents()
    table: dict[str, Counter[str]] = {}
    left, listed = [], []
    seconds = 0.0
    for kept in sorted(BUILD.glob("*.json")):
        results = json.loads(kept.read_text())
        seconds += results["seconds"]
        for name, function, before, after, verdict in results["rows"]:
            place = (name, function, before, after)
            if verdict == "survived" and place in waived:
                verdict = "equivalent"
                listed.append((place, waived[place]))
            elif verdict == "survived":
                left.append((place, ""))
            table.setdefault(name, Counter())[verdict] += 1
    total = sum(table.values(), Counter())
    counted = total.total() - total["equivalent"]
    score = 100 * (total["killed"] + total["timeout"]) / counted
    columns = ("killed", "timeout", "survived", "equivalent")
    lines = [
        f"**Score: {score:.1f} %** of {counted} mutants (goal {GOAL} %), {seconds / 60:.0f} min.",
        "",
        "| File | " + " | ".join(columns) + " |",
        "|---|---|---|---|---|",
    ]
    for name, counts in [*table.items(), ("all", total)]:
        lines.append(f"| {name} | " + " | ".join(str(counts[c]) for c in columns) + " |")
    for title, rows in (("Survived", left), ("Equivalent", listed)):
        lines += ["", f"## {title}", ""]
        for (name, function, before, after), reason in rows:
            end = f": {reason}" if reason else ""
            lines.append(f"- {name} {function or 'module'}: `{before}` -> `{after}`{end}")
        if not rows:
            lines.append("None.")
    return _HEAD + "\n".join(lines) + "\n", score


def wire_files() -> list[Path]:
    return [path for path in sorted(WIRE.glob("*.py")) if path.name != "__init__.py"]


def main(names: list[str]) -> int:
    survivors = "--survivors" in names
    names = [name for name in names if name != "--survivors"]
    files = [WIRE / name for name in names] or wire_files()
    os.chdir(ROOT)
    plugin = Plugin(files, survivors)
    with contextlib.suppress(KeyboardInterrupt):
        run_pytest(plugin)
    if plugin.failed_at_first:
        print("fail without a mutant:", *plugin.failed_at_first, sep="\n  ")
        return 1
    text, score = document()
    if {path.name for path in wire_files()} <= {path.stem for path in BUILD.glob("*.json")}:
        DOCUMENT.write_text(text)
    print(text.partition("## Equivalent")[0])
    print(f"score {score:.1f} %")
    return 0 if score >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
