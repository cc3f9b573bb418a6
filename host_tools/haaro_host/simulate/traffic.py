"""Probe traffic between hosts: what was sent, what arrived, by which way, and the longest gap.

A gap is a time with no delivered packet; with a packet each 100 ms nothing lost is a gap of 100 ms.
"""

import struct
from collections.abc import Callable

from haaro.wire import ipv4
from haaro.wire.errors import WireError
from haaro_host.simulate.network import Network

_PAYLOAD = struct.Struct("!III")
_MAGIC = 0x68616172
_PORT = 5001
_SEEN = 64  # how far back a packet is told from its duplicate

VIA_HOME, VIA_DIRECT = "ha", "direct"


class Flow:
    """Packets from `src` to `dst` each `every_ms`, handed to `send(packet)`."""

    def __init__(
        self,
        network: Network,
        ident: int,
        name: str,
        ends: tuple[bytes, bytes],
        every_ms: int,
        send: Callable[[bytes], object],
    ) -> None:
        self.network = network
        self.ident = ident
        self.name = name
        self.src, self.dst = ends
        self.every_ms = every_ms
        self._send = send
        self.sent = 0
        self.delivered = 0
        self.direct = 0
        self.duplicates = 0
        self.started_at: int | None = None
        self.direct_at: int | None = None  # first arrival by a direct tunnel
        self.arrived_at = -1  # the newest arrival, and its number
        self.arrived = 0
        self.last_at: int | None = None  # where the gap under way began
        self.last_via = ""
        self.via_since = 0  # since when arrivals take the way `last_via`
        self.longest = 0
        self.longest_at = 0
        self._run = 0
        self._recent: set[int] = set()

    def start(self) -> None:
        """Send from now on."""
        self._run += 1
        now = self.network.now
        if self.started_at is None:
            self.started_at = now
        self.last_at = now
        self._tick(self._run)

    def stop(self) -> None:
        """Send no more; the gap up to now counts."""
        if self.last_at is not None:
            self._gap(self.network.now)
            self.last_at = None
        self._run += 1

    @property
    def running(self) -> bool:
        """Whether packets are sent now."""
        return self.last_at is not None

    def _tick(self, run: object) -> None:
        if run != self._run:
            return
        self.send_one()
        self.network.at(self.network.now + self.every_ms, self._tick, run)

    def send_one(self) -> None:
        """Send a packet now, beside those that are sent by the clock."""
        self.sent += 1
        data = _PAYLOAD.pack(_MAGIC, self.ident, self.sent)
        self._send(ipv4.build_udp(self.src, self.dst, _PORT, _PORT, data))

    def arrive(self, number: int, via: str) -> None:
        """Packet `number` of this flow arrived at its host."""
        if number in self._recent:
            self.duplicates += 1
            return
        self._recent.add(number)
        if len(self._recent) > 2 * _SEEN:
            self._recent = {n for n in self._recent if n > number - _SEEN}
        now = self.network.now
        self.delivered += 1
        self.arrived_at = now
        self.arrived = number
        if via == VIA_DIRECT:
            self.direct += 1
            if self.direct_at is None:
                self.direct_at = now
        if via != self.last_via:
            self.last_via = via
            self.via_since = now
        if self.last_at is not None:
            self._gap(now)
            self.last_at = now

    def _gap(self, now: int) -> None:
        assert self.last_at is not None
        if now - self.last_at > self.longest:
            self.longest = now - self.last_at
            self.longest_at = self.last_at

    def mark(self, fresh: bool = False) -> None:
        """Measure the longest gap from here; `fresh`: what went before does not count into it."""
        self.longest = 0
        if fresh and self.last_at is not None:
            self.last_at = self.network.now

    def gap_ms(self) -> int:
        """Return the longest gap since the mark, the one under way included."""
        if self.last_at is None:
            return self.longest
        return max(self.longest, self.network.now - self.last_at)


class Sink:
    """Takes what hosts receive and gives it to its flow; keeps what is wrong."""

    def __init__(self) -> None:
        self.flows: dict[int, Flow] = {}
        self.wrong = 0  # arrived where it was not sent to, or as it was not sent
        self.damaged = 0  # a host's own checksum refused it
        self.first_wrong = ""

    def take(self, packet: bytes, where: str, via: str) -> None:
        """A host at `where` received an inner packet."""
        try:
            ip = ipv4.parse_ipv4(packet)
            _, dport, data = ipv4.parse_udp(packet, ip)
        except WireError:
            self.damaged += 1
            return
        flow = None
        number = 0
        if dport == _PORT and len(data) == _PAYLOAD.size:
            magic, ident, number = _PAYLOAD.unpack(data)
            flow = self.flows.get(ident) if magic == _MAGIC else None
        if flow is None or (ip.src, ip.dst) != (flow.src, flow.dst) or number > flow.sent:
            self.wrong += 1
            self.first_wrong = self.first_wrong or f"{packet.hex()} at {where}"
        else:
            flow.arrive(number, via)
