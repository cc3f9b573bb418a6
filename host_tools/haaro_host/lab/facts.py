"""What a run of the demo measured, and the claims judged from it.

Plain data: filled by `demo.py` and `claims.py`, written by `report.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# What of a data plane's `own_loss` is loss; the other entries are totals.
_LOSSES = ("socket_drops", "cut", "send_errors", "port_errors")


@dataclass(frozen=True)
class Claim:
    """One sentence about haaro, whether it was observed, and by what."""

    text: str
    observed: bool
    evidence: str


@dataclass
class Switch:
    """Traffic changed its path once. Times in seconds since 1970."""

    name: str
    since: float
    until: float
    lost: dict[str, int]
    seconds: float
    outage_s: float

    @property
    def lost_total(self) -> int:
        """Probe datagrams lost, both directions together."""
        return sum(self.lost.values())


@dataclass
class PathFigures:
    """What one path does: milliseconds, Mbit/s, datagrams a second.

    `own_loss_*`: packets that the routers lost themselves during the TCP stream and during the
    flood of small datagrams, by router.
    """

    rtt_ms: float | None = None
    tcp_mbit_s: float | None = None
    retransmits: int | None = None
    small_packets_per_s: int | None = None
    own_loss_tcp: dict[str, int] | None = None
    own_loss_small: dict[str, int] | None = None
    packets_by_home_agent: int | None = None
    packets_direct: int | None = None


@dataclass
class Facts:
    """Everything the report says."""

    registered_s: dict[str, float] = field(default_factory=dict)
    first_packet_at: float | None = None
    direct_path_s: float | None = None
    switches: dict[str, Switch] = field(default_factory=dict)
    direct_spans: list[tuple[dict[str, float], float]] = field(default_factory=list)
    paths: dict[str, PathFigures] = field(default_factory=dict)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    direct_packets_through_ha: int | None = None
    router_status: dict[str, dict[str, Any]] = field(default_factory=dict)
    filter: dict[str, int] = field(default_factory=dict)
    recorded: dict[str, int] = field(default_factory=dict)
    who_to_whom: dict[str, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True when every claim was observed, and there are some."""
        return bool(self.claims) and all(claim.observed for claim in self.claims)

    @property
    def all_hashes_match(self) -> bool:
        """True when every hashed transfer arrived unchanged, and there are some."""
        return bool(self.transfers) and all(each["match"] for each in self.transfers)

    def heap(self) -> dict[str, dict[str, int]]:
        """{router: {"imports", "pools", "steady", ...}} in octets."""
        return {
            name: dict(status["heap"])
            for name, status in self.router_status.items()
            if "heap" in status
        }

    def own_loss(self) -> dict[str, dict[str, int]]:
        """{router: what its data plane lost itself, by reason}."""
        return {
            name: dict(status["data_plane"]["own_loss"])
            for name, status in self.router_status.items()
            if "data_plane" in status
        }


def own_loss(status: dict[str, Any]) -> int:
    """Packets lost since its start by the data plane of the router with this status."""
    counts = dict(status["data_plane"]["own_loss"])
    if counts["socket_drops"] < 0:  # the kernel does not tell; the records do
        counts["socket_drops"] = counts["missing"]
    return sum(counts.get(reason, 0) for reason in _LOSSES)


def more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """How much each entry has grown; they never shrink."""
    return {name: after[name] - before[name] for name in before}
