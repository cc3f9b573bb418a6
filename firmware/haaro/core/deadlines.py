"""All timers of the core in one place: a key to a time in milliseconds. Never calls anybody."""

import heapq

from haaro.compat import const

_SLACK = const(32)  # entries of timers that were moved or disarmed, before they are swept out


class Deadlines:
    """Keys are (kind, home address); one time per key. Times are of the monotonic clock that
    never wraps.
    """

    def __init__(self) -> None:
        # (time, key), the earliest first. What is not the very entry in `_when` is void.
        self._when: dict[tuple[str, bytes], tuple[int, tuple[str, bytes]]] = {}
        self._heap: list[tuple[int, tuple[str, bytes]]] = []

    def set(self, kind: str, when: int, peer: bytes = b"") -> None:
        """Arm, or move, the timer (kind, peer) to `when` ms."""
        key = (kind, peer)
        entry = self._when.get(key)
        if entry is not None:
            if entry[0] == when:
                return
            key = entry[1]
        entry = self._when[key] = (when, key)
        if len(self._heap) > 2 * len(self._when) + _SLACK:
            self._heap = list(self._when.values())
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, entry)

    def clear(self, kind: str, peer: bytes = b"") -> None:
        """Disarm a timer; not armed is not an error."""
        self._when.pop((kind, peer), None)

    def clear_peer(self, peer: bytes) -> None:
        """Disarm every timer of one peer."""
        for key in [key for key in self._when if key[1] == peer]:
            del self._when[key]

    def get(self, kind: str, peer: bytes = b"") -> int | None:
        """Return the time of a timer, None when it is not armed."""
        entry = self._when.get((kind, peer))
        return None if entry is None else entry[0]

    def next(self) -> int | None:
        """Return the earliest time, None when nothing is armed."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._when.get(entry[1]) is entry:
                return entry[0]
            heapq.heappop(heap)
        return None

    def pop_due(self, now: int) -> tuple[str, bytes] | None:
        """Disarm and return the key of the earliest timer that is due, None when none is."""
        first = self.next()
        if first is None or first > now:
            return None
        key = heapq.heappop(self._heap)[1]
        del self._when[key]
        return key
