"""An internet in one process on a fake clock: routers, a home agent, links with delay, loss and
filters.

The unit on the wire is one UDP datagram between public addresses; a packet of a tunnel in no UDP
has its IP protocol << 16 as both ports (core/encapsulation.py). Every one is put in `captured`,
with what became of it, so that a test asserts the path by what was on the wire and not by what a
router says about itself.
"""

import heapq
import random

from haaro.core.router import Router
from haaro.core.settings import Settings
from haaro.wire import ipv4, message, udp_tunnel

NTP_2026_MS = 3_976_000_000_000
HOME_AGENT = ipv4.address("192.0.2.1")
NAMES = {1: "request", 3: "reply", 24: "hoti", 25: "coti", 26: "hot", 27: "cot"}


class Datagram:
    """One UDP datagram on the wire: when, between what, and "" or why it was dropped."""

    def __init__(self, time, src, sport, dst, dport, payload):
        self.time = time
        self.src, self.sport, self.dst, self.dport = src, sport, dst, dport
        self.payload = payload
        self.dropped = ""

    @property
    def inner(self):
        """The tunnelled packet, or None."""
        if self.payload[:4] == udp_tunnel.TUNNEL_HEADER:
            return self.payload[4:]
        return None

    @property
    def signalling(self):
        """The Mobile IP message carried, tunnelled or not, or None for user traffic and
        keepalives.
        """
        data = self.payload
        if self.inner is not None:
            ip = ipv4.parse_ipv4(self.inner)
            if ip.protocol != 17:
                return None
            _, dport, data = ipv4.parse_udp(self.inner, ip)
            if dport != message.MIP_PORT and data[:1] not in (b"\x1a", b"\x1b", b"\x03"):
                return None
        return message.parse(data)

    @property
    def kind(self):
        """The name of what is carried: a message, "keepalive", "user" or "other"."""
        if self.inner is not None:
            ip = ipv4.parse_ipv4(self.inner)
            if ip.protocol == 1:
                return "keepalive"
        found = self.signalling
        return "user" if found is None else NAMES.get(found.type, "other")

    def __repr__(self):
        via = " dropped: " + self.dropped if self.dropped else ""
        where = f"{ipv4.text(self.src)}:{self.sport} > {ipv4.text(self.dst)}:{self.dport}"
        return f"{self.time:8} {where} {self.kind}{via}"


class RouterNode:
    """A router of the core with the smallest data plane that can be right."""

    def __init__(self, network, name, settings, now, ntp_ms=None, seed=0):
        self.network = network
        self.name = name
        self.settings = settings
        rng = random.Random(f"{seed}-{name}")
        estimate = network.ntp_ms(now) if ntp_ms is None else ntp_ms
        self.router = Router(settings, rng.randbytes, now, estimate)
        self.addresses = {}
        self.routes, self.sources = [], []
        self.user_rx, self.user_tx = {}, {}  # packets of each tunnel
        self.count_at = None  # when the core is told of them next
        self.delivered = []  # (time, tunnel id, packet)
        self.refused = []  # (reason, packet)
        self.log = []

    @property
    def hoa(self):
        return self.settings.home_address

    def attach(self, index, address):
        """Bring uplink `index` up with a public address."""
        self.detach(index)
        self.addresses[index] = address
        self.network.owners[address] = self
        self.router.uplink_changed(self.network.now, index, True, address)
        self.pump()

    def detach(self, index):
        """Take uplink `index` down."""
        if index in self.addresses:
            del self.network.owners[self.addresses.pop(index)]
            self.router.uplink_changed(self.network.now, index, False)
            self.pump()

    def receive(self, datagram):
        now = self.network.now
        index = next(i for i, a in self.addresses.items() if a == datagram.dst)
        inner = datagram.inner
        if inner is None:
            self.router.receive_datagram(
                now,
                index,
                datagram.src,
                datagram.sport,
                datagram.dst,
                datagram.dport,
                datagram.payload,
            )
        else:
            self._receive_tunnelled(now, index, datagram, inner)
        self.pump()

    def _receive_tunnelled(self, now, index, datagram, inner):
        end = (datagram.dst, datagram.src, datagram.sport)
        for tunnel in self.router.tunnels.all():
            if (tunnel.local, tunnel.remote, tunnel.remote_port) == end:
                break
            if tunnel.other is not None and tunnel.other[1:] == end:
                break
        else:
            self.router.receive_stray(
                now, index, datagram.src, datagram.sport & 0xFFFF, datagram.dst, datagram.payload
            )
            return
        ip = ipv4.parse_ipv4(inner)
        if ip.dst == self.hoa:
            ends = (datagram.src, datagram.sport & 0xFFFF, index)
            self.router.receive_tunnelled(now, tunnel.id, inner, *ends)
            return
        allowed = not tunnel.direct or any(
            s[2] == tunnel.id and ipv4.contains(s[0], s[1], ip.src) for s in self.sources
        )
        if allowed:
            self._count(self.user_rx, tunnel.id)
            self.delivered.append((now, tunnel.id, inner))
        else:
            self.refused.append(("source", inner))

    def send_user(self, src, dst, payload=b"x"):
        """A host of our LAN sends a UDP packet; returns the tunnel it went by, None if dropped."""
        packet = ipv4.build_udp(src, dst, 5000, 5001, payload)
        best = None
        for route in self.routes:
            if ipv4.contains(route[0], route[1], dst) and (best is None or route[1] > best[1]):
                best = route
        if best is None or best[2] < 0:
            self.refused.append(("route", packet))
            return None
        self._count(self.user_tx, best[2])
        self.emit(best[2], packet)
        if best[3] >= 0:
            self.router.traffic_wanted(self.network.now, best[3])
        self.pump()
        return best[2]

    def _count(self, table, tunnel_id):
        table[tunnel_id] = table.get(tunnel_id, 0) + 1
        if self.count_at is None:
            self.count_at = self.network.now + 1000

    def emit(self, tunnel_id, packet):
        tunnel = self.router.tunnels.get(tunnel_id)
        if tunnel is None or tunnel.uplink not in self.addresses:
            self.refused.append(("tunnel", packet))
            return
        self.network.send(
            self,
            tunnel.local,
            tunnel.remote_port if tunnel.remote_port > 0xFFFF else 434,
            tunnel.remote,
            tunnel.remote_port,
            udp_tunnel.TUNNEL_HEADER + packet,
        )

    def pump(self):
        """What the shell does after any door."""
        while (event := self.router.next_event()) is not None:
            if event[0] == "routes":
                self.routes, self.sources = self.router.forwarding_table()
            elif event[0] == "log":
                self.log.append(event[2])
        while (item := self.router.poll_transmit()) is not None:
            if item.tunnel >= 0:
                self.emit(item.tunnel, item.payload)
            elif item.uplink in self.addresses:
                self.network.send(
                    self, self.addresses[item.uplink], 434, item.dst, item.dport, item.payload
                )

    def next_deadline(self):
        times = [t for t in (self.router.next_deadline(), self.count_at) if t is not None]
        return min(times) if times else None

    def handle_timer(self):
        """What the shell does at a deadline, and each second: the counters of each tunnel, then
        the timers.
        """
        now = self.network.now
        self.count_at = None
        for tunnel in self.router.tunnels.all():
            rx, tx = self.user_rx.get(tunnel.id, 0), self.user_tx.get(tunnel.id, 0)
            self.router.tunnel_traffic(now, tunnel.id, rx, tx)
        self.router.handle_timer(now)
        self.pump()

    def peer(self, other):
        """The status entry of another router, None if it is not known."""
        for entry in self.router.status(self.network.now)["peers"]:
            if entry["cr_hoa"] == ipv4.text(other.hoa):
                return entry
        return None

    def is_direct(self, other):
        entry = self.peer(other)
        return entry is not None and entry["path"] == "direct"


class Network:
    """The internet between them: delivers by address after `delay_ms`, drops by filter, loss or
    BCP 38.
    """

    def __init__(self, delay_ms=10, loss=0.0, seed=0):
        self.now = 0
        self.delay_ms = delay_ms
        self.loss = loss
        self.owners = {}
        self.nodes = []
        self.captured = []
        self.filters = []  # callables: datagram -> truthy to drop it
        self.seed = seed
        self._rng = random.Random(f"{seed}-net")
        self._queue = []
        self._order = 0
        self._turns = 0

    def ntp_ms(self, now):
        return NTP_2026_MS + now

    def add_router(self, name, hoa, network, coa, settings=None, ntp_ms=None):
        """Make a router, plugged in at once if `coa` is given."""
        settings = settings or Settings()
        settings.name = name
        settings.home_address = ipv4.address(hoa)
        settings.home_agent = HOME_AGENT
        settings.networks = [ipv4.prefix(network)]
        settings.algorithm = "hmac-sha256"
        settings.key = name.encode() * 16
        node = RouterNode(self, name, settings, self.now, ntp_ms, self.seed)
        self.nodes.append(node)
        if coa:
            node.attach(0, ipv4.address(coa))
        return node

    def send(self, sender, src, sport, dst, dport, payload):
        datagram = Datagram(self.now, src, sport, dst, dport, bytes(payload))
        self.captured.append(datagram)
        if self.owners.get(src) is not sender:
            datagram.dropped = "source filter"
        elif any(f(datagram) for f in self.filters):
            datagram.dropped = "filter"
        elif self._rng.random() < self.loss:
            datagram.dropped = "loss"
        else:
            self._order += 1
            heapq.heappush(self._queue, (self.now + self.delay_ms, self._order, datagram))

    def inject(self, datagram):
        """Put a datagram on the wire whoever it claims to be from."""
        self._order += 1
        heapq.heappush(self._queue, (self.now + self.delay_ms, self._order, datagram))

    def _next_time(self):
        times = [self._queue[0][0]] if self._queue else []
        times += [t for t in (node.next_deadline() for node in self.nodes) if t is not None]
        return min(times) if times else None

    def _turn(self, when):
        self._turns = self._turns + 1 if when <= self.now else 0
        assert self._turns < 5000, "time stands still"
        self.now = max(self.now, when)
        while self._queue and self._queue[0][0] <= self.now:
            datagram = heapq.heappop(self._queue)[2]
            owner = self.owners.get(datagram.dst)
            if owner is None:
                datagram.dropped = "no such address"
            else:
                owner.receive(datagram)
        for node in self.nodes:
            deadline = node.next_deadline()
            if deadline is not None and deadline <= self.now:
                node.handle_timer()

    def run(self, ms):
        """Let `ms` go by."""
        end = self.now + ms
        while True:
            when = self._next_time()
            if when is None or when > end:
                break
            self._turn(when)
        self.now = end

    def run_until(self, condition, limit_ms=60_000):
        """Run until `condition()`; return the ms it took, or fail with the capture."""
        start = self.now
        while not condition():
            when = self._next_time()
            if when is None or when > start + limit_ms:
                raise AssertionError(self.diagram(start))
            self._turn(when)
        return self.now - start

    def diagram(self, since=0):
        """The capture as text, for a failing test."""
        lines = [repr(d) for d in self.captured if d.time >= since]
        return "\n".join(lines[-200:])

    def since(self, time, *kinds):
        """What was captured from `time` on, of these kinds (all if none are named)."""
        return [d for d in self.captured if d.time >= time and (not kinds or d.kind in kinds)]

    def cut(self, a, b):
        """Drop everything between two public addresses; returns the filter, to take it out."""

        def between(datagram):
            return {datagram.src, datagram.dst} == {a, b}

        self.filters.append(between)
        return between
