"""Which uplink a direct path takes, and moving it to another one (RFC 6521 3.3, 3.3.6, 6.1).

The usual uplink is that of the home agent, or the one configured for the peer. Where no direct path
comes up by it, the others that are up are tried in the policy's order; what works is remembered in
`record.uplink`. Owned by peer_registration.py, which sends and judges the requests.
"""

from haaro.compat import const
from haaro.core import encapsulation
from haaro.core.uplink_policy import in_order
from haaro.wire import ipv4

_TOKEN_MARGIN_MS = const(30000)
_PAIR_MS = const(6000)  # three keepalives for each pair of care-of addresses
_SILENT_MS = const(10000)  # a path that was up may come back by itself
_ROUND_MS = const(300000)  # every uplink was tried: not again before
_REMEMBER_MS = const(900000)  # then the usual uplink is asked again

TIMERS = ("request", "retry", "renew", "mr_expire", "mutual", "silent", "pairs")


class PeerUplinks:
    """See the module; the timer ("pairs", CR-HoA) is due when a path should be up."""

    def __init__(self, ctx, cache, tunnels, rr) -> None:
        self._ctx = ctx
        self._cache = cache
        self._tunnels = tunnels
        self._rr = rr

    def move(self, now: int, record, uplink) -> None:
        """Register with this CR from another care-of address (RFC 6521 3.3.6).

        The home keygen token is reused while fresh, so that only a CoTI is needed: partial return
        routability. The tunnel is retargeted, not rebuilt.
        """
        state = record.registration
        tunnel = self._tunnels.of_peer(record.cr_hoa)
        if tunnel is not None:
            self._tunnels.open_direct(now, record.cr_hoa, uplink, tunnel.remote, tunnel.remote_port)
        self._rr.abort(record)
        state.pending = None
        state.registered = state.pre_accepted = False
        state.attempts = state.failures = state.retry_at = 0
        for kind in TIMERS:
            self._ctx.deadlines.clear(kind, record.cr_hoa)
        self._rr.start(now, record, uplink, _TOKEN_MARGIN_MS)

    def care_of_changed(self, now: int) -> None:
        """The home agent knows of our change: renew every direct path that used another uplink
        than it should now, or a care-of address that is gone (RFC 6521 3.3.6).
        """
        for record in self._cache.all():
            state = record.registration
            tunnel = self._tunnels.of_peer(record.cr_hoa)
            uplink = self._ctx.uplink(record)
            if uplink is None or state is None or (tunnel is None and state.pending is None):
                continue
            here = tunnel is not None and tunnel.up and tunnel.local == uplink.address
            if record.uplink < 0 or not here:
                self.move(now, record, uplink)
            if record.uplink != uplink.index or record.uplink == self._ctx.current:
                record.uplink = -1
            record.tried = []
            record.round_at = 0
            record.udp_only = False

    def uplink_lost(self, now: int, index: int) -> None:
        """Uplink `index` is down or to be left: paths that had it for themselves move; the others
        follow the home agent's registration.
        """
        for record in self._cache.all():
            if record.uplink == index:
                record.uplink = -1
            tunnel = self._tunnels.of_peer(record.cr_hoa)
            uplink = self._ctx.uplink(record)
            alone = tunnel is not None and tunnel.uplink == index != self._ctx.current
            if alone and uplink is not None and record.registration is not None:
                self.move(now, record, uplink)

    def expect(self, now: int, record, tunnel) -> None:
        """Wait for the path to come up: so long for each pair of care-of addresses."""
        when = now + _PAIR_MS * (1 + len(tunnel.others))
        self._ctx.deadlines.set("pairs", when, record.cr_hoa)

    def path_up(self, record, tunnel) -> None:
        """A keepalive was answered: this pair works (RFC 6521 6.1)."""
        record.worked(tunnel.local, tunnel.remote)
        self._ctx.deadlines.clear("pairs", record.cr_hoa)
        record.tried = []

    def path_silent(self, now: int, record, tunnel) -> None:
        """A path that was up no longer answers: soon, or where the uplink is not the home agent's
        at once, another uplink is tried.
        """
        wait = _SILENT_MS if tunnel.uplink == self._ctx.current else 0
        self._ctx.deadlines.set("pairs", now + wait, record.cr_hoa)

    def pairs_timer(self, now: int, record) -> None:
        """The path is not up in time: what worked once does not any more."""
        record.working = {}
        tunnel = self._tunnels.of_peer(record.cr_hoa)
        if tunnel is None or record.registration is None:
            return
        uplink = self._ctx.uplink(record)
        if tunnel.remote_port > 0xFFFF and uplink is not None:
            # A firewall that passes UDP only, perhaps.
            record.udp_only = True
            used = encapsulation.name(tunnel.remote_port)
            self._ctx.log(f"{used} does not reach {ipv4.text(record.cr_hoa)}; trying UDP")
            self.move(now, record, uplink)
        else:
            self.try_next(now, record)

    def try_next(self, now: int, record) -> bool:
        """The path does not come up: try the next uplink (RFC 6521 6.1); return whether there is
        one. After the last the usual one has its turn again.
        """
        ctx = self._ctx
        used = ctx.uplink(record)
        tunnel = self._tunnels.of_peer(record.cr_hoa)
        if used is None or now < record.round_at:
            return False
        if tunnel is not None and (tunnel.up or tunnel.dormant):
            return False
        record.tried = record.tried + [used.index]
        for link in in_order(now, ctx.uplinks.values()):
            if link.index in record.tried or link.drained or link.slowdown(now) > 1:
                continue
            ctx.log(f"trying uplink {link.name} for {ipv4.text(record.cr_hoa)}")
            record.uplink = link.index
            record.uplink_at = now
            self.move(now, record, link)
            return True
        if len(record.tried) > 1:
            record.round_at = now + _ROUND_MS
            record.uplink = -1
            usual = ctx.uplink(record)
            if usual is not None and usual is not used:
                self.move(now, record, usual)
        record.tried = []
        return False

    def usual_again(self, now: int, record) -> None:
        """At a renewal: what was found out long ago may not hold any more."""
        if record.uplink >= 0 and now - record.uplink_at > _REMEMBER_MS:
            record.uplink = -1
