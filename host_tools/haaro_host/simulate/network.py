"""The internet between routers and home agent, on a fake clock.

Delivers datagrams by address after a delay; loses, duplicates, corrupts and reorders them by the
links they cross; NATs rewrite them; a source that is not the sender's is dropped (BCP 38). Owns the
clock, the order of events and the trace: the same seed gives the same trace, octet for octet.
"""

import hashlib
import heapq
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol

from haaro.wire import ipv4
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.nat import Nat

NTP_2026_MS = 3_976_000_000_000
HOME_AGENT = ipv4.address("192.0.2.1")
_TRACED = struct.Struct("!Q4sH4sHI")
_HASHED_AT_ONCE = 256  # pieces of the trace
_MAX_TURNS = 100_000  # without the clock moving: a loop that would never end


class SimulationError(Exception):
    """The simulation cannot go on; the text says why."""


@dataclass
class Link:
    """What a datagram meets on a link, each way. Probabilities are 0 to 1, times ms."""

    delay_ms: int = 0
    jitter_ms: int = 0  # up to so much more, drawn for each datagram: this reorders
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0


class Node(Protocol):
    """What the network wants of a router or home agent."""

    name: str
    armed: int | None  # the network's: when it calls handle_timer

    def receive(self, datagram: Datagram) -> None:
        """Take a datagram that arrived at an address of this node."""

    def next_deadline(self) -> int | None:
        """Return when `handle_timer` is due, ms of the network's clock, None for never."""

    def handle_timer(self) -> None:
        """Do what is due now, and `arm` anew."""


class _End:
    """Where datagrams to a public address go: a node, or the NAT before it."""

    __slots__ = ("link", "nat", "node")

    def __init__(self, node: Node | None, nat: Nat | None, link: Link | None) -> None:
        self.node = node
        self.nat = nat
        self.link = link


class Network:
    """See the module. `path` is crossed by every datagram, beside the links of both ends."""

    def __init__(self, path: Link, seed: int = 0) -> None:
        self.now = 0
        self.path = path
        self.seed = seed
        self.owners: dict[bytes, _End] = {}
        self.filters: list[Callable[[Datagram], bool]] = []
        self.observers: list[Callable[[Datagram], None]] = []  # told of each one when it is sent
        self.arrivals: list[Callable[[Datagram], None]] = []  # and of each one that arrived
        self.trace_file: IO[str] | None = None
        self.datagrams = 0
        self.rng = random.Random(f"{seed}-net")
        self._digest = hashlib.sha256()
        self._unhashed: list[bytes] = []
        self._queue: list[tuple[int, int, Callable[..., None], object]] = []
        self._order = 0

    # --- clock ---------------------------------------------------------------------------------

    def ntp_ms(self, now: int) -> int:
        """Return true NTP milliseconds (since 1900) at `now`."""
        return NTP_2026_MS + now

    def at(self, when: int, action: Callable[..., None], argument: object = None) -> None:
        """Call action(argument) at `when` ms."""
        self._order += 1
        heapq.heappush(self._queue, (when, self._order, action, argument))

    def arm(self, node: Node, when: int | None) -> None:
        """The node's next deadline is `when`; call it after anything that may have changed it."""
        # A deadline that moved on is left where it is: what is early finds nothing due.
        if when is not None and (node.armed is None or when < node.armed):
            node.armed = when
            self.at(max(when, self.now), self._timer, (node, when))

    def disarm(self, node: Node) -> None:
        """Forget the deadline of a node that is gone."""
        node.armed = None

    def _timer(self, argument: tuple[Node, int]) -> None:
        node, when = argument
        if node.armed == when:
            node.armed = None
            due = node.next_deadline()
            if due is not None and due <= self.now:
                node.handle_timer()
            else:
                self.arm(node, due)

    def run(self, ms: int) -> None:
        """Let `ms` go by."""
        self.run_to(self.now + ms)

    def run_to(self, end: int) -> None:
        """Let the time go on to `end` ms."""
        queue, pop = self._queue, heapq.heappop
        turns = 0
        while queue and queue[0][0] <= end:
            when, _, action, argument = pop(queue)
            if when > self.now:
                self.now = when
                turns = 0
            else:
                turns += 1
                if turns > _MAX_TURNS:
                    raise SimulationError(f"time stands still at {self.now} ms: {action}")
            action(argument)
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit_ms: int, step_ms: int = 10) -> int:
        """Run until `condition()`; return the ms it took. Raises SimulationError at the limit."""
        start = self.now
        while not condition():
            if self.now - start >= limit_ms:
                raise SimulationError(f"nothing came of it within {limit_ms} ms")
            self.run(step_ms)
        return self.now - start

    # --- datagrams -----------------------------------------------------------------------------

    def own(self, address: bytes, node: Node | None, nat: Nat | None, link: Link | None) -> None:
        """Datagrams to the public `address` go to `node`, or to `nat`, over `link`."""
        self.owners[address] = _End(node, nat, link)

    def disown(self, address: bytes) -> None:
        """The public `address` leads nowhere."""
        self.owners.pop(address, None)

    def send(
        self,
        sender: Node,
        nat: Nat | None,
        link: Link | None,
        ends: tuple[bytes, int, bytes, int],
        payload: bytes,
    ) -> None:
        """Send (src, sport, dst, dport) from `sender`: over its `link`, or that of its `nat`."""
        datagram = Datagram(self.now, ends, bytes(payload))
        datagram.sender = sender.name
        self.datagrams += 1
        if nat is not None:
            if ends[0] not in nat.inside:
                datagram.dropped = "source filter"
            elif ends[2] in nat.inside:  # both behind this NAT
                self._depart(datagram, (link,), nat.deliver)
                return
            else:
                nat.outbound(self.now, datagram)
                outside = self.owners.get(nat.address)
                link = outside.link if outside else None
        else:
            here = self.owners.get(ends[0])
            if here is None or here.node is not sender:
                datagram.dropped = "source filter"
        there = self.owners.get(datagram.dst)
        self._depart(datagram, (link, self.path, there.link if there else None), self._arrive)

    def inject(self, datagram: Datagram) -> None:
        """Put a datagram on the wire whoever it claims to be from."""
        self._depart(datagram, (self.path,), self._arrive)

    def _depart(
        self,
        datagram: Datagram,
        links: tuple[Link | None, ...],
        arrive: Callable[[Datagram], None],
    ) -> None:
        """Draw what becomes of it on the way, and record it."""
        rng = self.rng
        delay = 0
        copies = 1
        if self.filters and not datagram.dropped and any(f(datagram) for f in self.filters):
            datagram.dropped = "filter"
        for link in links:
            if link is None or datagram.dropped:
                continue
            delay += link.delay_ms
            if link.jitter_ms:
                delay += rng.randint(0, link.jitter_ms)
            if link.loss and rng.random() < link.loss:
                datagram.dropped = "loss"
            if link.duplicate and rng.random() < link.duplicate:
                copies += 1
            if link.corrupt and datagram.payload and rng.random() < link.corrupt:
                changed = bytearray(datagram.payload)
                changed[rng.randrange(len(changed))] ^= rng.randint(1, 255)
                datagram.carry(bytes(changed))
        self._record(datagram)
        if datagram.dropped:
            return
        when = self.now + delay
        self.at(when, arrive, datagram)
        for _ in range(1, copies):
            self.at(when + rng.randint(0, max(1, delay)), arrive, datagram.copy())

    def _arrive(self, datagram: Datagram) -> None:
        end = self.owners.get(datagram.dst)
        receive: Callable[[Datagram], None] | None = None
        if end is None:
            datagram.dropped = "no such address"
        elif end.nat is not None:
            receive = end.nat.inbound(self.now, datagram)
        elif end.node is not None:
            receive = end.node.receive
        if receive is not None:
            receive(datagram)

    def arrived(self, node: Node, datagram: Datagram) -> None:
        """A node took a datagram."""
        datagram.receiver = node.name
        for observer in self.arrivals:
            observer(datagram)

    def _record(self, datagram: Datagram) -> None:
        src, sport, dst, dport = datagram.first
        payload, unhashed = datagram.payload, self._unhashed
        unhashed.append(_TRACED.pack(self.now, src, sport, dst, dport, len(payload)))
        unhashed.append(payload)
        if datagram.dropped:
            unhashed.append(datagram.dropped.encode())
        if len(unhashed) >= _HASHED_AT_ONCE:
            self._hash()
        if self.trace_file is not None:
            self.trace_file.write(
                f"{self.now} {ipv4.text(src)}:{sport} {ipv4.text(dst)}:{dport}"
                f" {datagram.payload.hex()} {datagram.dropped}\n"
            )
        for observer in self.observers:
            observer(datagram)

    def _hash(self) -> None:
        self._digest.update(b"".join(self._unhashed))
        self._unhashed.clear()

    @property
    def trace_sha256(self) -> str:
        """The hash of the trace so far: every datagram sent, its octets and its fate."""
        self._hash()
        return self._digest.hexdigest()
