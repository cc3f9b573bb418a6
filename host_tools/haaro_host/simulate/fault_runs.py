"""Every fault with one seed: which are run how often, and the rows as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from haaro_host.simulate import faults, faults_restart
from haaro_host.simulate.faults import Row
from haaro_host.simulate.network import SimulationError

# Function, and with how many seeds made from the one given: the worst of them is the row.
_FAULTS: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "F1": (faults.f1_loss, 1),
    "F2": (faults.f2_black_hole, 5),
    "F3": (faults.f3_handover_seen, 5),
    "F4": (faults.f4_handover_unseen, 5),
    "F5": (faults.f5_nat_port, 5),
    "F6": (faults.f6_nat_address, 5),
    "F7": (faults_restart.f7_home_agent_restart, 3),
    "F8": (faults_restart.f8_disk_lost, 3),
    "F9": (faults_restart.f9_clock_steps, 1),
    "F10": (faults_restart.f10_peer_reboot, 5),
    "F11": (faults_restart.f11_at_once, 5),
    "F12": (faults.f12_disorder, 2),
    "F13": (faults_restart.f13_home_agent_hour, 2),
    "F14": (faults_restart.f14_power_cut, 1),
}
NAMES = tuple(_FAULTS)


def run(name: str, seed: int, times: int | None = None) -> list[Row]:
    """Do one fault, `times` over or as often as it takes; the same seed gives the same rows."""
    function, usual = _FAULTS[name]
    merged: list[Row] = []
    for number in range(times or usual):
        try:
            rows = function(seed * 1000 + number)
        except SimulationError as error:
            return [Row(name, faults.BY_HOME_AGENT, 0, None, f"did not come to the fault: {error}")]
        merged = [_worse(*pair) for pair in zip(merged, rows, strict=True)] if merged else rows
    return merged


def run_all(seed: int) -> Iterator[Row]:
    """Do every fault."""
    for name in NAMES:
        yield from run(name, seed)


def _worse(one: Row, other: Row) -> Row:
    if one.outage_s is None or other.outage_s is None:
        return one if one.outage_s is None else other
    return other if other.outage_s > one.outage_s else one


def as_dict(row: Row) -> dict[str, Any]:
    """Return the row as it is printed; seconds rounded to ms."""
    found = {"schema": "haaro.simulate.fault/1", **asdict(row)}
    if row.outage_s is not None:
        found["outage_s"] = round(row.outage_s, 3)
    return found
