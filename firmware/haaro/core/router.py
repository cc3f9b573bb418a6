"""The doors of the core, and which message is legal on which path. Sans-IO: time and randomness
are arguments.

After any door the shell sends what poll_transmit() gives, applies next_event() and sleeps until
next_deadline(). Nothing a peer sends makes a door raise; every refusal bumps a named counter.
"""

from haaro.compat import const
from haaro.core import forwarding, status
from haaro.core.context import PATH_DIRECT, PATH_HOME, PATH_OUTSIDE, Arrival, Context, Uplink
from haaro.core.correspondent import Correspondent
from haaro.core.peer_registration import PeerRegistrations
from haaro.core.registration import HomeRegistration
from haaro.core.return_routability import ReturnRoutability
from haaro.core.revocation import Revocations
from haaro.core.ro_cache import Cache
from haaro.core.settings import Settings
from haaro.core.tunnel_table import TIMERS, Tunnel
from haaro.core.tunnels import Tunnels
from haaro.wire import ipv4
from haaro.wire import message as wire
from haaro.wire.errors import WireError
from haaro.wire.registration import REGISTRATION_REPLY, REGISTRATION_REQUEST
from haaro.wire.return_routability import COT, COTI, HOT, HOTI
from haaro.wire.revocation import REVOCATION
from haaro.wire.udp_tunnel import parse_tunnel

_PROTOCOL_ICMP = const(1)
_PROTOCOL_IPIP = const(4)
_PROTOCOL_UDP = const(17)
_OUTER_OCTETS = const(32)  # IPv4, UDP and tunnel header
_MAX_TIMERS = const(512)  # in one turn; the rest is due in the next

_NAMES = {
    REGISTRATION_REQUEST: "request",
    REGISTRATION_REPLY: "reply",
    HOTI: "hoti",
    COTI: "coti",
    HOT: "hot",
    COT: "cot",
    REVOCATION: "revocation",
}


class Router:
    """One mobile router. `ntp_ms` is the best estimate of NTP milliseconds (since 1900) at `now`,
    0 if unknown.
    """

    def __init__(self, settings: Settings, random, now: int, ntp_ms: int) -> None:
        ctx = self._ctx = Context(settings, random, now, ntp_ms)
        self.counters = ctx.counters
        self._transmits = ctx.queues.transmits
        # Doors out that need nothing of us: next_event() gives ("tunnel", id), ("routes",),
        # ("log", level, text) or None, next_deadline() when handle_timer() is due, None for never.
        self.next_event = ctx.queues.next_event
        self.next_deadline = ctx.deadlines.next
        self.tunnels = Tunnels(
            ctx, self._tunnel_changed, self._tunnel_silent, self._tunnel_suspected
        )
        self.cache = Cache(ctx, self._has_tunnel, self._record_removed)
        self.registration = HomeRegistration(
            ctx, self.tunnels, self.cache, self._home_accepted, self._home_lost
        )
        rr = self._rr = ReturnRoutability(ctx, self.cache, self._rr_done)
        self._peers = PeerRegistrations(ctx, self.cache, self.tunnels, rr, self.registration)
        cr = self._correspondent = Correspondent(
            ctx, self.cache, self.tunnels, self.registration, self._peers
        )
        # RFC 6521 3.2, 3.3.3: which message may come on which path; anything else is a counted
        # drop.
        self._handlers = {
            REGISTRATION_REQUEST: (cr.receive_request, PATH_HOME),
            REGISTRATION_REPLY: (self._receive_reply, PATH_OUTSIDE),
            HOTI: (cr.receive_init, PATH_HOME),
            COTI: (cr.receive_init, PATH_HOME),
            HOT: (rr.receive_test, PATH_HOME),
            COT: (rr.receive_test, PATH_OUTSIDE),
            REVOCATION: (
                Revocations(ctx, self.registration, self._revoked).receive,
                PATH_OUTSIDE,
            ),
        }

    # Doors in

    def receive_datagram(
        self, now: int, uplink: int, src: bytes, sport: int, dst: bytes, dport: int, data: bytes
    ) -> None:
        """A UDP datagram came from outside to our care-of address, port 434."""
        link = self._ctx.uplinks.get(uplink)
        if link is None or not link.up or dst != link.address or dport != wire.MIP_PORT:
            self.counters.bump("not_our_care_of_address")
            return
        self._dispatch(now, Arrival(PATH_OUTSIDE, uplink, -1, src, sport, dst, dport), data)

    def receive_stray(
        self, now: int, uplink: int, src: bytes, sport: int, dst: bytes, data: bytes
    ) -> None:
        """Tunnel data came from no known tunnel end: only a keepalive of a known peer is of use
        [A37, A57].
        """
        try:
            if parse_tunnel(data) != _PROTOCOL_IPIP:
                raise WireError("next_header")
            packet = bytes(data[4:])
            ip = ipv4.parse_ipv4(packet)
            echo = ipv4.parse_icmp_echo(packet, ip) if ip.protocol == _PROTOCOL_ICMP else None
        except WireError as e:
            self.counters.bump("wire_" + e.reason)
            return
        tunnel = self.tunnels.of_peer(ip.src)
        record = self.cache.get(ip.src)
        ends: list[bytes] = []
        if tunnel is not None and tunnel.uplink == uplink and dst == tunnel.local:
            ends = [tunnel.remote]
            if record is not None and record.binding is not None:
                ends += [record.binding.source, record.binding.care_of_address]
        if (
            echo is None
            or tunnel is None
            or not sport
            or src not in ends
            or ip.dst != self._ctx.settings.home_address
        ):
            self.counters.bump("stray_tunnel_data")
        elif (src, sport) == (tunnel.remote, tunnel.remote_port):
            self.tunnels.receive_echo(now, tunnel, echo)
        else:
            self.tunnels.receive_stray(now, tunnel, src, sport, echo)

    def receive_tunnelled(
        self, now: int, tunnel_id: int, packet: bytes, src: bytes, sport: int, uplink: int
    ) -> None:
        """An inner IPv4 packet for our home address came by a tunnel over `uplink`: signalling, or
        ICMP echo of its other end.
        """
        tunnel = self.tunnels.get(tunnel_id)
        end = tunnel.which_end(uplink, src, sport) if tunnel is not None else -1
        if tunnel is None or end < 0:
            self.counters.bump("tunnel_source")
            return
        try:
            ip = ipv4.parse_ipv4(packet)
            if ip.dst != self._ctx.settings.home_address:
                self.counters.bump("tunnelled_not_for_us")
            elif ip.protocol == _PROTOCOL_UDP:
                self._receive_inner_udp(now, tunnel, uplink, packet, ip)
            elif ip.protocol == _PROTOCOL_ICMP and ip.src == tunnel.peer:
                echo = ipv4.parse_icmp_echo(packet, ip)
                if echo is None:
                    self.counters.bump("tunnelled_other_icmp")
                else:
                    self.tunnels.receive_echo(now, tunnel, echo, end == 1)
            else:
                self.counters.bump("tunnelled_unexpected")
        except WireError as e:
            self.counters.bump("wire_" + e.reason)

    def _receive_inner_udp(self, now: int, tunnel: Tunnel, uplink: int, packet, ip) -> None:
        inner_sport, dport, data = ipv4.parse_udp(packet, ip)
        if dport != wire.MIP_PORT:
            self.counters.bump("tunnelled_other_port")
            return
        path = PATH_DIRECT if tunnel.direct else PATH_HOME
        self.tunnels.heard(tunnel)
        arrival = Arrival(path, uplink, tunnel.id, ip.src, inner_sport, ip.dst, dport)
        self._dispatch(now, arrival, data)

    def traffic_wanted(self, now: int, hint: int) -> None:
        """The data plane sent, by the home agent, a packet of an own network to the route called
        `hint`.
        """
        record = self.cache.by_hint(hint)
        if record is not None:
            self._peers.traffic_wanted(now, record)

    def tunnel_traffic(self, now: int, tunnel_id: int, rx_packets: int, tx_packets: int) -> None:
        """Take the data plane's cumulative counters of one tunnel."""
        tunnel = self.tunnels.get(tunnel_id)
        if tunnel is not None and rx_packets != tunnel.rx:
            self._ctx.uplinks[tunnel.uplink].heard(now)
        self.tunnels.traffic(now, tunnel_id, rx_packets, tx_packets)

    def uplink_changed(
        self,
        now: int,
        index: int,
        up: bool,
        address: bytes | None = None,
        gateway: bytes | None = None,
        mtu: int = 1500,
    ) -> None:
        """Uplink `index` went up with `address`, or down; called again when its address changes."""
        ctx = self._ctx
        link = self._uplink(index)
        up = up and bool(address)
        lost = link.up and (not up or address != link.address)
        if lost:
            self.tunnels.lost_uplink(now, index)
            self.registration.lost_uplink(link)
        if up and (lost or not link.up):
            link.came_up(now)
        link.up = up
        link.gateway = gateway
        link.mtu = mtu
        if up and address:
            link.address = address
        self.tunnels.mtu_changed(link)
        self.registration.consider(now, True)
        if lost and not ctx.stopping:
            self._peers.uplinks.uplink_lost(now, index)

    def drain(self, now: int, index: int, undo: bool = False) -> None:
        """The operator wants uplink `index` left, without loss, before it is unplugged; with `undo`
        no more.
        """
        link = self._uplink(index)
        if link.drained != undo or self._ctx.stopping:
            return
        link.drained = not undo
        link.steady_since = now
        self._ctx.log(f"uplink {link.name} is {'given back' if undo else 'drained'}")
        self.registration.consider(now, True)
        if not undo:
            self._peers.uplinks.uplink_lost(now, index)

    def handle_timer(self, now: int) -> None:
        """Do what is due at `now`."""
        for _ in range(_MAX_TIMERS):
            due = self._ctx.deadlines.pop_due(now)
            if due is None:
                return
            self._timer(now, due[0], due[1])

    def _timer(self, now: int, kind: str, peer: bytes) -> None:
        if kind in TIMERS:
            self.tunnels.handle_timer(now, kind, peer)
        elif kind in ("register", "expire"):
            self.registration.handle_timer(now, kind)
        elif kind == "uplink":
            self.registration.consider(now)
        elif kind == "solicit":
            self._correspondent.solicit_timer(now)
        else:
            record = self.cache.get(peer)
            if record is None:
                return
            if kind == "rr":
                self._rr.handle_timer(now, record)
            elif kind == "cr_expire":
                self._ctx.log(f"registration of {ipv4.text(peer)} with us expired")
                self._correspondent.end(now, record)
            else:
                self._peers.handle_timer(now, kind, record)

    def keys_changed(self, now: int) -> None:
        """The settings have other keys: what was registered with a withdrawn KRm is over, on both
        sides, so that a box that was stolen does not live on with its last registration.
        """
        for record in self.cache.take_static_keys():
            self._peers.deregister(now, record)

    def stop(self, now: int) -> None:
        """Deregister with every peer and the home agent; `stopped` tells when the last answer
        came or was given up.
        """
        self._ctx.stopping = True
        self._leave_peers(now)
        self.registration.stop(now)

    # Doors out

    def poll_transmit(self):
        """Return the next Transmit, None when there is none."""
        if not self._transmits:
            return None
        item = self._transmits.pop(0)
        tunnel = self.tunnels.get(item.tunnel)
        link = self._ctx.uplinks.get(item.uplink if tunnel is None else tunnel.uplink)
        if link is not None and link.metered:
            # Twice: most of it is answered. What comes unasked for must not use the budget up.
            link.spend(2 * (len(item.payload) + _OUTER_OCTETS))
        return item

    def forwarding_table(self) -> tuple[list, list]:
        """Return (routes, sources); see core.forwarding."""
        return forwarding.forwarding_table(self._ctx, self.cache, self.tunnels, self.registration)

    def status(self, now: int) -> dict:
        """Return the status report, JSON-able and without secrets."""
        return status.report(self._ctx, self.cache, self.tunnels, self.registration, now)

    @property
    def stopped(self) -> bool:
        """Whether stop() has done all it can."""
        return self.registration.stopped

    # Inside

    def _uplink(self, index: int) -> Uplink:
        ctx = self._ctx
        if index not in ctx.uplinks:
            known = ctx.settings.uplinks
            ctx.uplinks[index] = Uplink(index, known[index] if index < len(known) else {})
        return ctx.uplinks[index]

    def _dispatch(self, now: int, arrival: Arrival, data: bytes) -> None:
        try:
            message = wire.parse(bytes(data))
        except WireError as e:
            self.counters.bump("wire_" + e.reason)
            return
        entry = self._handlers.get(message.type)
        if entry is None:
            self.counters.bump("message_type_unexpected")
            return
        handler, paths = entry
        if not paths & arrival.path:
            self.counters.bump(_NAMES[message.type] + "_on_wrong_path")
            return
        settings = self._ctx.settings
        correspondent = message.type in (REGISTRATION_REQUEST, HOTI, COTI)
        if correspondent and not (settings.route_optimization and settings.advertise):
            self.counters.bump("correspondent_role_off")
            return
        if correspondent and self._ctx.stopping:
            self.counters.bump("stopping")
            return
        handler(now, message, arrival)

    def _receive_reply(self, now: int, message, arrival: Arrival) -> None:
        if arrival.sport != wire.MIP_PORT:
            self.counters.bump("reply_source_port")
        elif arrival.src == self._ctx.settings.home_agent:
            self.registration.receive_reply(now, message, arrival)
        else:
            record = self.cache.get(arrival.src)
            if record is None:
                self.counters.bump("reply_unknown_source")
            else:
                self._peers.receive_reply(now, message, arrival, record)

    def _rr_done(self, now: int, record, ok: bool) -> None:
        self._peers.rr_done(now, record, ok)

    def _has_tunnel(self, peer: bytes) -> bool:
        return self.tunnels.of_peer(peer) is not None

    def _record_removed(self, record) -> None:
        self._ctx.deadlines.clear_peer(record.cr_hoa)
        self.tunnels.close_peer(record.cr_hoa)

    def _tunnel_changed(self, now: int, tunnel: Tunnel) -> None:
        if tunnel.direct:
            state = "up" if tunnel.up else "down; traffic goes by the home agent"
            if tunnel.dormant:
                state = "asleep until there is traffic for it"
            self._ctx.log(f"direct path to {ipv4.text(tunnel.peer)} is {state}")
            record = self.cache.get(tunnel.peer)
            if tunnel.up and record is not None:
                self._peers.uplinks.path_up(record, tunnel)

    def _tunnel_silent(self, now: int, tunnel: Tunnel) -> None:
        if tunnel.direct:
            self._peers.path_silent(now, tunnel.peer)
        else:
            self.registration.home_agent_silent(now)

    def _tunnel_suspected(self, now: int, tunnel: Tunnel) -> None:
        self.registration.suspect(now, tunnel)

    def _home_accepted(self, now: int, solicited: bytes | None, moved: bool) -> None:
        self.tunnels.nat = self.registration.nat
        if moved:
            self._peers.uplinks.care_of_changed(now)
        self._correspondent.home_accepted(now, solicited)

    def _revoked(self, now: int) -> None:
        self._leave_peers(now)
        self.registration.revoked(now)

    def _leave_peers(self, now: int) -> None:
        for record in self.cache.all():
            self._peers.deregister(now, record)

    def _home_lost(self, now: int) -> None:
        self._ctx.queues.routes()
