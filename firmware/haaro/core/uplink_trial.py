"""Trying uplinks by registrations with the home agent: make before break, and unseen death.

    in use --the policy chooses another--> trying it --accepted--> in use
    trying it --unanswered--> it is held down; registering by the former again
    in use --suspicion, then nothing comes by it--> it is held down; trying the next

Decides by which uplink the next request leaves, and when one has failed. Owned by registration.py,
which sends.
"""

from haaro.compat import const
from haaro.core.uplink_policy import decide

_TRIES = const(3)  # unanswered by one uplink, then the next; later on each is tried once in turn
_ONE_WAY_TRIES = const(2)
_LOSSY_TRIES = const(4)
_DEAF_TRIES = const(5)  # unanswered though peers are heard by it: the home agent is not reached


class UplinkTrial:
    """Which uplink the requests leave by: `index` is that of the last one, -1 for a new start."""

    def __init__(self, ctx) -> None:
        self._ctx = ctx
        self.index = -1
        self._tries = 0  # unanswered by that one
        self._patience = _TRIES
        self._quiet_since = 0  # nothing came by that uplink since then: it does not work

    def choose(self, now: int):
        """Return the uplink that the policy wants, None when all are down; arms the timer of the
        next decision.
        """
        ctx = self._ctx
        current = ctx.uplinks.get(ctx.current)
        link, again = decide(now, ctx.settings, ctx.uplinks.values(), current)
        ctx.chosen = -1 if link is None else link.index
        if again is None:
            ctx.deadlines.clear("uplink")
        else:
            ctx.deadlines.set("uplink", max(again, now + 1))
        return link

    def target(self, now: int):
        """Return the uplink of a request that leaves now; a stopping router changes no more."""
        link = self._ctx.uplink() if self._ctx.stopping else self.choose(now)
        if link is not None and link.index != self.index:
            if self.index >= 0 and link.index != self._ctx.current:
                self._ctx.log(f"trying uplink {link.name}")
            self.index = link.index
            self._tries = 0
            self._patience = _TRIES
            self._quiet_since = now
        return link

    def lost(self, link) -> None:
        """The link is down or its address another: the next request by it is a new start."""
        if self.index == link.index:
            self.index = -1

    def doubted(self, now: int, tunnel) -> bool:
        """Whether to follow up the suspicion that a tunnel is dead, unseen, with a request."""
        link = self._ctx.uplinks.get(self._ctx.current)
        if link is None or tunnel.uplink != link.index:
            return False
        # A late keepalive comes with quick ones after it; traffic may have one direction only. On
        # an uplink that loses much, an answer that stays away proves little.
        tries = 1 if tunnel.direct else _ONE_WAY_TRIES
        self.doubt(now, _LOSSY_TRIES if link.lossy else tries)
        return True

    def doubt(self, now: int, tries: int) -> None:
        """Give the uplink in use up after so many requests, unless something comes by it."""
        if self._ctx.chosen == self._ctx.current:
            self._tries = 0
            self._patience = tries
            self._quiet_since = now

    def accepted(self, now: int, link, rtt_ms: int) -> None:
        """A request by this uplink was accepted: it is the one in use."""
        link.answered(now, rtt_ms, self._ctx.settings)
        if self._ctx.current != link.index:
            self._ctx.log(f"uplink {link.name} is in use")
        self._ctx.current = link.index
        self._tries = 0
        self._patience = _TRIES

    def denied(self, now: int, index: int) -> None:
        """The home agent refused a request by this uplink: the one in use stays."""
        link = self._ctx.uplinks.get(index)
        if link is not None and index != self._ctx.current:
            link.failed(now, self._ctx.settings)

    def unanswered(self, now: int, index: int, attempts: int) -> None:
        """A request by this uplink, number `attempts` since the last answer, got no reply."""
        link = self._ctx.uplinks.get(index)
        if link is None:
            return
        link.missed(now, self._ctx.settings)
        self._tries += 1
        patience = 1 if attempts > _TRIES else self._patience
        quiet = link.heard_at < self._quiet_since
        if self._tries >= (patience if quiet else _DEAF_TRIES):
            link.failed(now, self._ctx.settings)
