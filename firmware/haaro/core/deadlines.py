"""All timers of the core in one place: a key to a time in milliseconds. Never calls anybody."""


class Deadlines:
    """Keys are (kind, home address); one time per key. Times are of the monotonic clock that
    never wraps.
    """

    def __init__(self) -> None:
        self._when: dict[tuple[str, bytes], int] = {}
        self._next: int | None = None
        self._stale = False  # asked for every turn of the loop, changed far less often

    def set(self, kind: str, when: int, peer: bytes = b"") -> None:
        """Arm, or move, the timer (kind, peer) to `when` ms."""
        self._when[(kind, peer)] = when
        self._stale = True

    def clear(self, kind: str, peer: bytes = b"") -> None:
        """Disarm a timer; not armed is not an error."""
        self._when.pop((kind, peer), None)
        self._stale = True

    def clear_peer(self, peer: bytes) -> None:
        """Disarm every timer of one peer."""
        for key in [key for key in self._when if key[1] == peer]:
            del self._when[key]
        self._stale = True

    def get(self, kind: str, peer: bytes = b"") -> int | None:
        """Return the time of a timer, None when it is not armed."""
        return self._when.get((kind, peer))

    def next(self) -> int | None:
        """Return the earliest time, None when nothing is armed."""
        if self._stale:
            self._next = min(self._when.values()) if self._when else None
            self._stale = False
        return self._next

    def pop_due(self, now: int) -> tuple[str, bytes] | None:
        """Disarm and return the key of the earliest timer that is due, None when none is."""
        first = self.next()
        if first is None or first > now:
            return None
        due = None
        when = now
        for key, at in self._when.items():
            if at < when or (at == when and due is None):
                due, when = key, at
        if due is not None:
            del self._when[due]
            self._stale = True
        return due
