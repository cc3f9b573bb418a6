"""A router of the shipped core, with the smallest shell and data plane that can be right.

The plane follows `Router.forwarding_table()`: the longest match chooses the tunnel, and what came
by a direct tunnel must have an inner source that belongs to it. Nothing here knows the protocol.
"""

import random
from collections.abc import Callable, Iterable

from haaro.core.router import Router
from haaro.core.settings import Settings
from haaro.wire import ipv4
from haaro.wire.errors import WireError
from haaro.wire.message import MIP_PORT
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.nat import Nat
from haaro_host.simulate.network import Link, Network

_MAX_LOG = 200  # lines kept of each router; the oldest go
_NO_ROUTE = (-1, -1)


def _network(prefix: bytes, plen: int) -> tuple[int, int]:
    """Return (host bits, the other bits as a number), as `_inside` wants it."""
    return 32 - plen, int.from_bytes(prefix, "big") >> (32 - plen)


def _inside(address: bytes, networks: Iterable[tuple[int, int]]) -> bool:
    number = int.from_bytes(address, "big")
    return any(number >> shift == network for shift, network in networks)


class _Attachment:
    """An uplink that is up: its address, the NAT before it and its link."""

    def __init__(self, address: bytes, nat: Nat | None, link: Link | None) -> None:
        self.address = address
        self.nat = nat
        self.link = link


class RouterNode:
    """One router; `on_packet(node, tunnel id, packet)` gets what its LAN receives."""

    def __init__(
        self,
        network: Network,
        settings: Settings,
        on_packet: Callable[["RouterNode", int, bytes], None],
    ) -> None:
        self.network = network
        self.name = settings.name
        self.settings = settings
        self.on_packet = on_packet
        self._networks = [_network(prefix, plen) for prefix, plen in settings.networks]
        self.boots = 0
        self.running = False
        self.armed: int | None = None
        self.uplinks: dict[int, _Attachment] = {}
        self._index: dict[bytes, int] = {}  # of the uplink with that address
        self.refused: dict[str, int] = {}
        self.log: list[tuple[int, str]] = []
        self.on_log: Callable[[RouterNode, str], None] | None = None
        self.router: Router

    @property
    def hoa(self) -> bytes:
        """The home address."""
        return self.settings.home_address

    # --- life ----------------------------------------------------------------------------------

    def boot(self, ntp_ms: int | None = None) -> None:
        """Start with nothing remembered; `ntp_ms` is its clock's idea of now, 0 for none."""
        now = self.network.now
        rng = random.Random(f"{self.network.seed}-{self.name}-{self.boots}")
        self.boots += 1
        estimate = self.network.ntp_ms(now) if ntp_ms is None else ntp_ms
        self.router = Router(self.settings, rng.randbytes, now, estimate)
        self.running = True
        self._plane_reset()
        for index, link in self.uplinks.items():
            self.router.uplink_changed(now, index, True, link.address)
        self.pump()

    def _plane_reset(self) -> None:
        self._stale = False
        self._routes: list[tuple[bytes, int, int, int]] = []
        self._flows: dict[bytes, tuple[int, int]] = {}  # looked up in this table already
        self._sources: dict[int, list[tuple[int, int]]] = {}
        self._ends: dict[tuple[bytes, bytes, int], int] = {}
        self._rx: dict[int, int] = {}
        self._tx: dict[int, int] = {}
        self._carried: set[int] = set()
        self._count_at: int | None = None

    def crash(self) -> None:
        """Power off: nothing is sent any more and nothing is remembered."""
        self.running = False
        self.network.disarm(self)

    def stop(self) -> None:
        """Deregister gracefully; the router goes on until it is told to crash."""
        self.router.stop(self.network.now)
        self.pump()

    def drain(self, index: int, undo: bool = False) -> None:
        """Leave uplink `index` as its operator wants, or take it back."""
        if self.running:
            self.router.drain(self.network.now, index, undo)
            self.pump()

    def attach(
        self, index: int, address: bytes, nat: Nat | None = None, link: Link | None = None
    ) -> None:
        """Bring uplink `index` up, or move it, with the address it has there."""
        self._unplug(index)
        self.uplinks[index] = _Attachment(address, nat, link)
        self._index[address] = index
        if nat is None:
            self.network.own(address, self, None, link)
        else:
            nat.inside[address] = self.receive
        if self.running:
            self.router.uplink_changed(self.network.now, index, True, address)
            self.pump()

    def detach(self, index: int) -> None:
        """Take uplink `index` down; the router sees it."""
        if self._unplug(index) and self.running:
            self.router.uplink_changed(self.network.now, index, False)
            self.pump()

    def _unplug(self, index: int) -> bool:
        old = self.uplinks.pop(index, None)
        if old is None:
            return False
        if self._index.get(old.address) == index:
            del self._index[old.address]
        if old.nat is None:
            self.network.disown(old.address)
        else:
            old.nat.inside.pop(old.address, None)
        return True

    # --- what arrives --------------------------------------------------------------------------

    def receive(self, datagram: Datagram) -> None:
        """Take a datagram that arrived at one of our care-of addresses."""
        if not self.running or datagram.dport != MIP_PORT:
            datagram.dropped = "nobody listens"
            return
        self.network.arrived(self, datagram)
        now = self.network.now
        src, sport, dst, payload = datagram.src, datagram.sport, datagram.dst, datagram.payload
        if payload[:4] == TUNNEL_HEADER:
            tunnel = self._ends.get((dst, src, sport))
            index = self._index.get(dst, -1)
            if tunnel is None:
                self.router.receive_stray(now, index, src, sport, dst, payload)
            else:
                self._receive_inner(now, tunnel, payload[4:], (src, sport, index))
        else:
            index = self._index.get(dst, -1)
            self.router.receive_datagram(now, index, src, sport, dst, MIP_PORT, payload)
        self.pump()

    def _receive_inner(
        self, now: int, tunnel: int, packet: bytes, end: tuple[bytes, int, int]
    ) -> None:
        if packet[16:20] == self.hoa:
            self.router.receive_tunnelled(now, tunnel, packet, *end)
            return
        try:
            ip = ipv4.parse_ipv4(packet)
        except WireError:
            self._refuse("malformed")
            return
        if self._stale:
            self._swap()
        if tunnel and not _inside(ip.src, self._sources.get(tunnel, ())):
            self._refuse("source")
        elif not _inside(ip.dst, self._networks):
            self._refuse("destination")
        else:
            self._rx[tunnel] = self._rx.get(tunnel, 0) + 1
            self._carried.add(tunnel)
            self._told_later()
            self.on_packet(self, tunnel, packet)

    # --- what leaves ---------------------------------------------------------------------------

    def send(self, packet: bytes) -> int:
        """A host of our LAN sends an IPv4 packet; returns the tunnel it went by, -1 for none."""
        if not self.running:
            return -1
        if self._stale:
            self._swap()
        dst = packet[16:20]
        found = self._flows.get(dst)
        if found is None:
            found = self._flows[dst] = self._longest_match(dst)
        tunnel, hint = found
        if tunnel < 0:
            self._refuse("route")
            return -1
        self._tx[tunnel] = self._tx.get(tunnel, 0) + 1
        self._carried.add(tunnel)
        self._encapsulate(tunnel, packet)
        self._told_later()
        if hint >= 0:
            self.router.traffic_wanted(self.network.now, hint)
            self.pump()
        return tunnel

    def _longest_match(self, dst: bytes) -> tuple[int, int]:
        """Return (tunnel, hint) of the route to `dst`; the first listed of equal ones."""
        longest, best = -1, _NO_ROUTE
        wanted: dict[int, bytes] = {}  # `dst` cut to a length; there are few lengths
        for prefix, plen, tunnel, hint in self._routes:
            if plen > longest:
                if plen not in wanted:
                    wanted[plen] = ipv4.mask(dst, plen)
                if prefix == wanted[plen]:
                    longest, best = plen, (tunnel, hint)
        return best

    def _told_later(self) -> None:
        """The shell tells what the tunnels carried once a second."""
        if self._count_at is None:
            self._count_at = self.network.now + 1000
            self.network.arm(self, self.next_deadline())

    def _encapsulate(self, tunnel_id: int, packet: bytes) -> None:
        tunnel = self.router.tunnels.get(tunnel_id)
        link = None if tunnel is None else self.uplinks.get(tunnel.uplink)
        if tunnel is None or link is None:
            self._refuse("tunnel")
            return
        ends = (tunnel.local, MIP_PORT, tunnel.remote, tunnel.remote_port)
        self.network.send(self, link.nat, link.link, ends, TUNNEL_HEADER + packet)

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def pump(self) -> None:
        """Do what the shell does after any door: apply events, send, look at the deadline."""
        router = self.router
        while (event := router.next_event()) is not None:
            if event[0] == "tunnel":
                tunnels = router.tunnels.all()
                self._ends = {t.other[1:]: t.id for t in tunnels if t.other is not None}
                self._ends.update({(t.local, t.remote, t.remote_port): t.id for t in tunnels})
            elif event[0] == "routes":
                # Taken when the next packet needs it: most are swapped out again unused.
                self._stale = True
            else:
                self._log(event[2])
        while (item := router.poll_transmit()) is not None:
            if item.tunnel >= 0:
                self._encapsulate(item.tunnel, item.payload)
            elif (link := self.uplinks.get(item.uplink)) is not None:
                ends = (link.address, MIP_PORT, item.dst, item.dport)
                self.network.send(self, link.nat, link.link, ends, item.payload)
        when, armed = self.next_deadline(), self.armed
        if armed is None or (when is not None and when < armed):
            self.network.arm(self, when)

    def _swap(self) -> None:
        self._stale = False
        self._routes, sources = self.router.forwarding_table()
        self._flows.clear()
        self._sources = {}
        for prefix, plen, tunnel in sources:
            self._sources.setdefault(tunnel, []).append(_network(prefix, plen))

    def _log(self, text: str) -> None:
        self.log.append((self.network.now, text))
        del self.log[:-_MAX_LOG]
        if self.on_log is not None:
            self.on_log(self, text)

    # --- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """Return when handle_timer() is due."""
        if not self.running:
            return None
        when = self.router.next_deadline()
        if self._count_at is None or (when is not None and when < self._count_at):
            return when
        return self._count_at

    def handle_timer(self) -> None:
        """Do what is due, after telling the core what the tunnels carried."""
        now = self.network.now
        for tunnel in self._carried:
            rx, tx = self._rx.get(tunnel, 0), self._tx.get(tunnel, 0)
            self.router.tunnel_traffic(now, tunnel, rx, tx)
        self._carried.clear()
        self._count_at = None
        self.router.handle_timer(now)
        self.pump()

    # --- looking -------------------------------------------------------------------------------

    @property
    def registered(self) -> bool:
        """Whether it is running and registered with the home agent."""
        return self.running and self.router.registration.registered

    def peer(self, other: "RouterNode") -> dict | None:
        """Return the status entry of another router, None if it is not known."""
        if self.running:
            for entry in self.router.status(self.network.now)["peers"]:
                if entry["cr_hoa"] == ipv4.text(other.hoa):
                    return entry
        return None

    def is_direct(self, other: "RouterNode") -> bool:
        """Whether traffic to `other` goes by the direct tunnel."""
        entry = self.peer(other)
        return entry is not None and entry["path"] == "direct"
