"""Which uplink to use: what is known of each, and a decision that depends on nothing else.

Sends nothing and sets no timer: registration.py asks, tries what is chosen by a registration, and
tells what came of it; peer_uplinks.py asks for the order. Of the uplinks that are up, the best
class wins, then the smaller priority, then the smaller cost:

    good      nothing speaks against it
    poor      lost or delayed too much of what was sent to the home agent by it
    drained   the operator wants it left
    held      a registration by it went unanswered: held down, each time for longer

A working uplink is left for a better one only when that one gave no trouble for `return_ms`; one
that is drained or held at once.
"""

from haaro.compat import const

_GOOD = const(0)
_POOR = const(1)
_DRAINED = const(2)
_HELD = const(3)

_MAX_HOLD_MS = const(300000)
_REMEMBER_MS = const(1800000)  # an uplink not in use is not measured: then its past is forgotten
_LOSSY = const(200)  # per mille: on such an uplink one unanswered request proves little
_SLOWEST = const(16)  # what a spent budget makes of keepalive intervals
_HOUR_MS = const(3600000)
_NEVER_MS = -1000000


class Uplink:
    """One way out: its care-of address, what the operator wants of it and how it does.

    `config` has the keys of an entry of "uplinks" in router.json; what is absent has its default.
    """

    def __init__(self, index: int, config: dict) -> None:
        self.index = index
        self.up = False
        self.address = b""
        self.gateway: bytes | None = None
        self.mtu = 1500
        self.name = config.get("name", str(index))
        priority = config.get("priority")
        self.priority = index if priority is None else priority
        self.cost = config.get("cost", 0)
        self.metered = config.get("metered", False)
        self.budget = config.get("budget_kb_hour", 200) * 1000  # octets, both ways
        self.drained = False
        self.steady_since = 0  # it came up or gave trouble, whichever was last
        self.hold_until = 0
        self.failures = 0
        self.heard_at = _NEVER_MS
        self.loss = 0  # of requests and keepalives to the home agent, per mille, smoothed
        self.rtt_ms: int | None = None  # smoothed
        self.poor = False
        self.measured_at = _NEVER_MS
        self.left = self.budget
        self._left_at = 0
        self.slowed = 1  # what slowdown() said last

    # What happens to it

    def came_up(self, now: int) -> None:
        """The link came up, or has another address: a new start, but nothing to rush to."""
        self.steady_since = now
        self.hold_until = 0

    def heard(self, now: int) -> None:
        """Something authentic came by it: it is alive."""
        self.heard_at = now
        self.hold_until = 0
        if now - self.steady_since >= _MAX_HOLD_MS:
            self.failures = 0

    def answered(self, now: int, rtt_ms: int, settings) -> None:
        """A request or keepalive to the home agent was answered after `rtt_ms`."""
        self.heard(now)
        self._sample(now, 0, settings)
        self.rtt_ms = rtt_ms if self.rtt_ms is None else (7 * self.rtt_ms + rtt_ms) // 8
        self._judge(settings)

    def missed(self, now: int, settings) -> None:
        """A request or keepalive to the home agent went unanswered."""
        self._sample(now, 1000, settings)
        self._judge(settings)

    def failed(self, now: int, settings) -> None:
        """It was given up: not tried again for a time that doubles with each failure."""
        self.hold_until = now + min(settings.hold_down_ms << self.failures, _MAX_HOLD_MS)
        self.failures = min(self.failures + 1, 8)
        self.steady_since = now

    def _sample(self, now: int, value: int, settings) -> None:
        if now - self.measured_at > _REMEMBER_MS:
            self.loss, self.rtt_ms, self.poor = 0, None, False
        self.measured_at = now
        self.loss += (value - self.loss) // 16

    def _judge(self, settings) -> None:
        """Poor from the limits on; good again only well below them."""
        rtt = self.rtt_ms or 0
        if self.loss >= settings.loss_percent * 10 or rtt >= settings.latency_ms:
            self.poor = True
        elif self.loss < settings.loss_percent * 5 and rtt < settings.latency_ms * 3 // 4:
            self.poor = False

    @property
    def lossy(self) -> bool:
        """Whether single answers stay away too often for one to mean anything."""
        return self.loss >= _LOSSY

    # The budget for background traffic of a metered uplink

    def spend(self, octets: int) -> None:
        """Count signalling and keepalives."""
        if self.metered:
            self.left = max(0, self.left - octets)

    def slowdown(self, now: int) -> int:
        """Return by what to multiply the keepalive period of direct tunnels: 1 until half of an
        hour's budget is used up, at most 16.
        """
        if not self.metered:
            return 1
        grown = (now - self._left_at) * self.budget // _HOUR_MS
        if grown:
            self.left = min(self.left + grown, self.budget)
            self._left_at += grown * _HOUR_MS // self.budget
        self.slowed = min(_SLOWEST, max(1, self.budget // 2 // max(1, self.left)))
        return self.slowed

    # The decision

    def rank(self, now: int) -> tuple:
        """Return what to compare: the smallest is the best."""
        if self.hold_until > now:
            # Of those that failed, the one that failed longest ago.
            return (_HELD, self.steady_since, 0)
        if self.drained:
            return (_DRAINED, self.priority, self.cost)
        poor = self.poor and now - self.measured_at <= _REMEMBER_MS
        return (_POOR if poor else _GOOD, self.priority, self.cost)


def in_order(now: int, uplinks) -> list:
    """Return the uplinks that are up, the best first."""
    return sorted([u for u in uplinks if u.up], key=lambda u: u.rank(now) + (u.index,))


def decide(now: int, settings, uplinks, current) -> tuple:
    """Return (uplink to use with the home agent or None, when to decide again or None).

    `current` is the uplink in use, None if there is none. Equals are no reason to change.
    """
    again = None
    order = in_order(now, uplinks)
    if current is None or not current.up:
        best = order[0] if order else None
    else:
        best = current
        mine = current.rank(now)
        for uplink in order:
            if uplink is current or uplink.rank(now) >= mine:
                break
            ready = uplink.steady_since + settings.return_ms
            if mine[0] in (_DRAINED, _HELD) or ready <= now:
                best = uplink
                break
            again = ready if again is None else min(again, ready)
    for uplink in order:
        if uplink.hold_until > now and uplink is not best:
            again = uplink.hold_until if again is None else min(again, uplink.hold_until)
    return best, again


def why(now: int, settings, uplink, current) -> str:
    """Return one plain sentence why this uplink is in use with the home agent, or is not."""
    if not uplink.up:
        return "its link is down"
    trouble = ""
    group = uplink.rank(now)[0]
    if group == _HELD:
        trouble = "registrations by it went unanswered"
        if uplink is not current:
            trouble += "; tried again in %d s" % ((uplink.hold_until - now + 999) // 1000)
    elif group == _DRAINED:
        trouble = "the operator drains it"
    elif group == _POOR:
        trouble = "it loses %d %%, round trip %s ms" % (uplink.loss // 10, uplink.rtt_ms)
    if uplink is current:
        return "in use" + ("; no better one, though " + trouble if trouble else ": the best")
    if trouble:
        return trouble
    if current is None:
        return "a registration by it is awaited"
    if uplink.rank(now) >= current.rank(now):
        return "standby: %s is preferred or as good" % current.name
    left = uplink.steady_since + settings.return_ms - now
    if left > 0 and current.rank(now)[0] <= _POOR:
        return "preferred; must be without trouble for %d s more" % ((left + 999) // 1000)
    return "preferred; being tried by a registration"
