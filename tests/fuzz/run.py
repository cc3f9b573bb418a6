"""Fuzz every parser of the wire layer by coverage (atheris): `python -m tests.fuzz.run`.

Each target gets its share of the time in a process of its own, starting from the corpus kept in
tests/fuzz/corpus. `--keep` merges what was found into it: the least set of the same coverage. A
failing input is saved, printed, and fails the run; it belongs into the corpus with its fix.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType

from tests.fuzz import corpus
from tests.meta.repository import FIRMWARE, ROOT

BUILD = ROOT / "build" / "fuzz"
NAMES = (
    "parse_message",
    "signed_message",
    "advertisement",
    "realm",
    "prefix",
    "packet",
    "tunnel",
    "address",
)
DOCUMENT = ROOT / "docs" / "fuzz.md"
_HEAD = """\
# Fuzzing the parsers

Written by `make fuzz KEEP=1`; do not edit. Each target of `tests/fuzz/targets.py` begins with its
invariant. Executions and edges (of bytecode, as libFuzzer counts them) are those of one run. The
inputs kept are replayed by `make test`; what builds messages is no target, so its lines are not
reached here.

"""
_LONGEST = 1024
_LEAST = 10
_WIRE = str(FIRMWARE / "haaro" / "wire")


def fuzz_here(name: str, arguments: list[str]) -> None:
    """Run one target in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["haaro.wire"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def child(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.run", "--target", name, "--"]
    command += [str(argument) for argument in arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def seeds(name: str) -> Path:
    """Write the kept inputs of `name` as files for libFuzzer; return their folder."""
    folder = BUILD / name / "seeds"
    folder.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(corpus.load(name)):
        (folder / f"{i:04}").write_bytes(data)
    return folder


def fuzz(name: str, seconds: int, keep: bool) -> tuple[str, bool]:
    """Fuzz one target; return (row of the table, whether it held)."""
    found = BUILD / name / "found"
    found.mkdir(parents=True, exist_ok=True)
    start = seeds(name)
    result = child(
        name,
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        "-timeout=60",  # of wall time: a busy machine stops a process for seconds
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={BUILD / name}/",
        found,
        start,
    )
    if keep and result.returncode == 0:
        corpus.store(
            name, least(name, corpus.load(name) + [f.read_bytes() for f in found.iterdir()])
        )
    runs = int((re.findall(r"number_of_executed_units: (\d+)", result.stderr) or ["0"])[-1])
    edges = (re.findall(r"cov: (\d+)", result.stderr) or ["0"])[-1]
    held = result.returncode == 0
    if not held:
        print(result.stdout[-4000:], result.stderr[-4000:], sep="\n")
    verdict = "held" if held else "FAILED"
    return f"| {name} | {seconds} | {runs} | {edges} | {len(corpus.load(name))} | {verdict} |", held


def lines_of(code: CodeType) -> set[int]:
    """Return the lines that can be executed in `code` and all code inside it."""
    found = {line for _, _, line in code.co_lines() if line}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= lines_of(inner)
    return found


def covered(replay: Callable[[], None]) -> set[tuple[str, int, int]]:
    """Return (file, line before, line) of the wire layer executed while `replay` runs."""
    seen: set[tuple[str, int, int]] = set()
    last = 0

    def trace(frame, event, argument):
        nonlocal last
        if not frame.f_code.co_filename.startswith(_WIRE):
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        replay()
    finally:
        sys.settrace(None)
    return seen


def least(name: str, inputs: list[bytes]) -> list[bytes]:
    """Return the inputs that reach a step from line to line that no shorter one reaches."""
    from tests.fuzz.targets import TARGETS

    seen: set[tuple[str, int, int]] = set()
    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = covered(lambda data=data: TARGETS[name](data))
        if not new <= seen or len(kept) < _LEAST:
            kept.append(data)
            seen |= new
    return kept


def coverage() -> list[str]:
    """Return the rows of the table of lines that the kept corpus reaches in functions."""
    from tests.fuzz.targets import TARGETS

    def replay() -> None:
        for name in NAMES:
            for data in corpus.load(name):
                TARGETS[name](data)

    seen = {(file, line) for file, _, line in covered(replay)}
    rows = []
    for path in sorted(Path(_WIRE).glob("*.py")):
        functions = set()
        queue = [compile(path.read_text(), str(path), "exec")]
        while queue:
            code = queue.pop()
            for inner in code.co_consts:
                if isinstance(inner, CodeType):
                    queue.append(inner)
                    if inner.co_flags & 0x02:  # CO_NEWLOCALS: a function, not a class body
                        functions |= lines_of(inner) - {inner.co_firstlineno}
        reached = {line for line in functions if (str(path), line) in seen}
        if functions:
            share = 100 * len(reached) // len(functions)
            rows.append(f"| {path.name} | {len(reached)} | {len(functions)} | {share} % |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--target", choices=NAMES)
    parser.add_argument("rest", nargs="*")
    arguments = parser.parse_args()
    if arguments.target:
        fuzz_here(arguments.target, arguments.rest)
    share = max(1, arguments.seconds // len(NAMES))
    start = time.monotonic()
    lines = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say("| Target | Seconds | Executions | Edges | Inputs kept | Invariant |")
    say("|---|---|---|---|---|---|")
    all_held = True
    for name in NAMES:
        row, held = fuzz(name, share, arguments.keep)
        all_held = all_held and held
        say(row)
    say("\n| File | Lines the corpus reaches | Lines in functions | |\n|---|---|---|---|")
    say("\n".join(coverage()))
    say(f"\n{time.monotonic() - start:.0f} s, " + ("all held." if all_held else "FAILED."))
    if arguments.keep:
        DOCUMENT.write_text(_HEAD + "\n".join(lines) + "\n")
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
