"""All timers of the core in one place: a key to a time in milliseconds. Never calls anybody."""

import heapq

from haaro.compat import const

_SLACK = const(32)  # entries of timers that were moved or disarmed, before they are swept out


class Deadlines:
    """Keys are (kind, home address); one time per key. Times are of the monotonic clock that
    never wraps.
    """

    def __init__(self) -> None:
        self._when: dict[tuple[str, bytes], int] = {}
        # (time, kind, peer), the earliest first. What no longer agrees with `_when` is void.
        self._heap: list[tuple[int, str, bytes]] = []

    def set(self, kind: str, when: int, peer: bytes = b"") -> None:
        """Arm, or move, the timer (kind, peer) to `when` ms."""
        key = (kind, peer)
        if self._when.get(key) == when:
            return
        self._when[key] = when
        if len(self._heap) > 2 * len(self._when) + _SLACK:
            self._heap = [(at, k[0], k[1]) for k, at in self._when.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (when, kind, peer))

    def clear(self, kind: str, peer: bytes = b"") -> None:
        """Disarm a timer; not armed is not an error."""
        self._when.pop((kind, peer), None)

    def clear_peer(self, peer: bytes) -> None:
        """Disarm every timer of one peer."""
        for key in [key for key in self._when if key[1] == peer]:
            del self._when[key]

    def get(self, kind: str, peer: bytes = b"") -> int | None:
        """Return the time of a timer, None when it is not armed."""
        return self._when.get((kind, peer))

    def next(self) -> int | None:
        """Return the earliest time, None when nothing is armed."""
        heap = self._heap
        while heap:
            when, kind, peer = heap[0]
            if self._when.get((kind, peer)) == when:
                return when
            heapq.heappop(heap)
        return None

    def pop_due(self, now: int) -> tuple[str, bytes] | None:
        """Disarm and return the key of the earliest timer that is due, None when none is."""
        first = self.next()
        if first is None or first > now:
            return None
        _, kind, peer = heapq.heappop(self._heap)
        del self._when[(kind, peer)]
        return kind, peer
