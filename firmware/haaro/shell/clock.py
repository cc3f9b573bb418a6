"""Turns the port's wrapping ticks into milliseconds that never wrap, and its epoch into NTP's."""

import time

_NTP_FROM_1970_S = 2208988800
_NTP_FROM_2000_S = 3155673600
# Before 2024 no haaro existed: a clock that says so was never set.
_PLAUSIBLE_NTP_S = 3913056000


class Clock:
    """Monotonic milliseconds since start; `now` must be called at least once in six days."""

    def __init__(self) -> None:
        self._last = time.ticks_ms()  # type: ignore[attr-defined]
        self._elapsed = 0

    def now(self) -> int:
        """Return milliseconds since this object was made."""
        ticks = time.ticks_ms()  # type: ignore[attr-defined]
        self._elapsed += time.ticks_diff(ticks, self._last)  # type: ignore[attr-defined]
        self._last = ticks
        return self._elapsed


def ntp_ms() -> int:
    """Return the port's wall clock as milliseconds since 1900, or 0 if it was plainly never set.

    MicroPython counts from 1970 or 2000 by port, so it is asked (RFC 5944 5.7.1 wants NTP time).
    """
    epoch = _NTP_FROM_1970_S if time.gmtime(0)[0] == 1970 else _NTP_FROM_2000_S
    nanoseconds = time.time_ns()
    milliseconds = epoch * 1000 + nanoseconds // 1000000
    return milliseconds if milliseconds > _PLAUSIBLE_NTP_S * 1000 else 0
