"""Which way the hosts' packets went, by captures on the internet router's links only.

Direct: in a UDP tunnel of which no end is the home agent. The addresses of the tunnel may be a
NAT's or change by a handover, so an office is known by its link and by the hosts' addresses inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from haaro_host.lab import plan
from haaro_host.lab.capture import Captures
from haaro_host.lab.faults.layouts import A, C
from haaro_host.lab.pcap import Flow, FlowTable, Packet, Times
from haaro_host.lab.plan import HOME_AGENT

REQUEST, REPLY = 1, 3
_UDP = 17


@dataclass(frozen=True)
class Way:
    """One direction of the hosts' traffic: hosts' nodes and the links it may leave by."""

    source: str
    destination: str
    links: tuple[str, ...]


class Paths:
    """The captures of one case, read on demand."""

    def __init__(self, captures: Captures) -> None:
        self._tables = {
            link: FlowTable(captures.path(link), _is_signalling) for link in captures.links
        }
        a_links = tuple(link for link in captures.links if link.startswith(A.node))
        self.ways = {
            A.host: Way(A.host, C.host, a_links),
            C.host: Way(C.host, A.host, (C.node,) if C.node in captures.links else a_links),
        }

    def update(self) -> None:
        """Read what the recorder wrote since."""
        for table in self._tables.values():
            table.update()

    def direct(self, source: str, link: str | None = None) -> Times:
        """When packets of the host `source` for the other office's left by a direct tunnel."""
        return self._times(source, link, lambda flow: HOME_AGENT not in _ends(flow))

    def by_home_agent(self, source: str, link: str | None = None) -> Times:
        """When they left for the home agent."""
        return self._times(source, link, lambda flow: flow.destination == HOME_AGENT)

    def left_by(self, link: str, source: str, destination: str) -> Times:
        """When packets from one host to another crossed a link of the internet router."""
        inside = plan.HOST_ADDRESS[source], plan.HOST_ADDRESS[destination]
        merged: list[float] = []
        for flow, times in self._tables[link].flows.items():
            if (flow.inner_source, flow.inner_destination) == inside:
                merged.extend(times.at)
        found = Times()
        found.at.extend(sorted(merged))
        return found

    def seen(self, since: float) -> int:
        """How many packets of the two hosts crossed the internet router's links since a time."""
        tables = self._tables.values()
        hosts = {plan.HOST_ADDRESS[A.host], plan.HOST_ADDRESS[C.host]}
        return sum(
            times.count(since)
            for table in tables
            for flow, times in table.flows.items()
            if {flow.inner_source, flow.inner_destination} == hosts
        )

    def requests(self, link: str) -> list[Packet]:
        """Registration Requests to the home agent that came in by a link."""
        return [
            packet
            for packet in self._tables[link].kept
            if packet.flow.type == REQUEST
            and packet.flow.kind == "signalling"
            and packet.flow.destination == HOME_AGENT
        ]

    def reply_codes(self, link: str) -> list[tuple[float, int]]:
        """(time, code) of each Registration Reply that the home agent sent over a link."""
        return [
            (packet.time, packet.message()[1])
            for packet in self._tables[link].kept
            if packet.flow.type == REPLY
            and packet.flow.kind == "signalling"
            and packet.flow.source == HOME_AGENT
        ]

    def _times(self, source: str, link: str | None, wanted: Callable[[Flow], bool]) -> Times:
        way = self.ways[source]
        inside = plan.HOST_ADDRESS[way.source], plan.HOST_ADDRESS[way.destination]
        merged: list[float] = []
        for name in way.links if link is None else (link,):
            for flow, times in self._tables[name].flows.items():
                inner = flow.inner_source, flow.inner_destination
                if inner == inside and flow.inner_protocol == _UDP and wanted(flow):
                    merged.extend(times.at)
        found = Times()
        found.at.extend(sorted(merged))
        return found


def _ends(flow: Flow) -> tuple[str, str]:
    return flow.source, flow.destination


def _is_signalling(flow: Flow) -> bool:
    return flow.type >= 0
