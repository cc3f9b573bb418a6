"""Kcr, nonces and rate limits of the correspondent role (RFC 6521 3.2.1 to 3.2.3). Owned by
correspondent.py.
"""

from haaro.compat import const

_PERIOD_MS = const(30000)
_MAX_NONCE_LIFETIME_MS = const(240000)
_KCR_OCTETS = const(16)
_NONCE_OCTETS = const(8)
_SLOTS = const(128)  # of a Limiter; more than events are allowed in a second


class Nonces:
    """A new nonce, with a Kcr of its own, every 30 s of use; the last 8 are accepted.

    The index starts at random, so that after a restart an old index is unknown rather than known
    with another key [A05]. 0 is skipped: it means "static KRm" [A58].
    """

    def __init__(self, random) -> None:
        self._random = random
        self._table: list[tuple[int, bytes, bytes, int]] = []  # (index, nonce, Kcr, first used at)
        self._next = int.from_bytes(random(2), "big")

    def current(self, now: int) -> tuple[int, bytes, bytes]:
        """Return (index, nonce, Kcr) for a new token, making them first if there are none."""
        if not self._table or now - self._table[-1][3] >= _PERIOD_MS:
            self._next = (self._next + 1) & 0xFFFF or 1
            kcr = self._random(_KCR_OCTETS)
            nonce = self._random(_NONCE_OCTETS)
            self._table = self._valid(now)
            self._table.append((self._next, nonce, kcr, now))
        return self._table[-1][:3]

    def find(self, now: int, index: int) -> tuple[int, bytes, bytes] | None:
        """Return (index, nonce, Kcr) of a nonce that is still accepted, else None."""
        for entry in self._valid(now):
            if entry[0] == index:
                return entry[:3]
        return None

    def _valid(self, now: int) -> list[tuple[int, bytes, bytes, int]]:
        return [entry for entry in self._table if now - entry[3] < _MAX_NONCE_LIFETIME_MS]


class Limiter:
    """So many events a second from one source and in all, in a table made here: a flood from any
    number of sources allocates nothing. `in_all` must be below the table's slots.
    """

    def __init__(self, per_source: int, in_all: int) -> None:
        self._per_source = per_source
        self._in_all = in_all
        self._second = -1
        self._total = 0
        self._keys = bytearray(4 * _SLOTS)
        self._counts = bytearray(_SLOTS)

    def allow(self, now: int, source: bytes) -> bool:
        """Count one event; return whether it is within both limits."""
        keys, counts = self._keys, self._counts
        if now // 1000 != self._second:
            self._second = now // 1000
            self._total = 0
            for i in range(_SLOTS):
                counts[i] = 0
        if self._total >= self._in_all:
            return False
        a, b, c, d = source
        i = (a * 11 ^ b * 7 ^ c * 5 ^ d) % _SLOTS
        while counts[i]:
            k = 4 * i
            if keys[k + 3] == d and keys[k + 2] == c and keys[k + 1] == b and keys[k] == a:
                break
            i = (i + 1) % _SLOTS
        if counts[i] >= self._per_source:
            return False
        k = 4 * i
        keys[k], keys[k + 1], keys[k + 2], keys[k + 3] = a, b, c, d
        counts[i] += 1
        self._total += 1
        return True
