"""Tunnel ends and their liveness: ICMP echo through the tunnel (RFC 3519 4.9, RFC 6521 3.3.4, 6.1).

Owned by the router. A direct tunnel is `up` only after one of our own echoes was answered; it
stops being up after `keepalive_misses` echoes in a row without an answer, and is then probed
until it answers again. Echoes follow traffic: every keepalive period what was carried since the
last one is vouched for by the next. A tunnel that carried nothing for a minute is `dormant`: no
keepalive, not up, until traffic or an echo of the peer wakes it. Never chooses routes.
"""

from haaro.compat import const
from haaro.core.events import Transmit
from haaro.core.tunnel_table import MAX_TUNNELS, Tunnel, TunnelTable
from haaro.wire import ipv4
from haaro.wire.message import MIP_PORT
from haaro.wire.udp_tunnel import TUNNEL_HEADER

_FLOOR_MS = const(200)  # MAX_UPDATE_RATE: at most 5 keepalives a second
_FIRST_MS = const(500)  # between the first probes of a new tunnel
_PROBE_MAX_MS = const(2000)  # between probes of a silent tunnel that traffic wants
_PROBE_IDLE_MS = const(10000)  # and when no traffic wants it
_IDLE_MS = const(30000)  # between those of a path that is up and unused
_DORMANT_MS = const(60000)  # without traffic
_SUSPECT_MS = const(10000)  # between two suspicions of one tunnel, longer each time
_SUSPECT_MAX_MS = const(30000)
_UNHEARD_MS = const(3000)  # traffic sent to the home agent and none back: a suspicion
_RETRY_HA_MS = const(2000)  # between unanswered echoes to the home agent
_FIRST_PROBES = const(4)
_LATE_ECHOES = const(8)  # how many echoes back an answer still counts
_RETURN_ANSWERS = const(2)  # a path that failed must answer twice before it is believed
_MOVE_MISSES = const(2)  # echoes without answer after which a proven other end is taken


class Tunnels(TunnelTable):
    """The tunnels and their keepalives. `on_change(now, tunnel)` is called when `up`
    changes, `on_silent(now, tunnel)` when the other end no longer answers, `on_suspect(now,
    tunnel)` when that is only feared: an answer is due, or traffic goes out and none comes in.
    """

    def __init__(self, ctx, on_change, on_silent, on_suspect) -> None:
        super().__init__(ctx)
        self._on_change = on_change
        self._on_silent = on_silent
        self._on_suspect = on_suspect
        self.nat = False  # we are behind an address translator
        self._home_interval_ms = 0

    def ends_at(self, address: bytes) -> bool:
        """Return whether a direct tunnel has its other end at `address`."""
        return any(t.direct and t.remote == address for t in self._table.values())

    def open_home(self, now: int, uplink, interval_ms: int, port: int = MIP_PORT) -> Tunnel:
        """Make or retarget tunnel 0, with the home agent; port: as Tunnel.remote_port."""
        tunnel = self._table.get(0)
        if tunnel is None:
            tunnel = self._add(0, self._ctx.settings.home_agent)
        self._home_interval_ms = interval_ms
        if self._aim(now, tunnel, uplink, self._ctx.settings.home_agent, port) or not tunnel.up:
            tunnel.up = True
            self._ctx.queues.routes()
            self._on_change(now, tunnel)
        tunnel.used = True
        self.heard(tunnel)
        # That UDP passes is shown by the reply; of another protocol only an echo tells.
        unknown = port > 0xFFFF and tunnel.rtt_ms is None
        self._arm(tunnel, now if unknown else now + interval_ms)
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
            tunnel = self._add(ident, peer)
            tunnel.traffic_at = now
        tunnel.wanted_until = now + _PROBE_IDLE_MS
        if self._aim(now, tunnel, uplink, remote, port):
            # Probed once both sides know of it: by the registration that follows, or the peer's.
            self._ctx.deadlines.clear("keepalive", peer)
            tunnel.ever_up = False
            self._set_up(now, tunnel, False)
        return tunnel

    def lost_uplink(self, now: int, index: int) -> None:
        """Take every tunnel over uplink `index` out of use; its ends stay until retargeted."""
        for tunnel in self.all():
            if tunnel.other is not None and tunnel.other[0] == index:
                self._end_grace(tunnel)
            if tunnel.uplink == index:
                tunnel.used = False
                if tunnel.up:
                    tunnel.silent_since = now
                self._set_up(now, tunnel, False)

    def _set_up(self, now: int, tunnel: Tunnel, up: bool) -> None:
        if tunnel.up == up:
            return
        tunnel.up = up
        if up:
            tunnel.ever_up = True
            tunnel.silent_since = None
        tunnel.answers = 0
        self._ctx.queues.routes()
        self._on_change(now, tunnel)

    def _arm(self, tunnel: Tunnel, when: int) -> None:
        self._ctx.deadlines.set("keepalive", when, tunnel.peer)

    def want(self, now: int, tunnel: Tunnel) -> None:
        """Traffic wants this direct tunnel: probe it at the quick rate."""
        tunnel.traffic_at = now
        tunnel.wanted_until = now + _PROBE_IDLE_MS
        if tunnel.dormant:
            self._wake(now, tunnel)
            return
        if not tunnel.up and self._ctx.deadlines.get("keepalive", tunnel.peer) is not None:
            self.probe(now, tunnel, _PROBE_MAX_MS)

    def probe(self, now: int, tunnel: Tunnel, gap: int = _FLOOR_MS) -> None:
        """Send our own echo now, or as soon as `gap` ms are over since the last, and keep
        probing.
        """
        due = self._ctx.deadlines.get("keepalive", tunnel.peer)
        when = max(now, tunnel.echo_sent_at + gap)
        if due is None or due > when:
            self._arm(tunnel, when)

    def _wake(self, now: int, tunnel: Tunnel) -> None:
        tunnel.dormant = False
        tunnel.wanted_until = now + _PROBE_IDLE_MS
        self.probe(now, tunnel)

    def handle_timer(self, now: int, kind: str, peer: bytes) -> None:
        """A timer of the tunnel with `peer` is due; `kind` is one of TIMERS."""
        tunnel = self._peers.get(peer)
        if tunnel is None:
            return
        if kind == "keepalive":
            self._keepalive(now, tunnel)
        elif kind == "other":
            self._end_grace(tunnel)
        else:
            self._suspect(now, tunnel)

    def heard(self, tunnel: Tunnel) -> None:
        """Something came from the other side."""
        self._ctx.deadlines.clear("unheard", tunnel.peer)

    def _suspect(self, now: int, tunnel: Tunnel) -> None:
        before, gap = self._suspicions.get(tunnel.id, (now, 0))
        if now < before:
            return
        # Unfounded again and again, as of a flow that has one direction: ask less often.
        again = gap and now < before + _SUSPECT_MAX_MS
        gap = min(2 * gap, _SUSPECT_MAX_MS) if again else _SUSPECT_MS
        self._suspicions[tunnel.id] = (now + gap, gap)
        self._on_suspect(now, tunnel)

    def _overdue(self, now: int, tunnel: Tunnel) -> bool:
        """Return whether the answer to an echo is late, for what the path needs."""
        unanswered = tunnel.unanswered()
        if not unanswered or not tunnel.resting():
            return False
        age = now - tunnel.echo_sent_at + (unanswered - 1) * self._period(now, tunnel)
        return age > 2 * (tunnel.rtt_ms or 0)

    def _keepalive(self, now: int, tunnel: Tunnel) -> None:
        misses = self._ctx.settings.keepalive_misses
        unanswered = tunnel.unanswered()
        if tunnel.direct:
            if now - tunnel.traffic_at >= _DORMANT_MS and now >= tunnel.wanted_until:
                self._sleep(now, tunnel)
                return
            if tunnel.up and not unanswered and not self._echo_due(now, tunnel):
                # Until traffic is told of.
                asleep = max(tunnel.traffic_at + _DORMANT_MS, tunnel.wanted_until)
                self._arm(tunnel, min(tunnel.echo_sent_at + _IDLE_MS, asleep))
                return
            if self._overdue(now, tunnel):
                self._suspect(now, tunnel)
        candidate = self._candidates.get(tunnel.id)
        if candidate and candidate[3] and unanswered >= min(misses, _MOVE_MISSES):
            self._move(now, tunnel, candidate)
            unanswered = tunnel.unanswered()
        if unanswered >= misses:
            if not tunnel.direct:
                tunnel.answered_seq = tunnel.echo_seq
                self._arm(tunnel, now + self._home_interval_ms)
                self._on_silent(now, tunnel)
                return
            self._silent(now, tunnel)
            unanswered = tunnel.unanswered()
        if unanswered > 1:
            tunnel.answers = 0
        if unanswered and not tunnel.direct:
            self._ctx.uplinks[tunnel.uplink].missed(now, self._ctx.settings)
        self._arm(tunnel, now + self._interval(now, tunnel))
        tunnel.echo_seq = (tunnel.echo_seq + 1) & 0xFFFF
        tunnel.echo_sent_at = now
        tunnel.carried = False
        packet = self._echo(tunnel, False, tunnel.echo_ident, tunnel.echo_seq, tunnel.echo_token)
        self._ctx.queues.transmit(Transmit(tunnel.id, -1, tunnel.peer, 0, packet))

    def _echo_due(self, now: int, tunnel: Tunnel) -> bool:
        """Return whether the path must be vouched for, or a NAT's mapping kept open."""
        idle = now - tunnel.echo_sent_at >= _IDLE_MS
        return tunnel.carried or idle or self.nat or tunnel.nat

    def _sleep(self, now: int, tunnel: Tunnel) -> None:
        tunnel.dormant = True
        tunnel.answered_seq = tunnel.echo_seq
        self._set_up(now, tunnel, False)

    def _silent(self, now: int, tunnel: Tunnel) -> None:
        if tunnel.resting():
            self._ctx.counters.bump("direct_path_silent")
            tunnel.silent_since = now
            self._ctx.queues.routes()  # also if it was asleep, and the only way
            self._set_up(now, tunnel, False)
            self._on_silent(now, tunnel)
        if not tunnel.ever_up and tunnel.others and tunnel.unanswered() % 3 == 0:
            # RFC 6521 6.1: try each care-of address the peer listed.
            tunnel.others.append(tunnel.remote)
            tunnel.remote = tunnel.others.pop(0)
            self._ctx.queues.tunnel(tunnel.id)

    def _period(self, now: int, tunnel: Tunnel) -> int:
        """Return the time between keepalives of a direct tunnel; an uplink that has used its budget
        up makes it longer. The home agent's are few, and keep a NAT open: they stay as they are.
        """
        slowdown = self._ctx.uplinks[tunnel.uplink].slowdown(now)
        least = max(_FLOOR_MS, tunnel.asked_ms)
        return slowdown * max(least, self._ctx.settings.direct_keepalive_ms)

    def _interval(self, now: int, tunnel: Tunnel) -> int:
        if not tunnel.direct:
            return _RETRY_HA_MS
        if tunnel.up:
            period = self._period(now, tunnel)
            if tunnel.rtt_ms is None or not self._overdue(now, tunnel):
                return period
            # After a miss the next ones tell soon, as far as the path is quick enough for it.
            return min(period, max(_FIRST_MS, 4 * tunnel.rtt_ms))
        if tunnel.silent_since is None and tunnel.unanswered() < _FIRST_PROBES:
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
        self.heard(tunnel)
        if by_other:
            # Answered where it came from: there the other side still has its end.
            if not is_reply and tunnel.other is not None and self._may_reply(now, tunnel):
                uplink, _, remote, port = tunnel.other
                packet = self._echo(tunnel, True, ident, seq, payload)
                if port > 0xFFFF:
                    # There is no socket for an end that is only received from.
                    self._ctx.queues.transmit(Transmit(tunnel.id, -1, tunnel.peer, 0, packet))
                else:
                    self._ctx.send_outside(uplink, remote, port, TUNNEL_HEADER + packet)
            return
        if not is_reply:
            tunnel.used = True
            if self._may_reply(now, tunnel):
                packet = self._echo(tunnel, True, ident, seq, payload)
                self._ctx.queues.transmit(Transmit(tunnel.id, -1, tunnel.peer, 0, packet))
                if tunnel.dormant:
                    self._wake(now, tunnel)
                elif tunnel.direct and not tunnel.up:
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
        self._candidates.pop(tunnel.id, None)
        # Rises at once, for an upload that fills a queue, and falls slowly.
        rtt = now - tunnel.echo_sent_at
        rtt += late * (self._period(now, tunnel) if tunnel.direct else _RETRY_HA_MS)
        old = tunnel.rtt_ms
        tunnel.rtt_ms = rtt if old is None or rtt > old else old - (old - rtt) // 4
        self._answered(now, tunnel)

    def _answered(self, now: int, tunnel: Tunnel) -> None:
        link = self._ctx.uplinks[tunnel.uplink]
        link.heard(now)
        if not tunnel.direct:
            link.answered(now, tunnel.rtt_ms or 0, self._ctx.settings)
            self._arm(tunnel, now + self._home_interval_ms)
            return
        if tunnel.up:
            return
        tunnel.answers += 1
        if tunnel.answers >= (1 if tunnel.silent_since is None else _RETURN_ANSWERS):
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
        candidate = self._candidates.get(tunnel.id)
        if not is_reply:
            if not self._may_reply(now, tunnel):
                return
            packet = self._echo(tunnel, True, ident, seq, payload)
            self._ctx.send_outside(tunnel.uplink, src, sport, TUNNEL_HEADER + packet)
            if not candidate or not candidate[3]:
                token = self._ctx.random(8)
                self._candidates[tunnel.id] = (src, sport, token, False)
                packet = self._echo(tunnel, False, tunnel.echo_ident, 0, token)
                self._ctx.send_outside(tunnel.uplink, src, sport, TUNNEL_HEADER + packet)
            return
        if not candidate or candidate[:3] != (src, sport, payload):
            self._ctx.counters.bump("keepalive_reply_unexpected")
            return
        candidate = self._candidates[tunnel.id] = (src, sport, payload, True)
        if not tunnel.up:
            self._move(now, tunnel, candidate)
            self._set_up(now, tunnel, True)
            self._wake(now, tunnel)

    def _move(self, now: int, tunnel: Tunnel, candidate: tuple) -> None:
        uplink = self._ctx.uplinks[tunnel.uplink]
        self._aim(now, tunnel, uplink, candidate[0], candidate[1])
        tunnel.used = True

    def traffic(self, now: int, ident: int, rx_packets: int, tx_packets: int) -> None:
        """Take the data plane's counters of user packets of one tunnel."""
        tunnel = self._table.get(ident)
        if tunnel is None or (rx_packets, tx_packets) == (tunnel.rx, tunnel.tx):
            return
        if rx_packets != tunnel.rx:
            self.heard(tunnel)
        elif ident == 0 and self._ctx.deadlines.get("unheard", tunnel.peer) is None:
            self._ctx.deadlines.set("unheard", now + _UNHEARD_MS, tunnel.peer)
        tunnel.rx, tunnel.tx = rx_packets, tx_packets
        tunnel.traffic_at = now
        tunnel.carried = True
        if tunnel.dormant:
            self._wake(now, tunnel)
        elif tunnel.up and tunnel.direct and not tunnel.unanswered():
            self.probe(now, tunnel, self._period(now, tunnel))
