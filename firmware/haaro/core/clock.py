"""The clock for Identification: NTP time as the home agent sees it. Owned by the router; never
the system clock.

Identification is a 64-bit NTP timestamp (RFC 5944 5.7.1), compared modulo 2^64, so the end of an
era is nothing special.
"""

from haaro.compat import const

_MS = const(1000)
_M64 = 0xFFFFFFFFFFFFFFFF
_ERA_MS = 0x100000000 * 1000


def newer(a: int, b: int) -> bool:
    """Return whether timestamp `a` is later than `b`, in serial arithmetic."""
    return 0 < ((a - b) & _M64) < 1 << 63


def distance_ms(a: int, b: int) -> int:
    """Return `a` - `b` of two timestamps in signed milliseconds."""
    diff = (a - b) & _M64
    if diff >> 63:
        diff -= 1 << 64
    return (diff * 1000) >> 32


class Clock:
    """NTP time from the monotonic clock, an estimate at start and what the home agent taught."""

    def __init__(self, now: int, ntp_ms: int) -> None:
        self._base = ntp_ms - now
        self.offset_ms = 0
        self.synchronised = False

    def ntp(self, now: int, offset_ms: int = 0) -> int:
        """Return the 64-bit timestamp at `now`, moved by `offset_ms`."""
        ms = now + self._base + self.offset_ms + offset_ms
        return (((ms // _MS) << 32) | ((ms % _MS) * 0x100000000 // _MS)) & _M64

    def identification(self, now: int, random, last: int | None, offset_ms: int = 0) -> int:
        """Return a timestamp for a new request: later than `last`, with random bits below the
        millisecond.
        """
        value = self.ntp(now, offset_ms) | (int.from_bytes(random(3), "big") & 0x3FFFFF)
        if last is not None and not newer(value, last):
            value = (last + 1) & _M64
        return value

    def correction_ms(self, now: int, high: int, offset_ms: int = 0) -> int:
        """Return what to add so that our clock shows the second after `high`, a peer's NTP seconds.

        The second after, because the peer may have accepted a timestamp within `high` already.
        """
        ms = now + self._base + self.offset_ms + offset_ms
        diff = ((high + 1) * _MS - ms) % _ERA_MS
        backward = diff > _ERA_MS // 2 and ms + diff >= _ERA_MS
        return diff - _ERA_MS if backward else diff
