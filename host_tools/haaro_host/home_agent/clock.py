"""The home agent's time of day and the Identification field (RFC 5944 5.7.1).

Owns: the offset that keeps our clock from going backwards, and the arithmetic of 64-bit NTP stamps.
Never reads a clock: the shell passes NTP milliseconds (since 1900, eras not folded) to every door.
"""

_MASK = (1 << 64) - 1
_HALF = 1 << 63


def stamp(ntp_ms: int) -> int:
    """Return NTP milliseconds as a 32.32 fixed-point stamp modulo 2^64."""
    return (ntp_ms << 32) // 1000 & _MASK


def difference(a: int, b: int) -> int:
    """Return a - b by serial arithmetic modulo 2^64: right across the era end of 2036 [A46]."""
    value = (a - b) & _MASK
    return value - (1 << 64) if value >= _HALF else value


def unstamp(value: int, near_ms: int) -> int:
    """Return the NTP milliseconds of stamp `value` in the era nearest to `near_ms`, rounded up."""
    fraction = difference(value, stamp(near_ms))
    return near_ms + -(-fraction * 1000 // (1 << 32))


class Clock:
    """Our clock: what the shell passes, plus an offset that absorbs steps backwards.

    RFC 5944 is silent on a home agent whose clock goes back: every router would be refused, and
    bindings would live too long. So this clock never goes back; `.offset` is in milliseconds.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._last: int | None = None

    def now(self, ntp_ms: int) -> int:
        """Return our time in NTP milliseconds for the shell's `ntp_ms`; never decreases."""
        if self._last is not None and ntp_ms + self.offset < self._last:
            self.offset = self._last - ntp_ms
        self._last = ntp_ms + self.offset
        return self._last

    def not_before(self, ntp_ms: int, floor: int) -> None:
        """At the shell's `ntp_ms`, our time shall be at least `floor`."""
        self.offset = max(self.offset, floor - ntp_ms)
        self._last = ntp_ms + self.offset

    def stepped(self, delta: int) -> int:
        """The shell's clock jumped by `delta` ms; return by how much our own time jumped.

        A jump back costs nothing: the offset takes it. A jump forward first pays the offset back.
        """
        if delta < 0:
            self.offset -= delta
            return 0
        paid = min(self.offset, delta)
        self.offset -= paid
        return delta - paid
