"""`haaro lab outages`: every fault so many times, in namespaces and in simulation, as a document.

Each run is one line of JSON in a file of its own kind, with the hash of the code that it ran. A
later start does only what is missing for the code as it is now; runs of other code stay in the file
and are not counted. A run of a fault is one seed; it counts the worst of its cases.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from haaro_host.lab import processes, system
from haaro_host.lab.faults import cases, document, layouts
from haaro_host.lab.faults.bench import Row
from haaro_host.lab.faults.layouts import Wants
from haaro_host.lab.lab import RUN, Lab
from haaro_host.simulate import fault_runs

NAMESPACES, SIMULATION = "namespaces", "simulation"
_SOURCES = {
    NAMESPACES: ("firmware/haaro", "firmware/main.py", "host_tools/haaro_host/home_agent",
                 "host_tools/haaro_host/lab"),
    SIMULATION: ("firmware/haaro/core", "firmware/haaro/wire", "firmware/haaro/shell",
                 "host_tools/haaro_host/home_agent", "host_tools/haaro_host/simulate"),
}  # fmt: skip
# No run of a fault comes by these.
_NOT_MEASURING = (
    "outages.py", "document.py", "demo.py", "report.py", "claims.py", "facts.py", "soak.py",
    "evidence.py", "plain.py", "transfer.py", "cli.py", "diagram.py", "scenario_file.py",
)  # fmt: skip
_BOARDS = "board"  # the lab's boards, in a folder of their own
_PREFIX = "haaro-o"
_DEADLINE_S = 1800
_WRITE_EVERY = 20  # runs
_SIMULATED = (
    "import json, sys; from dataclasses import asdict; from haaro_host.simulate import fault_runs; "
    "print(json.dumps([asdict(r) for r in fault_runs.run(sys.argv[1], int(sys.argv[2]), times=1)]))"
)


@dataclass(frozen=True)
class Run:
    """One line of the file: what ran where, on which code, and what came of it."""

    where: str
    code: str
    key: str  # case in namespaces, fault in simulation
    seed: int
    rows: list[dict[str, Any]]
    error: str
    at: float  # when it ended, seconds since 1970
    took_s: float
    jobs: int = 1  # runs side by side, at most


def code_hash(where: str, root: Path | None = None) -> str:
    """Return twelve digits of a hash over every source file that such a run executes."""
    root = root or system.repository()
    found = hashlib.sha256()
    for name in _SOURCES[where]:
        path = root / name
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        for each in files:
            if each.name not in _NOT_MEASURING and each.parent.name != _BOARDS:
                found.update(f"{each.relative_to(root)}\0".encode())
                found.update(each.read_bytes())
    return found.hexdigest()[:12]


def remove_leftovers(prefix: str) -> None:
    """Take down the labs called PREFIX and the id of a process that is gone: it was killed."""
    whole = layouts.layout(Wants(nat=True, nat_of_c=True, relay=True, second_uplink=True))
    for left in RUN.glob(f"{prefix}[0-9]*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if left.is_dir() and owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            Lab(left.name, layout=whole).down()


class Store:
    """The runs of one kind: lines of JSON, only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def runs(self) -> list[Run]:
        """Return what is there; a line that an interruption cut short is passed over."""
        found = []
        with self.path.open("a+") as file:
            file.seek(0)
            for line in file:
                try:
                    found.append(Run(**json.loads(line)))
                except (ValueError, TypeError):
                    continue
        return found

    def add(self, run: Run) -> None:
        """Append one run, on a line of its own whatever was there before."""
        with self.path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(asdict(run)).encode() + b"\n")


class Outages:
    """All runs, `jobs` at a time, and the document."""

    def __init__(
        self, out: Path, report: Path, runs: int, jobs: int, say: Callable[[str], None]
    ) -> None:
        self._out = out
        self._report = report
        self._runs = runs
        self._jobs = jobs
        self._say = say
        self._stores = {where: Store(out / f"{where}.jsonl") for where in _SOURCES}
        self._codes = {where: code_hash(where) for where in _SOURCES}

    def measure(self, where: tuple[str, ...] = (NAMESPACES, SIMULATION)) -> bool:
        """Do what is missing, seed by seed; write the document now and then and at the end.

        Returns whether every bound holds in every run there is.
        """
        remove_leftovers(_PREFIX)
        missing = [
            (kind, key, seed)
            for seed in range(1, self._runs + 1)
            for kind, key in self._missing(seed)
            if kind in where
        ]
        pool = ThreadPoolExecutor(self._jobs)
        try:
            running = [
                pool.submit(self._run, kind, key, seed, number)
                for number, (kind, key, seed) in enumerate(missing)
            ]
            for count, each in enumerate(as_completed(running), 1):
                self._keep(each.result())
                if not count % _WRITE_EVERY:
                    self.write()
        except BaseException:
            # Ctrl-C above all: the pool lets go of what runs only when that is over.
            self._say("ending; what runs now is let finish first (up to a quarter of an hour)")
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return self.write()

    def write(self) -> bool:
        """Write the document from what is there; whether every bound held in every run."""
        counted = {
            where: [run for run in store.runs() if run.code == self._codes[where]]
            for where, store in self._stores.items()
        }
        text, held = document.render(counted[NAMESPACES], counted[SIMULATION], self._facts())
        processes.write_atomically(self._report, text)
        return held

    def _missing(self, seed: int) -> Iterator[tuple[str, str]]:
        wanted = {
            NAMESPACES: [case.key for case in cases.CASES],
            SIMULATION: list(fault_runs.NAMES),
        }
        for where, keys in wanted.items():
            done = {
                run.key
                for run in self._stores[where].runs()
                if run.code == self._codes[where] and run.seed == seed
            }
            yield from ((where, key) for key in keys if key not in done)

    def _run(self, where: str, key: str, seed: int, number: int) -> Run:
        began = time.monotonic()
        if where == NAMESPACES:
            result = cases.run_apart(
                key, seed, self._out / "kept", f"{_PREFIX}{os.getpid()}-{number}"
            )
            rows, error = [asdict(row) for row in result.rows], result.error
        else:
            rows, error = _simulate(key, seed)
        took = round(time.monotonic() - began, 1)
        code = self._codes[where]
        return Run(where, code, key, seed, rows, error, time.time(), took, self._jobs)

    def _keep(self, run: Run) -> None:
        if code_hash(run.where) != run.code:
            raise system.LabError(
                f"the code changed while {run.key} ran: what it measured is neither of the old nor "
                "of the new code. Start again, it goes on with the code as it is now."
            )
        self._stores[run.where].add(run)
        bad = [row for row in run.rows if not Row(**row).met]
        said = run.error.splitlines()[0] if run.error else ""
        said = said or "; ".join(f"{row['path']} {row['outage_s']}: {row['note']}" for row in bad)
        self._say(f"{run.where} {run.key} seed {run.seed}: {said or 'held'} ({run.took_s:.0f} s)")

    def _facts(self) -> dict[str, str]:
        return {
            "processor": _processor(),
            "cores": str(os.cpu_count() or 1),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "namespaces_code": self._codes[NAMESPACES],
            "simulation_code": self._codes[SIMULATION],
            "runs": str(self._runs),
            "commit": _commit(),
        }


def _simulate(fault: str, seed: int) -> tuple[list[dict[str, Any]], str]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SIMULATED, fault, str(seed)],
            capture_output=True, text=True, timeout=_DEADLINE_S, check=False,
            preexec_fn=processes.die_with_the_parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [], f"did not end in {_DEADLINE_S} s"
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        return [], f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"


def _commit() -> str:
    """Return the commit that is checked out, "" where there is none to be found."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=system.repository(), capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def median_and_worst(values: list[float | None]) -> tuple[float | None, float | None]:
    """Return both; None is worse than any number, and is the median if half the runs are None."""
    ordered = sorted((float("inf") if value is None else value) for value in values)
    middle = statistics.median_high(ordered)
    return _finite(middle), _finite(ordered[-1])


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value
