"""Shows and writes what a run of the demo found: table, drawing, report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from haaro_host.lab import plan, system
from haaro_host.lab.facts import Facts, PathFigures, Switch
from haaro_host.lab.processes import write_atomically

SCHEMA = "haaro.lab.report/1"
_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
_PATHS = (
    ("home_agent", "by the home agent"),
    ("direct", "direct"),
    ("plain_kernel", "plain kernel forwarding"),
    ("plain_kernel_offloads", "the same with offloads"),
)
_SWITCHES = (
    ("to_direct", "home agent to direct"),
    ("fall_back", "direct path cut, to home agent"),
    ("return", "cut mended, to direct"),
)


def write(facts: Facts, out: Path) -> Path:
    """Write `out`/report.json; its path."""
    path = out / "report.json"
    write_atomically(path, json.dumps(as_json(facts, out), indent=2) + "\n")
    return path


def as_json(facts: Facts, out: Path) -> dict[str, Any]:
    """The report as plain data. Milliseconds, Mbit/s and seconds; null is "not measured"."""
    cut = facts.switches.get("fall_back")
    return {
        "schema": SCHEMA,
        "ok": facts.ok,
        "seconds": facts.seconds,
        "registered_s": facts.registered_s,
        "direct_path_s": facts.direct_path_s,
        "lost_at_switch": {name: each.lost_total for name, each in facts.switches.items()},
        "outage_s": cut.outage_s if cut else None,
        "switches": {name: _switch_json(each) for name, each in facts.switches.items()},
        "direct_packets_through_ha": facts.direct_packets_through_ha,
        "file_sha256_match": facts.all_hashes_match,
        "transfers": facts.transfers,
        "rtt_ms": _by_path(facts, "rtt_ms"),
        "tcp_mbit_s": _by_path(facts, "tcp_mbit_s"),
        "tcp_retransmits": _by_path(facts, "retransmits"),
        "small_packets_per_s": _by_path(facts, "small_packets_per_s"),
        "own_loss_tcp": _by_path(facts, "own_loss_tcp"),
        "own_loss_small_packets": _by_path(facts, "own_loss_small"),
        "packets_by_home_agent": _by_path(facts, "packets_by_home_agent"),
        "router_heap_bytes": facts.heap(),
        "router_own_loss": facts.own_loss(),
        "filter": facts.filter,
        "recorded": facts.recorded,
        "packets_between": facts.who_to_whom,
        "claims": [vars(claim) for claim in facts.claims],
        "captures": sorted(path.name for path in out.glob("*.pcap")),
        "logs": sorted(f"logs/{path.name}" for path in (out / "logs").glob("*")),
    }


def show(facts: Facts, console: Console) -> None:
    """Print the tables, the drawing and every claim."""
    console.print(_paths_table(facts))
    console.print(_switch_table(facts))
    console.print(Panel(drawing(facts), title="who talks to whom",
                        subtitle="captured packets", expand=False))  # fmt: skip
    console.print(_own_loss_lines(facts))
    if system.in_user_namespace():
        console.print(
            "in a user namespace the routers' receive queues end at net.core.rmem_max"
            f" ({_RMEM_MAX.read_text().strip()} octets), and what overflows them is counted above"
        )
    console.print("user traffic is not encrypted: RFC 6521 protects signalling only")
    for claim in facts.claims:
        mark = "[green]observed[/]" if claim.observed else "[bold red]NOT observed[/]"
        console.print(f"{mark}  {claim.text} [dim]({claim.evidence})[/]")


def drawing(facts: Facts) -> str:
    """The offices, the home agent, and the packets captured between them (both directions)."""
    between = facts.who_to_whom

    def both(one: str, other: str) -> str:
        return f"{between.get(f'{one}>{other}', 0) + between.get(f'{other}>{one}', 0)} packets"

    a, b, c = plan.OFFICES
    return "\n".join(
        [
            f"                  home agent {plan.HOME_AGENT}",
            "          ┌──────────────────┼──────────────────┐",
            f"  {both('A', 'HA'):^17}{both('B', 'HA'):^22}{both('C', 'HA'):^19}",
            "          │                  │                  │",
            f"  {'A':^17}{'B':^22}{'C':^19}",
            f"  {a.care_of_address:^17}{b.care_of_address:^22}{c.care_of_address:^19}",
            f"  {a.lan_net:^17}{b.lan_net:^22}{c.lan_net:^19}",
            "          ║                                     ║",
            f"          ╚═══════ direct: {both('A', 'C'):^18} ═════════╝",
        ]
    )


def _paths_table(facts: Facts) -> Table:
    table = Table(title="C to A, by path")
    for header in ("path", "RTT", "TCP", "64-octet packets", "packets by the HA", "direct"):
        table.add_column(header, justify="left" if header == "path" else "right")
    for key, name in _PATHS:
        figures = facts.paths.get(key, PathFigures())
        table.add_row(
            name,
            _shown(figures.rtt_ms, "{:.2f} ms"),
            _shown(figures.tcp_mbit_s, "{:.0f} Mbit/s"),
            _shown(figures.small_packets_per_s, "{:d}/s"),
            _shown(figures.packets_by_home_agent, "{:d}"),
            _shown(figures.packets_direct, "{:d}"),
        )
    table.caption = "bulk TCP in the direct tunnel is recorded 1 packet in 32"
    return table


def _switch_table(facts: Facts) -> Table:
    table = Table(title="when traffic changes its path")
    for header in ("switch", "packets lost", "longest silence", "seconds"):
        table.add_column(header, justify="left" if header == "switch" else "right")
    for key, name in _SWITCHES:
        switch = facts.switches.get(key)
        if switch is None:
            table.add_row(name, "not measured", "", "")
            continue
        table.add_row(name, str(switch.lost_total), f"{switch.outage_s:.3f} s",
                      f"{switch.seconds:.3f}")  # fmt: skip
    first = _shown(facts.direct_path_s, "{:.3f} s")
    table.caption = f"from the first packet to the direct path, both directions: {first}"
    return table


def _own_loss_lines(facts: Facts) -> str:
    def said(attribute: str) -> str:
        parts = []
        for key, name in _PATHS:
            lost = getattr(facts.paths.get(key, PathFigures()), attribute)
            if lost is not None:
                parts.append(f"{name} {sum(lost.values())}")
        return ", ".join(parts) or "not measured"

    return (
        f"packets lost by the routers themselves under saturating TCP: {said('own_loss_tcp')}\n"
        f"under as many small datagrams as the sender can make: {said('own_loss_small')}"
    )


def _switch_json(switch: Switch) -> dict[str, Any]:
    return {"lost": switch.lost, "seconds": switch.seconds, "longest_silence_s": switch.outage_s}


def _by_path(facts: Facts, attribute: str) -> dict[str, Any]:
    return {key: getattr(facts.paths.get(key, PathFigures()), attribute) for key, _ in _PATHS}


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
