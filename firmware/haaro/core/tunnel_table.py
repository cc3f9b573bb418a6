"""Where tunnels lead: the table of tunnels, their ends, and a move from one end to another.

A move retargets a tunnel and makes none anew: its number stays. The end before the move, and the
home agent's at an uplink that a Registration Request went out by, are received from besides for
`_GRACE_MS` (RFC 6521 3.3.6). Sends nothing; tunnels.py adds the keepalives.
"""

from haaro.compat import const
from haaro.core.encapsulation import overhead

MAX_TUNNELS = 65  # tunnel 0 is the home agent's
TIMERS = ("keepalive", "other", "unheard")  # kinds of deadlines; the other half is the peer

_GRACE_MS = const(10000)
_LONG_AGO_MS = const(-100000)


class Tunnel:
    """One tunnel end pair. `peer` is the peer's home address, or the home agent's address for
    tunnel 0.

    What we send goes from `local` over `uplink` to `remote`:`remote_port`, which says the
    encapsulation too (core/encapsulation.py). `other` is one more
    end, (uplink, local, remote, port), that is received from besides; None if there is none.
    """

    # There are 64 of them: what few need is kept elsewhere, by number.

    def __init__(self, ident: int, peer: bytes) -> None:
        self.id = ident
        self.direct = ident > 0  # it leads to a peer, and not to the home agent
        self.peer = peer
        self.uplink = -1
        self.local = b""
        self.remote = b""
        self.remote_port = 434
        self.other: tuple[int, bytes, bytes, int] | None = None
        self.used = False  # the other side was heard from the present end
        self.mtu = 1500
        self.up = False
        self.ever_up = False
        self.dormant = False
        self.nat = False  # the peer is behind an address translator
        self.asked_ms = 0  # least keepalive period that a peer with a spent budget asks for
        self.wanted_until = 0
        self.echo_token = b""
        self.echo_seq = 0
        self.answered_seq = 0
        self.echo_sent_at = _LONG_AGO_MS
        self.answers = 0  # in a row, while the tunnel is not up
        self.silent_since: int | None = None
        self.rtt_ms: int | None = None
        self.replied_at = _LONG_AGO_MS
        self.others: list[bytes] = []  # further care-of addresses of the peer to try
        self.rx = 0
        self.tx = 0
        self.carried = False  # traffic since our last echo
        self.traffic_at = 0

    @property
    def echo_ident(self) -> int:
        """The Identifier of our echoes."""
        return self.echo_token[0] << 8 | self.echo_token[1]

    def unanswered(self) -> int:
        """Return how many of our echoes were sent since the newest answered one."""
        return (self.echo_seq - self.answered_seq) & 0xFFFF

    def resting(self) -> bool:
        """Return whether the path was good when last used and has not failed to answer since."""
        return self.ever_up and self.silent_since is None

    def which_end(self, uplink: int, src: bytes, sport: int) -> int:
        """Return 0 for what comes from the present end, 1 for the other one, -1 for neither.

        sport: 0 for what comes in no UDP.
        """
        if (uplink, src, sport) == (self.uplink, self.remote, self.remote_port & 0xFFFF):
            return 0
        other = self.other
        end = other and (other[0], other[2], other[3] & 0xFFFF)
        return 1 if (uplink, src, sport) == end else -1


class TunnelTable:
    """The tunnels, bounded by MAX_TUNNELS."""

    def __init__(self, ctx) -> None:
        self._ctx = ctx
        self._table: dict[int, Tunnel] = {}
        self._peers: dict[bytes, Tunnel] = {}  # the same by peer: each has one
        # By number: another end that asked, (address, port, token of our echo to it, and whether it
        # answered that with no answer of the tunnel's own end since).
        self._candidates: dict[int, tuple[bytes, int, bytes, bool]] = {}
        self._suspicions: dict[int, tuple[int, int]] = {}  # (none before, after what time), ms

    def get(self, ident: int) -> Tunnel | None:
        """Return tunnel `ident`, None when there is none."""
        return self._table.get(ident)

    def all(self) -> list[Tunnel]:
        """Return every tunnel."""
        return list(self._table.values())

    def of_peer(self, peer: bytes) -> Tunnel | None:
        """Return the direct tunnel with a peer's home address, None when there is none."""
        tunnel = self._peers.get(peer)
        return tunnel if tunnel is not None and tunnel.direct else None

    def _add(self, ident: int, peer: bytes) -> Tunnel:
        tunnel = self._table[ident] = self._peers[peer] = Tunnel(ident, peer)
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

    def _end_grace(self, tunnel: Tunnel) -> None:
        self._ctx.deadlines.clear("other", tunnel.peer)
        tunnel.other = None
        self._ctx.queues.tunnel(tunnel.id)

    def close(self, ident: int) -> None:
        """Remove a tunnel; not there is not an error."""
        tunnel = self._table.pop(ident, None)
        if tunnel is not None:
            del self._peers[tunnel.peer]
            self._candidates.pop(ident, None)
            self._suspicions.pop(ident, None)
            for kind in TIMERS:
                self._ctx.deadlines.clear(kind, tunnel.peer)
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
            self._end_grace(tunnel)
        tunnel.used = False
        tunnel.uplink, tunnel.local, tunnel.remote, tunnel.remote_port = end
        tunnel.mtu = uplink.mtu - overhead(port)
        tunnel.echo_token = self._ctx.random(8)
        tunnel.answered_seq = tunnel.echo_seq
        tunnel.answers = 0
        self._candidates.pop(tunnel.id, None)
        tunnel.silent_since = tunnel.rtt_ms = None
        self._ctx.queues.tunnel(tunnel.id)
        self._ctx.queues.routes()
        return True

    def mtu_changed(self, uplink) -> None:
        """The uplink's MTU is another one: the tunnels over it follow."""
        for tunnel in self.all():
            mtu = uplink.mtu - overhead(tunnel.remote_port)
            if tunnel.uplink == uplink.index and tunnel.mtu != mtu:
                tunnel.mtu = mtu
                self._ctx.queues.tunnel(tunnel.id)
