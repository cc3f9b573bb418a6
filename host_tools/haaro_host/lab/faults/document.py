"""Writes docs/outages.md from the runs that `outages.py` kept."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from haaro_host.lab.faults import cases

if TYPE_CHECKING:
    from haaro_host.lab.faults.outages import Run

# Fault, path, bound in seconds, what is bounded.
ROWS = (
    ("F1", "rr", 30.0, "20 % loss: until return routability is done"),
    ("F1", "direct", 30.0, "20 % loss: longest gap of the probe"),
    ("F2", "direct", 5.0, "direct path swallows everything, or one way"),
    ("F3", "ha", 3.0, "handover that is seen, after the new address"),
    ("F3", "direct", 10.0, "the same, until direct again"),
    ("F4", "direct", 5.0, "uplink in use dies unseen, traffic was direct"),
    ("F4", "ha", 45.0, "the same, traffic with the home network"),
    ("F5", "direct", 5.0, "NAT restarts with other ports, traffic was direct"),
    ("F5", "ha", 45.0, "the same, traffic with the home network"),
    ("F6", "direct", 45.0, "NAT restarts with another address, traffic was direct"),
    ("F6", "ha", 45.0, "the same, traffic with the home network"),
    ("F7", "direct", 0.25, "home agent killed, back after 5 s; direct traffic"),
    ("F7", "ha", 15.0, "the same, traffic with the home network, after the restart"),
    ("F8", "ha", 60.0, "the same with an empty disk"),
    ("F8", "replay", 0.0, "replayed Requests that were accepted (a count)"),
    ("F9", "ha", 10.0, "a clock steps by an hour or ten years"),
    ("F10", "ha", 10.0, "a peer restarts, after its start"),
    ("F10", "direct", 30.0, "the same, until direct again"),
    ("F11", "ha", 60.0, "both restart, or move, at once"),
    ("F11", "direct", 60.0, "the same, until direct again"),
    ("F12", "direct", 5.0, "reordering, duplicates, corruption: longest gap"),
    ("F13", "ha", 60.0, "home agent away for long, after its return"),
    ("F14", "ha", 10.0, "power cut while the configuration is written: until registered"),
    ("handover", "away", 0.0, "`haaro router drain`: datagrams lost of 250 a second (a count)"),
    ("handover", "back", 0.0, "and back to the preferred uplink (a count)"),
    ("handover", "better", 0.0, "and to a better uplink that comes up (a count)"),
    ("nat", "2 s", 0.0, "NAT mappings of 2 s, a datagram each 4 s: datagrams lost (a count)"),
    ("nat", "shared", 60.0, "both routers behind one NAT: until direct inside it"),
    ("nat", "two", 1.0, "behind two NATs, by the home agent: longest gap"),
)
# What the simulation tells in a note and the namespaces as a row.
_IN_NOTES = {
    "rr": re.compile(r"return routability took ([\d.]+) s in 95 %"),
    "replay": re.compile(r"requests replayed, (\d+) accepted"),
}
Values = dict[tuple[str, str], list[float | None]]


def render(real: list[Run], simulated: list[Run], facts: dict[str, str]) -> tuple[str, bool]:
    """Return the document and whether every bound held in every run there is."""
    here, there = by_run(real), _simulated(simulated)
    lines = [_INTRODUCTION, *_how(real, simulated, facts), "", *_TABLE_HEAD]
    held = True
    for fault, path, bound, what in ROWS:
        cells = []
        for values in (there.get((fault, path), []), here.get((fault, path), [])):
            cells.append(_cell(values, bound))
            held &= all(value is not None and value <= bound for value in values)
        lines.append(f"| {fault} | {what} | {bound:g} | {cells[0]} | {cells[1]} |")
    lines += ["", *_survival(real, simulated), "", *_CASES_HEAD, *_case_lines(real)]
    failures = _failures(real) + _failures(simulated)
    if failures:
        lines += ["", "## Runs that missed", "", *failures]
    return "\n".join(lines) + "\n", held


def by_run(runs: list[Run]) -> Values:
    """Return (fault, path) -> one value a seed: the worst of the fault's cases.

    A seed counts for a fault once all its cases have run with it. A case that broke is a None for
    each path that it gives in its other runs.
    """
    paths: dict[str, set[tuple[str, str]]] = defaultdict(set)
    seeds: dict[int, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        seeds[run.seed][run.key] = run
        paths[run.key] |= {(row["fault"], row["path"]) for row in run.rows}
    found: Values = defaultdict(list)
    for _, done in sorted(seeds.items()):
        for fault in {case.fault for case in cases.CASES}:
            keys = [case.key for case in cases.CASES if case.fault == fault]
            if any(key not in done for key in keys):
                continue
            worst: dict[tuple[str, str], float | None] = {}
            for key in keys:
                for name, value in _values(done[key], paths[key]):
                    worst[name] = _worse(worst.get(name, -1.0), value)
            for name, value in worst.items():
                found[name].append(value)
    return found


def _values(run: Run, paths: set[tuple[str, str]]) -> list[tuple[tuple[str, str], float | None]]:
    if run.error:
        return [(name, None) for name in sorted(paths)]
    return [((row["fault"], row["path"]), row["outage_s"]) for row in run.rows]


def _worse(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


def _simulated(runs: list[Run]) -> Values:
    found: Values = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed):
        worst: dict[tuple[str, str], float | None] = {}
        for row in run.rows:
            name = row["fault"], row["path"]
            worst[name] = _worse(worst.get(name, -1.0), row["outage_s"])
            for path, pattern in _IN_NOTES.items():
                told = pattern.search(row["note"])
                if told:
                    worst[row["fault"], path] = float(told.group(1))
        for name, value in worst.items():
            found[name].append(value)
    return found


def _cell(values: list[float | None], bound: float) -> str:
    if not values:
        return "not run | |"
    from haaro_host.lab.faults.outages import median_and_worst

    middle, worst = (_number(value, bound) for value in median_and_worst(values))
    return f"{middle} | {worst} | {len(values)}"


def _number(value: float | None, bound: float) -> str:
    if value is None:
        return "**not held**"
    text = f"{value:.0f}" if bound == 0 else f"{value:.2f}"
    return text if value <= bound else f"**{text}**"


_INTRODUCTION = """\
# Outages

What each fault of [threats.md](threats.md) costs, measured. `make outages` wrote this: it runs
every fault so often in namespaces (real processes, [lab.md](lab.md)) and in simulation
([simulate.md](simulate.md)). An outage is the longest silence of a probe between two hosts, the
worse direction: 20 datagrams a second in namespaces, 10 in simulation. A run is one seed, that is
one phase of every timer; its value is the worst of the fault's cases. Seconds, unless it says a
count. **Bold** is a bound that was missed.
"""
_TABLE_HEAD = [
    "| Fault | What | Bound | Simulation: median | worst | runs "
    "| Namespaces: median | worst | runs |",
    "|---|---|---|---|---|---|---|---|---|",
]
_CASES_HEAD = [
    "## The cases in namespaces",
    "",
    "| Case | What is done | Path | Median | Worst | Runs |",
    "|---|---|---|---|---|---|",
]


def _how(real: list[Run], simulated: list[Run], facts: dict[str, str]) -> list[str]:
    lines = []
    for name, runs, code in (
        ("Namespaces", real, facts["namespaces_code"]),
        ("Simulation", simulated, facts["simulation_code"]),
    ):
        if not runs:
            lines.append(f"- {name}: not run on this code ({code}).")
            continue
        first, last = (_day(pick(run.at for run in runs)) for pick in (min, max))
        seeds = len({run.seed for run in runs})
        when = first if first == last else f"{first} to {last}"
        lines.append(
            f"- {name}: {len(runs)} runs of cases with {seeds} of {facts['runs']} wanted seeds,"
            f" measured {when}, code {code}."
        )
    if facts["commit"]:
        lines.append(f"- Written at commit {facts['commit']}; only runs of its code are counted.")
    jobs = max((run.jobs for run in (*real, *simulated)), default=1)
    lines.append(
        f"- On {facts['processor']}, {facts['cores']} cores, Linux {facts['kernel']}, Python"
        f" {facts['python']}; up to {jobs} runs side by side, so that all programs of"
        " several labs shared these cores."
    )
    lines.append(
        "- F13 is an hour in simulation and ten minutes in namespaces. A seed of F1 in simulation"
        " is 300 starts, of which 95 in 100 set the value for return routability."
    )
    return lines


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) + " UTC"


def _survival(real: list[Run], simulated: list[Run]) -> list[str]:
    lines = ["## What survives a home agent's outage", ""]
    lived = [
        row["outage_s"]
        for run in real
        for row in run.rows
        if row["path"] == "survival" and row["outage_s"] is not None
    ]
    notes = [
        found
        for run in simulated
        for row in run.rows
        if row["fault"] == "F13"
        for found in re.findall(r"direct traffic lived (\d+) s", row["note"])
    ]
    lines.append(
        "Direct traffic goes on until the registrations between the two routers end: at most 420 s"
        " after the last, as keys from return routability are renewed by way of the home agent."
    )
    if lived:
        lines.append(
            f"In namespaces it went on for {min(lived):.0f} to {max(lived):.0f} s (median"
            f" {statistics.median(lived):.0f} s, {len(lived)} runs of ten minutes)."
        )
    if notes:
        seconds = [int(each) for each in notes]
        lines.append(
            f"In simulation for {min(seconds)} to {max(seconds)} s ({len(seconds)} runs of an"
            " hour)."
        )
    return lines


def _by_number(case: cases.Case) -> tuple[int, str]:
    number = case.fault.removeprefix("F")
    return (int(number) if number.isdecimal() else len(cases.CASES), case.key)


def _case_lines(runs: list[Run]) -> list[str]:
    lines = []
    for case in sorted(cases.CASES, key=_by_number):
        mine = [run for run in runs if run.key == case.key]
        bounds = {row["path"]: row["bound_s"] for run in mine for row in run.rows}
        by_path: dict[str, list[float | None]] = defaultdict(list)
        for run in mine:
            worst: dict[str, float | None] = dict.fromkeys(bounds) if run.error else {}
            for row in run.rows:
                worst[row["path"]] = _worse(worst.get(row["path"], -1.0), row["outage_s"])
            for path, value in worst.items():
                by_path[path].append(value)
        for path, values in sorted(by_path.items()):
            cell = _cell(values, bounds[path])
            lines.append(f"| {case.key} | {case.about} | {path} | {cell} |")
        if not by_path:
            lines.append(f"| {case.key} | {case.about} | | not run | | |")
    return lines


def _failures(runs: list[Run]) -> list[str]:
    lines = []
    for run in sorted(runs, key=lambda run: (run.key, run.seed)):
        if run.error:
            lines.append(f"- {run.where}, {run.key}, seed {run.seed}: {run.error.splitlines()[0]}")
        for row in run.rows:
            value, bound = row["outage_s"], row["bound_s"]
            if value is None or value > bound:
                said = "not held" if value is None else f"{value:.2f} of {bound:g} s"
                which = f"{run.where}, {run.key}, seed {run.seed}, {row['path']}"
                lines.append(f"- {which}: {said}; {row['note']}")
    return lines
