"""Tunnel ends and their liveness: ICMP echo through the tunnel (RFC 3519 4.9, RFC 6521 3.3.4, 6.1).

Owned by the router. A direct tunnel is `up` only after one of our own echoes was answered; it
stops being up after `keepalive_misses` echoes in a row without an answer, and is then probed
until it answers again. Never chooses routes.
"""

from haaro.compat import const
from haaro.core.events import Transmit
from haaro.wire import ipv4
from haaro.wire.udp_tunnel import TUNNEL_HEADER

MAX_TUNNELS = 65  # tunnel 0 is the home agent's

_OVERHEAD = const(32)  # outer IPv4, UDP and tunnel header
_FLOOR_MS = const(200)  # MAX_UPDATE_RATE: at most 5 keepalives a second
_FIRST_MS = const(500)  # between the first probes of a new tunnel
_PROBE_MAX_MS = const(2000)  # between probes of a silent tunnel that traffic wants
_PROBE_IDLE_MS = const(10000)  # and when no traffic wants it
_RETRY_HA_MS = const(2000)  # between unanswered echoes to the home agent
_FIRST_PROBES = const(4)
_LATE_ECHOES = const(8)  # how many echoes back an answer still counts
_RETURN_ANSWERS = const(2)  # a path that failed must answer twice before it is believed
_MOVE_MISSES = const(2)  # echoes without answer after which a proven other end is taken
_GRACE_MS = const(10000)  # RFC 6521 3.3.6: the end before a move is received from this long


class Tunnel:
    """One tunnel end pair. `peer` is the peer's home address, or the home agent's address for
    tunnel 0.

    What we send goes from `local` over `uplink` to `remote`:`remote_port`. `other` is one more
    end, (uplink, local, remote, port), that is received from besides; None if there is none.
    """

    def __init__(self, ident: int, peer: bytes, direct: bool) -> None:
        self.id = ident
        self.peer = peer
        self.direct = direct
        self.uplink = -1
        self.local = b""
        self.remote = b""
        self.remote_port = 434
        self.other: tuple[int, bytes, bytes, int] | None = None
        self.used = False  # the other side was heard from the present end
        self.mtu = 1500
        self.up = False
        self.ever_up = False
        self.interval_ms = 0
        self.wanted_until = 0
        self.echo_ident = 0
        self.echo_token = b""
        self.echo_seq = 0
        self.answered_seq = 0
        self.echo_sent_at = -_FLOOR_MS
        self.answers = 0  # in a row, while the tunnel is not up
        self.silent_since: int | None = None
        self.rtt_ms: int | None = None
        self.replied_at = -_FLOOR_MS
        self.candidate: tuple[bytes, int] | None = None  # another end that asked
        self.candidate_token = b""
        self.proven = False  # the candidate answered our echo, and the tunnel's end none since
        self.others: list[bytes] = []  # further care-of addresses of the peer to try
        self.rx = 0
        self.tx = 0
        self.traffic_at = 0

    def unanswered(self) -> int:
        """Return how many of our echoes were sent since the newest answered one."""
        return (self.echo_seq - self.answered_seq) & 0xFFFF

    def which_end(self, uplink: int, src: bytes, sport: int) -> int:
        """Return 0 for what comes from the present end, 1 for the other one, -1 for neither."""
        if (uplink, src, sport) == (self.uplink, self.remote, self.remote_port):
            return 0
        other = self.other
        return 1 if other and (uplink, src, sport) == (other[0], other[2], other[3]) else -1


class Tunnels:
    """The table of tunnels, bounded by MAX_TUNNELS. `on_change(now, tunnel)` is called when `up`
    changes, `on_silent(now, tunnel)` when the other end no longer answers.
    """

    def __init__(self, ctx, on_change, on_silent) -> None:
        self._ctx = ctx
        self._on_change = on_change
        self._on_silent = on_silent
        self._table: dict[int, Tunnel] = {}

    def get(self, ident: int) -> Tunnel | None:
        """Return tunnel `ident`, None when there is none."""
        return self._table.get(ident)

    def all(self) -> list[Tunnel]:
        """Return every tunnel."""
        return list(self._table.values())

    def of_peer(self, peer: bytes) -> Tunnel | None:
        """Return the direct tunnel with a peer's home address, None when there is none."""
        for tunnel in self._table.values():
            if tunnel.direct and tunnel.peer == peer:
                return tunnel
        return None

    def ends_at(self, address: bytes) -> bool:
        """Return whether a direct tunnel has its other end at `address`."""
        return any(t.direct and t.remote == address for t in self._table.values())

    def open_home(self, now: int, uplink, interval_ms: int) -> Tunnel:
        """Make or retarget tunnel 0, with the home agent."""
        tunnel = self._table.get(0)
        if tunnel is None:
            tunnel = self._table[0] = Tunnel(0, self._ctx.settings.home_agent, False)
        tunnel.interval_ms = interval_ms
        if self._aim(now, tunnel, uplink, self._ctx.settings.home_agent, 434) or not tunnel.up:
            tunnel.up = True
            self._on_change(now, tunnel)
        tunnel.used = True
        self._arm(tunnel, now + interval_ms)
        return tunnel

    def open_direct(self, now: int, peer: bytes, uplink, remote: bytes, port: int) -> Tunnel | None:
        """Make or retarget the direct tunnel with a peer; None when the table is full (counted)."""
        tunnel = self.of_peer(peer)
        if tunnel is None:
            ident = 1
            while ident in self._table:
                ident += 1
            if ident >= MAX_TUNNELS:
                self._ctx.counters.bump("tunnel_table_full")
                return None
            tunnel = self._table[ident] = Tunnel(ident, peer, True)
            tunnel.traffic_at = now
        tunnel.wanted_until = now + _PROBE_IDLE_MS
        if self._aim(now, tunnel, uplink, remote, port):
            tunnel.ever_up = False
            self._set_up(now, tunnel, False)
        return tunnel

    def expect_home(self, now: int, uplink) -> None:
        """A Registration Request goes out by `uplink`: the home agent may send there before its
        reply has come.
        """
        tunnel = self._table.get(0)
        if tunnel is not None and (uplink.index, uplink.address) != (tunnel.uplink, tunnel.local):
            end = (uplink.index, uplink.address, tunnel.remote, tunnel.remote_port)
            self._accept_also(now, tunnel, end)

    def _accept_also(self, now: int, tunnel: Tunnel, end: tuple[int, bytes, bytes, int]) -> None:
        self._ctx.deadlines.set("other", now + _GRACE_MS, tunnel.peer)
        if end != tunnel.other:
            tunnel.other = end
            self._ctx.queues.tunnel(tunnel.id)

    def end_grace(self, peer: bytes) -> None:
        """The other end of the tunnel with `peer` is received from no longer."""
        tunnel = self._by_peer(peer)
        self._ctx.deadlines.clear("other", peer)
        if tunnel is not None and tunnel.other is not None:
            tunnel.other = None
            self._ctx.queues.tunnel(tunnel.id)

    def _by_peer(self, peer: bytes) -> Tunnel | None:
        for tunnel in self._table.values():
            if tunnel.peer == peer:
                return tunnel
        return None

    def close(self, ident: int) -> None:
        """Remove a tunnel; not there is not an error."""
        tunnel = self._table.pop(ident, None)
        if tunnel is not None:
            self._ctx.deadlines.clear("keepalive", tunnel.peer)
            self._ctx.deadlines.clear("other", tunnel.peer)
            self._ctx.queues.tunnel(ident)
            self._ctx.queues.routes()

    def close_peer(self, peer: bytes) -> None:
        """Remove the direct tunnel with a peer's home address, if there is one."""
        tunnel = self.of_peer(peer)
        if tunnel is not None:
            self.close(tunnel.id)

    def _aim(self, now: int, tunnel: Tunnel, uplink, remote: bytes, port: int) -> bool:
        """Point the tunnel at its ends; return whether anything changed.

        An end that was in use is received from for a while yet: what is under way is not lost,
        whichever side moved (RFC 6521 3.3.6).
        """
        old = (tunnel.uplink, tunnel.local, tunnel.remote, tunnel.remote_port)
        end = (uplink.index, uplink.address, remote, port)
        if end == old:
            return False
        link = self._ctx.uplinks.get(tunnel.uplink)
        if tunnel.used and link is not None and link.up and link.address == tunnel.local:
            self._accept_also(now, tunnel, old)
        elif end == tunnel.other:
            self.end_grace(tunnel.peer)
        tunnel.used = False
        tunnel.uplink, tunnel.local, tunnel.remote, tunnel.remote_port = end
        tunnel.mtu = uplink.mtu - _OVERHEAD
        tunnel.echo_ident = int.from_bytes(self._ctx.random(2), "big")
        tunnel.echo_token = self._ctx.random(8)
        tunnel.answered_seq = tunnel.echo_seq
        tunnel.answers = 0
        tunnel.candidate = None
        tunnel.proven = False
        tunnel.silent_since = None
        self._ctx.queues.tunnel(tunnel.id)
        self._ctx.queues.routes()
        return True

    def mtu_changed(self, uplink) -> None:
        """The uplink's MTU is another one: the tunnels over it follow."""
        for tunnel in self.all():
            if tunnel.uplink == uplink.index and tunnel.mtu != uplink.mtu - _OVERHEAD:
                tunnel.mtu = uplink.mtu - _OVERHEAD
                self._ctx.queues.tunnel(tunnel.id)

    def lost_uplink(self, now: int, index: int) -> None:
        """Take every tunnel over uplink `index` out of use; its ends stay until retargeted."""
        for tunnel in self.all():
            if tunnel.other is not None and tunnel.other[0] == index:
                self.end_grace(tunnel.peer)
            if tunnel.uplink == index:
                tunnel.used = False
                self._set_up(now, tunnel, False)

    def _set_up(self, now: int, tunnel: Tunnel, up: bool) -> None:
        if tunnel.up == up:
            return
        tunnel.up = up
        if up:
            tunnel.ever_up = True
            tunnel.silent_since = None
        elif tunnel.ever_up:
            tunnel.silent_since = now
        tunnel.answers = 0
        self._ctx.queues.routes()
        self._on_change(now, tunnel)

    def _arm(self, tunnel: Tunnel, when: int) -> None:
        self._ctx.deadlines.set("keepalive", when, tunnel.peer)

    def want(self, now: int, tunnel: Tunnel) -> None:
        """Traffic wants this direct tunnel: probe it at the quick rate."""
        tunnel.wanted_until = now + _PROBE_IDLE_MS
        due = self._ctx.deadlines.get("keepalive", tunnel.peer)
        if not tunnel.up and due is not None and due > now + _PROBE_MAX_MS:
            self._arm(tunnel, max(now, tunnel.echo_sent_at + _PROBE_MAX_MS))

    def probe(self, now: int, tunnel: Tunnel) -> None:
        """Send our own echo now, or as soon as the rate limit allows, and keep probing."""
        due = self._ctx.deadlines.get("keepalive", tunnel.peer)
        when = max(now, tunnel.echo_sent_at + _FLOOR_MS)
        if due is None or due > when:
            self._arm(tunnel, when)

    def handle_timer(self, now: int, peer: bytes) -> None:
        """The keepalive timer of the tunnel with `peer` is due."""
        for tunnel in self.all():
            if tunnel.peer == peer:
                self._keepalive(now, tunnel)

    def _keepalive(self, now: int, tunnel: Tunnel) -> None:
        misses = self._ctx.settings.keepalive_misses
        if tunnel.proven and tunnel.unanswered() >= min(misses, _MOVE_MISSES):
            self._move(now, tunnel)
        if tunnel.unanswered() >= misses:
            if not tunnel.direct:
                tunnel.answered_seq = tunnel.echo_seq
                self._arm(tunnel, now + tunnel.interval_ms)
                self._on_silent(now, tunnel)
                return
            self._silent(now, tunnel)
        if tunnel.unanswered() > 1:
            tunnel.answers = 0
        self._arm(tunnel, now + self._interval(now, tunnel))
        tunnel.echo_seq = (tunnel.echo_seq + 1) & 0xFFFF
        tunnel.echo_sent_at = now
        packet = self._echo(tunnel, False, tunnel.echo_ident, tunnel.echo_seq, tunnel.echo_token)
        self._ctx.queues.transmit(Transmit(tunnel.id, -1, tunnel.peer, 0, packet))

    def _silent(self, now: int, tunnel: Tunnel) -> None:
        if tunnel.up:
            self._ctx.counters.bump("direct_path_silent")
            self._set_up(now, tunnel, False)
            self._on_silent(now, tunnel)
        if not tunnel.ever_up and tunnel.others and tunnel.unanswered() % 3 == 0:
            # RFC 6521 6.1: try each care-of address the peer listed.
            tunnel.others.append(tunnel.remote)
            tunnel.remote = tunnel.others.pop(0)
            self._ctx.queues.tunnel(tunnel.id)

    def _interval(self, now: int, tunnel: Tunnel) -> int:
        if not tunnel.direct:
            return _RETRY_HA_MS
        if tunnel.up:
            return max(_FLOOR_MS, self._ctx.settings.direct_keepalive_ms)
        if not tunnel.ever_up and tunnel.unanswered() < _FIRST_PROBES:
            return _FIRST_MS
        return _PROBE_MAX_MS if now < tunnel.wanted_until else _PROBE_IDLE_MS

    def _echo(self, tunnel: Tunnel, reply: bool, ident: int, seq: int, payload: bytes) -> bytes:
        source, tos = self._ctx.settings.home_address, ipv4.TOS_NETWORK_CONTROL
        return ipv4.build_icmp_echo(source, tunnel.peer, reply, ident, seq, payload, tos)

    def _may_reply(self, now: int, tunnel: Tunnel) -> bool:
        if now - tunnel.replied_at < _FLOOR_MS:
            self._ctx.counters.bump("keepalive_rate_limited")
            return False
        tunnel.replied_at = now
        return True

    def receive_echo(self, now: int, tunnel: Tunnel, echo, by_other: bool = False) -> None:
        """An ICMP echo or reply, parsed, came from `tunnel.peer` through this tunnel, from its
        present end or `by_other`.
        """
        is_reply, ident, seq, payload = echo
        if by_other:
            # Answered where it came from: there the other side still has its end.
            if not is_reply and tunnel.other is not None and self._may_reply(now, tunnel):
                uplink, _, remote, port = tunnel.other
                packet = self._echo(tunnel, True, ident, seq, payload)
                self._ctx.send_outside(uplink, remote, port, TUNNEL_HEADER + packet)
            return
        if not is_reply:
            tunnel.used = True
            if self._may_reply(now, tunnel):
                packet = self._echo(tunnel, True, ident, seq, payload)
                self._ctx.queues.transmit(Transmit(tunnel.id, -1, tunnel.peer, 0, packet))
                if tunnel.direct and not tunnel.up:
                    # RFC 6521 3.3.4: having answered the first keepalive, start our own.
                    self.probe(now, tunnel)
            return
        late = (tunnel.echo_seq - seq) & 0xFFFF
        expected = ident == tunnel.echo_ident and payload == tunnel.echo_token
        if not expected or late >= min(tunnel.unanswered(), _LATE_ECHOES):
            self._ctx.counters.bump("keepalive_reply_unexpected")
            return
        tunnel.used = True
        tunnel.answered_seq = seq
        tunnel.candidate = None
        tunnel.proven = False
        if late == 0:
            tunnel.rtt_ms = now - tunnel.echo_sent_at
        self._answered(now, tunnel)

    def _answered(self, now: int, tunnel: Tunnel) -> None:
        if not tunnel.direct:
            self._arm(tunnel, now + tunnel.interval_ms)
            return
        if tunnel.up:
            return
        tunnel.answers += 1
        if tunnel.answers >= (_RETURN_ANSWERS if tunnel.ever_up else 1):
            self._set_up(now, tunnel, True)
            self._arm(tunnel, now + self._interval(now, tunnel))
        else:
            self.probe(now, tunnel)

    def receive_stray(self, now: int, tunnel: Tunnel, src: bytes, sport: int, echo) -> None:
        """A keepalive of `tunnel.peer` came from an end that is not the tunnel's [A37, A57].

        It is answered where it came from. The tunnel moves there only after an echo of ours to
        that end was answered, and while it is up only when its own end is silent, so that a
        forged keepalive moves nothing.
        """
        is_reply, ident, seq, payload = echo
        if not is_reply:
            if not self._may_reply(now, tunnel):
                return
            packet = self._echo(tunnel, True, ident, seq, payload)
            self._ctx.send_outside(tunnel.uplink, src, sport, TUNNEL_HEADER + packet)
            if not tunnel.proven:
                tunnel.candidate = (src, sport)
                tunnel.candidate_token = self._ctx.random(8)
                packet = self._echo(tunnel, False, tunnel.echo_ident, 0, tunnel.candidate_token)
                self._ctx.send_outside(tunnel.uplink, src, sport, TUNNEL_HEADER + packet)
            return
        if tunnel.candidate != (src, sport) or payload != tunnel.candidate_token:
            self._ctx.counters.bump("keepalive_reply_unexpected")
            return
        tunnel.proven = True
        if not tunnel.up:
            self._move(now, tunnel)
            self._set_up(now, tunnel, True)
            self.probe(now, tunnel)

    def _move(self, now: int, tunnel: Tunnel) -> None:
        uplink = self._ctx.uplinks[tunnel.uplink]
        src, sport = tunnel.candidate or (tunnel.remote, tunnel.remote_port)
        self._aim(now, tunnel, uplink, src, sport)
        tunnel.used = True

    def traffic(self, now: int, ident: int, rx_packets: int, tx_packets: int) -> None:
        """Take the data plane's cumulative counters of one tunnel."""
        tunnel = self._table.get(ident)
        if tunnel is not None and (rx_packets, tx_packets) != (tunnel.rx, tunnel.tx):
            tunnel.rx, tunnel.tx = rx_packets, tx_packets
            tunnel.traffic_at = now
