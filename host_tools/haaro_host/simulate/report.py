"""The figures of a run, as data and as text."""

from __future__ import annotations

from statistics import median
from typing import Any

from haaro_host.simulate.run import Run, direct_ms, off_home_agent
from haaro_host.simulate.tally import signalling
from haaro_host.simulate.world import HOME

SCHEMA = "haaro.simulate/1"
_SHOWN = 12  # routers in a table of text; with more, only the range


def report(run: Run) -> dict[str, Any]:
    """Return the figures, JSON-able. Times in seconds, octets of IPv4."""
    world = run.world
    flows = list(world.sink.flows.values())
    between = [f for f in flows if HOME not in f.name.split(">") and f.started_at is not None]
    took = [direct_ms(flow) for flow in between]
    known = [ms for ms in took if ms is not None]
    worst = max(flows, key=lambda flow: flow.gap_ms(), default=None)
    share = off_home_agent(world)
    return {
        "schema": SCHEMA,
        "about": run.scenario.about,
        "seed": run.seed,
        "seconds": run.scenario.seconds,
        "routers": len(world.routers),
        "datagrams": world.network.datagrams,
        "trace_sha256": world.network.trace_sha256,
        "converged": {
            "registered_s": _seconds(run.registered_at),
            "direct_s": _seconds(max(known, default=None)),
            "flows": len(between),
            "flows_never_direct": len(took) - len(known),
        },
        "off_home_agent": None if share is None else round(share, 4),
        "longest_outage": None
        if worst is None
        else {
            "seconds": worst.gap_ms() / 1000,
            "flow": worst.name,
            "at_s": _seconds(worst.longest_at),
        },
        "traffic": {
            "sent": sum(flow.sent for flow in flows),
            "delivered": sum(flow.delivered for flow in flows),
            "duplicates": sum(flow.duplicates for flow in flows),
            "damaged": world.sink.damaged,
            "wrong": world.sink.wrong,
        },
        "signalling": _signalling(run),
        "failures": run.failures(),
    }


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _signalling(run: Run) -> dict[str, dict[str, int]]:
    tally = run.world.tally
    sent, received = signalling(tally.sent), signalling(tally.received)
    rows = {}
    for name in (*run.world.routers, "HA"):
        keepalives = tally.sent.get((name, "keepalive"), [0, 0])
        out, back = sent.get(name, (0, 0)), received.get(name, (0, 0))
        rows[name] = {
            "sent": out[0],
            "sent_octets": out[1],
            "received": back[0],
            "received_octets": back[1],
            "keepalives_sent": keepalives[0],
            "keepalive_octets_sent": keepalives[1],
        }
    return rows


def lines(data: dict[str, Any]) -> list[str]:
    """Return the figures as text."""
    converged, traffic = data["converged"], data["traffic"]
    out = [
        data["about"],
        f"seed {data['seed']}, {data['seconds']:g} s, {data['routers']} routers,"
        f" {data['datagrams']} datagrams, trace {data['trace_sha256'][:16]}",
        f"all registered after {_or_never(converged['registered_s'])}; direct after"
        f" {_or_never(converged['direct_s'])} in {converged['flows']} flows,"
        f" {converged['flows_never_direct']} never",
    ]
    if data["off_home_agent"] is not None:
        out.append(
            f"{data['off_home_agent']:.1%} of the traffic between routers off the home agent"
        )
    outage = data["longest_outage"]
    if outage is not None:
        out.append(
            f"longest outage {outage['seconds']:.2f} s, {outage['flow']},"
            f" from {outage['at_s']:.2f} s;"
            f" {traffic['delivered']} of {traffic['sent']} packets delivered,"
            f" {traffic['wrong']} wrongly"
        )
    rows = {name: row for name, row in data["signalling"].items() if name != "HA"}
    shown = {**rows, "HA": data["signalling"]["HA"]}
    if len(rows) > _SHOWN:
        shown = {
            f"router, {word}": {key: int(way([row[key] for row in rows.values()])) for key in row0}
            for word, way in (("least", min), ("median", median), ("most", max))
            for row0 in (next(iter(rows.values())),)
        }
        shown["HA"] = data["signalling"]["HA"]
    out.append("signalling          sent   octets  received   octets  keepalives   octets")
    out += [
        f"  {name:<14} {row['sent']:>7} {row['sent_octets']:>8} {row['received']:>9}"
        f" {row['received_octets']:>8} {row['keepalives_sent']:>11}"
        f" {row['keepalive_octets_sent']:>8}"
        for name, row in shown.items()
    ]
    return out + [f"NOT AS EXPECTED: {text}" for text in data["failures"]]


def _or_never(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f} s"
