"""Who has which address of the pool: a table of fixed size, and a file that is written sparingly.

Owns the rows and the file. Never sends. Times are seconds of the port's clock.
"""

import os
from hashlib import sha256

from haaro.compat import const

# A row: client (8 octets), Ethernet address (6), end in seconds (4), state, 0.
_ROW = const(20)
FREE, OFFERED, LEASED, BAD, ENDED = 0, 1, 2, 3, 4
# Nothing for so long after a change, and between two writings: flash wears.
_SETTLE_S = const(10)
_WRITE_S = const(300)
_HEADER = "haaro-leases/1"


def key_of(client: bytes | None, mac: bytes) -> bytes:
    """Return 8 octets that name a client: its identifier if it says one (RFC 2131 4.2)."""
    return b"\0\0" + mac if client is None else sha256(client).digest()[:8]


class Leases:
    """The rows of the addresses first to first + count - 1 (integers). path: file, None: none."""

    def __init__(self, first: int, count: int, lease_s: int, path: str | None, now: int) -> None:
        self.first = first
        self.count = count
        self.now = now
        self._lease_s = lease_s
        self._path = path
        self._rows = bytearray(count * _ROW)
        self._changed_at: int | None = None
        self._written_at = now - _WRITE_S
        self.writes = self.write_errors = 0
        self._load()

    def holds(self, address: bytes) -> bool:
        """Return whether `address` is one of the pool."""
        return 0 <= int.from_bytes(address, "big") - self.first < self.count

    def row_of(self, address: bytes) -> int:
        """Return the row of an address of the pool."""
        return int.from_bytes(address, "big") - self.first

    def address(self, row: int) -> bytes:
        """Return the address of a row."""
        return (self.first + row).to_bytes(4, "big")

    def state(self, row: int) -> int:
        """Return FREE, OFFERED, LEASED, BAD, or ENDED: free, and somebody's until now."""
        at = row * _ROW
        state = self._rows[at + 18]
        if state in (OFFERED, LEASED, BAD) and self._end(row) <= self.now:
            state = FREE if state != LEASED else ENDED
            self._rows[at + 18] = state
        return state

    def is_of(self, row: int, key: bytes) -> bool:
        """Return whether the row is, or was last, this client's."""
        return self._rows[row * _ROW : row * _ROW + 8] == key and self.state(row) not in (FREE, BAD)

    def find(self, key: bytes) -> int:
        """Return the client's row, -1: it has none."""
        for row in range(self.count):
            if self.is_of(row, key):
                return row
        return -1

    def spare(self, key: bytes, taken) -> int:
        """Return a row for a new client, -1: none. taken(address): it is not to be given.

        First what nobody had; where to begin depends on the client, so that it finds the same
        address after its lease was forgotten. Then what ended first.
        """
        begin = (key[-1] << 8 | key[-2]) % self.count
        best = -1
        for i in range(self.count):
            row = (begin + i) % self.count
            state = self.state(row)
            if state not in (FREE, ENDED) or taken(self.address(row)):
                continue
            if state == FREE:
                return row
            if best < 0 or self._end(row) < self._end(best):
                best = row
        return best

    def set(self, row: int, key: bytes, mac: bytes, state: int, seconds: int) -> None:
        """Change a row; it ends `seconds` from now."""
        at = row * _ROW
        rows = self._rows
        lasting = state in (LEASED, ENDED)
        # A renewal is not worth a writing: after a restart every lease is taken for new.
        changed = lasting and (rows[at + 18] != state or rows[at : at + 8] != key)
        if changed and self._changed_at is None:
            self._changed_at = self.now
        rows[at : at + 8] = key
        rows[at + 8 : at + 14] = mac
        rows[at + 14 : at + 18] = (self.now + seconds).to_bytes(4, "big")
        rows[at + 18] = state

    def counts(self) -> list:
        """Return how many rows are in each state."""
        counts = [0] * 5
        for row in range(self.count):
            counts[self.state(row)] += 1
        return counts

    def listed(self):
        """Yield (address, Ethernet address, seconds left) of each lease."""
        for row in range(self.count):
            if self.state(row) == LEASED:
                at = row * _ROW
                yield (
                    self.address(row),
                    bytes(self._rows[at + 8 : at + 14]),
                    self._end(row) - self.now,
                )

    def _end(self, row):
        at = row * _ROW + 14
        return int.from_bytes(self._rows[at : at + 4], "big")

    # The file: one line a lease, hexadecimal.

    def save(self, force: bool = False) -> None:
        """Write what has changed, if it is time: whole and beside, then renamed."""
        if self._changed_at is None or self._path is None:
            return
        due = max(self._changed_at + _SETTLE_S, self._written_at + _WRITE_S)
        if not force and self.now < due:
            return
        self._changed_at = None
        self._written_at = self.now
        try:
            with open(self._path + ".new", "w") as file:
                file.write("%s %d\n" % (_HEADER, self.first))
                for row in range(self.count):
                    if self.state(row) in (LEASED, ENDED):
                        at = row * _ROW
                        file.write("%d %s\n" % (row, _hex(self._rows[at : at + 14])))
                file.flush()
            os.rename(self._path + ".new", self._path)
            self.writes += 1
        except OSError:
            self.write_errors += 1

    def _load(self):
        if self._path is None:
            return
        try:
            with open(self._path) as file:
                if file.readline().strip() != "%s %d" % (_HEADER, self.first):
                    return  # of another pool
                for line in file:
                    row, _, rest = line.strip().partition(" ")
                    octets = bytes(int(rest[i : i + 2], 16) for i in range(0, 28, 2))
                    row = int(row)
                    if 0 <= row < self.count:
                        self.set(row, octets[:8], octets[8:], LEASED, self._lease_s)
        except OSError:
            pass  # the first start
        except ValueError:
            # What could be read counts; ARP finds the rest before it is offered.
            self.write_errors += 1
        self._changed_at = None


def _hex(octets):
    return "".join("%02x" % octet for octet in octets)
