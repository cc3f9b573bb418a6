"""The cases: which there are, what each needs, and how one is run.

    python -m haaro_host.lab.faults.cases CASE --seed N --out DIRECTORY --name LAB

runs one case and prints its rows as JSON. A process a case, so that several run side by side and
one that breaks takes no other with it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from haaro_host.lab import processes, system
from haaro_host.lab.faults import handovers, links, restarts
from haaro_host.lab.faults.bench import Bench, Row
from haaro_host.lab.faults.layouts import Wants
from haaro_host.lab.system import LabError

_PLAIN = Wants()
_SHARED, _TWO_NATS = Wants(shared_nat=True), Wants(nat=True, nat_of_c=True)
_NAT, _RELAY, _TWO = Wants(nat=True), Wants(relay=True), Wants(second_uplink=True)
SCHEMA = "haaro.lab.fault/1"
DEADLINE_S = 1200
SIDE_BY_SIDE = 7


@dataclass(frozen=True)
class Case:
    """One case: fault, what its lab needs, the function; `long` ones are not for every day."""

    fault: str
    run: Callable[[Bench], list[Row]]
    wants: Wants = _PLAIN
    long: bool = False

    @property
    def key(self) -> str:
        """Name on the command line and in results."""
        return self.run.__name__.replace("_", "-")

    @property
    def about(self) -> str:
        """What is done, in words."""
        return " ".join((self.run.__doc__ or "").split())


# The longest first: side by side, that ends soonest.
CASES = (
    Case("F13", restarts.f13_home_agent_away, long=True),
    Case("F9", restarts.f9_home_agent_hour),
    Case("F9", restarts.f9_home_agent_decade),
    Case("F9", restarts.f9_restart_hour),
    Case("F9", restarts.f9_restart_decade),
    Case("F4", links.f4_home_agent, _TWO),
    Case("F4", links.f4_one_way, _TWO),
    Case("F5", links.f5_home_agent_port, _NAT),
    Case("F5", links.f5_home_agent_symmetric, _NAT),
    Case("F6", links.f6_home_agent, _NAT),
    Case("F5", links.f5_direct_port, _NAT),
    Case("F5", links.f5_direct_symmetric, _NAT),
    Case("F6", links.f6_direct, _NAT),
    Case("F9", restarts.f9_router),
    Case("F1", links.f1_loss, _RELAY),
    Case("F12", links.f12_disorder, _RELAY),
    Case("nat", links.nat_two_seconds, _NAT),
    Case("nat", links.nat_shared, _SHARED),
    Case("nat", links.nat_two, _TWO_NATS),
    Case("F7", restarts.f7_direct),
    Case("F7", restarts.f7_home_agent),
    Case("F8", restarts.f8_disk_lost),
    Case("F8", restarts.f8_replay),
    Case("F2", links.f2_both_ways),
    Case("F2", links.f2_a_to_c),
    Case("F2", links.f2_c_to_a),
    Case("F10", restarts.f10_peer),
    Case("F11", restarts.f11_restart),
    Case("F11", restarts.f11_move),
    Case("F3", links.f3_a_moves),
    Case("F3", links.f3_c_moves),
    Case("F3", links.f3_no_gap),
    Case("F4", links.f4_direct, _TWO),
    Case("handover", handovers.handover_direct, _TWO),
    Case("handover", handovers.handover_home, _TWO),
    Case("handover", handovers.handover_better, _TWO),
    Case("F14", restarts.f14_power_cut),
)
BY_KEY = {case.key: case for case in CASES}


@dataclass
class Result:
    """What one run of a case gave. `error` is "" when it came to its end."""

    case: str
    seed: int
    rows: list[Row]
    error: str
    took_s: float
    out: str

    @property
    def met(self) -> bool:
        """Whether every bound holds."""
        return not self.error and bool(self.rows) and all(row.met for row in self.rows)


def run_here(case: Case, name: str, seed: int, out: Path) -> list[Row]:
    """Run a case in this process. Raises LabError."""
    return case.run(Bench(name, out, case.wants, seed, case.key))


def run_all(
    keys: Iterable[str], seed: int, out: Path, prefix: str, jobs: int = SIDE_BY_SIDE
) -> Iterator[Result]:
    """Run cases in processes of their own, `jobs` at a time; results as they come.

    Captures and logs are kept under `out`/CASE-SEED only where a bound is missed.
    """
    wanted = list(keys)
    with ThreadPoolExecutor(jobs) as pool:
        running = [
            pool.submit(run_apart, key, seed, out, f"{prefix}-{number}")
            for number, key in enumerate(wanted)
        ]
        for each in running:
            yield each.result()


def run_apart(key: str, seed: int, out: Path, name: str) -> Result:
    """Run one case in a process of its own; never raises for what goes wrong in it."""
    where = out / f"{key}-{seed}"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "haaro_host.lab.faults.cases", key,
               "--seed", str(seed), "--out", str(where), "--name", name]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            preexec_fn=processes.die_with_the_parent,
        )  # fmt: skip
        rows, error = _rows(done)
    except subprocess.TimeoutExpired:
        rows, error = [], f"did not end in {DEADLINE_S} s"
    result = Result(key, seed, rows, error, round(time.monotonic() - began, 1), str(where))
    if result.met:
        shutil.rmtree(where)
    else:
        (where / "result.json").write_text(json.dumps(asdict(result), indent=2) + "\n")
    return result


def as_text(result: Result) -> str:
    """Return a result in lines for people."""
    head = f"{'held' if result.met else 'MISSED':6}  {result.case}  ({result.took_s:.0f} s)"
    lines = [f"{head}  {result.error}".rstrip()]
    for row in result.rows:
        got = "not held" if row.outage_s is None else f"{row.outage_s:.2f}"
        lines.append(f"        {row.fault} {row.path}: {got}, bound {row.bound_s:g}; {row.note}")
    if not result.met:
        lines.append(f"        captures and logs: {result.out}")
    return "\n".join(lines)


def _rows(done: subprocess.CompletedProcess[str]) -> tuple[list[Row], str]:
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return [Row(**row) for row in found["rows"]], found["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        return [], f"ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}"


def main() -> None:
    """Run the case that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=sorted(BY_KEY))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    system.widen_path()
    answer: dict[str, Any] = {"rows": [], "error": ""}
    try:
        rows = run_here(BY_KEY[options.case], options.name, options.seed, options.out)
        answer["rows"] = [asdict(row) for row in rows]
    except LabError as error:
        answer["error"] = str(error)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
