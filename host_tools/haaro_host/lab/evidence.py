"""What the captures prove, for one pair of offices.

Judges by the packets on the internet router's links only, never by a counter of haaro. "Direct" is
type 4 UDP between the two care-of addresses that carries the hosts' addresses inside.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from haaro_host.lab import pcap, plan
from haaro_host.lab.pcap import Flow, FlowTable, Packet, Times
from haaro_host.lab.plan import HOME_AGENT, OFFICES, Office

REQUEST, REPLY, HOTI, COTI, HOT, COT = 1, 3, 24, 25, 26, 27
NAMES = {REQUEST: "Registration Request", REPLY: "Registration Reply", HOTI: "HoTI",
         COTI: "CoTI", HOT: "HoT", COT: "CoT"}  # fmt: skip
_SIGNALLING_TYPES = frozenset(NAMES)
_ICMP = 1
_HEADER_OCTETS = {REQUEST: 24, REPLY: 20}
_CAPABILITY, _CAPABILITY_SUBTYPE, _SOLICIT = 153, 1, 0x20
_CORRESPONDENT, _CORRESPONDENT_SUBTYPE = 49, 2
_CARE_OF = {office.care_of_address: office.name for office in OFFICES}
_HOME = {office.home_address: office.name for office in OFFICES}


@dataclass(frozen=True)
class Message:
    """One signalling message as it entered the internet router.

    `source`, `destination`: addresses of the message itself, inside its tunnel if it has one.
    `outer`: (source, destination) of the tunnel, None outside of one.
    """

    time: float
    type: int
    source: str
    destination: str
    outer: tuple[str, str] | None
    data: bytes

    @property
    def from_office(self) -> str:
        """Name of the office it comes from, "" for the home agent."""
        return _CARE_OF.get(self.source) or _HOME.get(self.source, "")

    @property
    def to_office(self) -> str:
        """Name of the office it goes to, "" for the home agent."""
        return _CARE_OF.get(self.destination) or _HOME.get(self.destination, "")

    @property
    def in_home_agent_tunnel(self) -> bool:
        """True when a tunnel carries it of which one end is the home agent."""
        return self.outer is not None and HOME_AGENT in self.outer

    @property
    def peer_request(self) -> bool:
        """A Registration Request to another router, not to the home agent."""
        return self.type == REQUEST and self.destination in _HOME

    @property
    def solicits(self) -> bool:
        """A Request whose capability extension has the S bit (RFC 6521 5.1)."""
        return any(
            kind == _CAPABILITY and body[0] == _CAPABILITY_SUBTYPE and body[1] & _SOLICIT
            for kind, body in self.extensions()
            if len(body) >= 2
        )

    @property
    def code(self) -> int:
        """Code of a Reply, else -1."""
        return self.data[1] if self.type == REPLY and len(self.data) > 1 else -1

    @property
    def nonce_indexes(self) -> tuple[int, int] | None:
        """Home and care-of nonce index of a peer Request (RFC 6521 5.3)."""
        for kind, body in self.extensions():
            if kind == _CORRESPONDENT and len(body) >= 6 and body[0] == _CORRESPONDENT_SUBTYPE:
                return struct.unpack_from("!HH", body, 2)
        return None

    def extensions(self) -> Iterator[tuple[int, bytes]]:
        """(type, what follows the length) of the short extensions of a Request or Reply."""
        at = _HEADER_OCTETS.get(self.type, len(self.data))
        while at + 2 <= len(self.data):
            kind = self.data[at]
            if kind == 0:
                at += 1
                continue
            length = self.data[at + 1]
            yield kind, self.data[at + 2 : at + 2 + length]
            at += 2 + length


class Evidence:
    """The captures of a run, read on demand, about the offices `one` and `other`."""

    def __init__(self, path_of: Callable[[str], Path], one: Office, other: Office) -> None:
        self.one, self.other = one, other
        self._tables = {link: FlowTable(path_of(link), _tells) for link in plan.INGRESS}
        self.messages: list[Message] = []
        self.keepalives: list[tuple[float, str, str]] = []  # time, ends of the tunnel
        self._story: list[Packet] = []

    def update(self) -> None:
        """Read what the recorder wrote since."""
        for table in self._tables.values():
            table.update()
        self._story = sorted(
            (
                packet
                for link, table in self._tables.items()
                for packet in table.kept
                if entered(link, packet.flow)
            ),
            key=lambda packet: packet.time,
        )
        self.messages = [_message(each) for each in self._story if each.flow.type >= 0]
        self.keepalives = [
            (each.time, each.flow.source, each.flow.destination)
            for each in self._story
            if each.flow.type < 0
        ]

    def write_story(self, path: Path) -> None:
        """Write a capture with the signalling and keepalives of all links, each packet once."""
        pcap.write(path, [(packet.time, packet.data) for packet in self._story])

    # --- where the hosts' traffic goes; all as seen on the sender's own link

    def direct(self, source: Office, destination: Office) -> Times:
        """Packets of the hosts that left `source` straight for `destination`."""
        return self._traffic(source, destination, source.node,
                             source.care_of_address, destination.care_of_address)  # fmt: skip

    def by_home_agent(self, source: Office, destination: Office) -> Times:
        """Packets of the hosts that left `source` for the home agent."""
        return self._traffic(source, destination, source.node,
                             source.care_of_address, HOME_AGENT)  # fmt: skip

    def through_home_agent(self, since: float, until: float) -> int:
        """Packets between the two hosts, both directions, that entered the home agent's link."""
        pairs = ((self.one, self.other), (self.other, self.one))
        return sum(
            self._traffic(a, b, "ha", a.care_of_address, HOME_AGENT).count(since, until)
            for a, b in pairs
        )

    def _traffic(
        self, source: Office, destination: Office, link: str, outer_from: str, outer_to: str
    ) -> Times:
        return self._tables[link].select(
            kind="tunnel",
            source=outer_from,
            destination=outer_to,
            inner_source=source.lan_host,
            inner_destination=destination.lan_host,
        )

    def unknown_fragments(self) -> int:
        """Outer fragments on any link: haaro fragments before it encapsulates, so 0."""
        return sum(len(table.select(kind="fragment").at) for table in self._tables.values())

    def pairs(self, names: dict[str, str]) -> dict[str, int]:
        """Packets that entered the internet router, by "FROM>TO" of their outer addresses."""
        found: dict[str, int] = {}
        for link, table in self._tables.items():
            for flow, times in table.flows.items():
                ends = names.get(flow.source), names.get(flow.destination)
                if None not in ends and entered(link, flow):
                    key = f"{ends[0]}>{ends[1]}"
                    found[key] = found.get(key, 0) + len(times.at)
        return found

    # --- what they say to each other

    def find(
        self, kind: int, source: Office | None, destination: Office | None, since: float = 0.0
    ) -> list[Message]:
        """Messages of a type from one office to another (None: the home agent) since a time."""
        return [
            message
            for message in self.messages
            if message.type == kind
            and message.time >= since
            and message.from_office == (source.name if source else "")
            and message.to_office == (destination.name if destination else "")
        ]

    def violations(self) -> list[str]:
        """Messages on a path RFC 6521 forbids: HoTI and HoT outside the home agent's tunnel, a
        CoTI or peer Request without a care-of address as source or inside a direct tunnel."""
        found = []
        for each in self.messages:
            what = NAMES[each.type]
            direct_tunnel = each.outer is not None and not each.in_home_agent_tunnel
            if each.type in (HOTI, HOT) and not each.in_home_agent_tunnel:
                found.append(f"{what} {each.source} > {each.destination} outside the HA tunnel")
            elif (each.peer_request or each.type == COTI) and each.source not in _CARE_OF:
                found.append(f"{what} {each.source} > {each.destination}: source is no CoA")
            elif direct_tunnel:
                found.append(f"{what} {each.source} > {each.destination} in a direct tunnel")
        return found

    def keepalive_between(
        self, source: Office, destination: Office, since: float = 0.0
    ) -> float | None:
        """When the first keepalive left `source` in the direct tunnel to `destination`."""
        wanted = (source.care_of_address, destination.care_of_address)
        for at, *ends in self.keepalives:
            if at >= since and tuple(ends) == wanted:
                return at
        return None

    def renewals(self, source: Office, destination: Office) -> int:
        """How often `source` registered with `destination` on new tokens after the first time."""
        pairs = {each.nonce_indexes for each in self.find(REQUEST, source, destination)}
        return max(0, len(pairs) - 1)


def entered(link: str, flow: Flow) -> bool:
    """True when the packet came into the internet router by `link` (it is seen going out too)."""
    if link == "ha":
        return flow.source == HOME_AGENT or flow.source in _HOME
    return _CARE_OF.get(flow.source) == link.upper()


def _tells(flow: Flow) -> bool:
    """True for signalling, inside a tunnel or not, and for the routers' keepalives."""
    keepalive = flow.inner_protocol == _ICMP and flow.inner_source in _HOME
    return flow.type in _SIGNALLING_TYPES or keepalive


def _message(packet: Packet) -> Message:
    flow = packet.flow
    tunnelled = flow.kind == "tunnel"
    return Message(
        packet.time,
        flow.type,
        flow.inner_source if tunnelled else flow.source,
        flow.inner_destination if tunnelled else flow.destination,
        (flow.source, flow.destination) if tunnelled else None,
        packet.message(),
    )
