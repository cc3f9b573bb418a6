"""A token bucket on the caller's clock (threats R16)."""


class TokenBucket:
    """Allows `burst` events at once and `rate` a second in the long run; time is in ms."""

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._full = burst * 1000
        self._tokens = self._full
        self._at: int | None = None

    def take(self, now: int) -> bool:
        """Take one token at `now`; False when there is none."""
        if self._at is not None and now > self._at:
            self._tokens = min(self._full, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1000:
            return False
        self._tokens -= 1000
        return True
