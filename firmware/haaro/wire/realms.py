"""Realm compression (RFC 6521 4.2), readings A20 to A29 and A54, A55.

A realm is a string with one character an octet, labels joined by dots; on the wire tags, then 0:

    0 LENGTH(7) label...    a literal label, 1..127 octets; goes into the dictionary at once
    1 INDEX(7)              a dictionary string: one label or several joined by dots

The dictionary holds 128 strings and rolls over; it starts empty for each Prefix Advertisement.
"""

from haaro.compat import const
from haaro.wire.errors import WireError

DICTIONARY_STRINGS = const(128)
MAX_REALM = const(253)  # RFC 4282 2.2 [A22]; also bounds the work of one tag
_MAX_LABEL = const(127)
_DOT = const(0x2E)


class RealmEncoder:
    """The compressor: one instance for one Prefix Advertisement."""

    def __init__(self) -> None:
        self._slots: list[str] = []
        self._next = 0

    def encode(self, realm: str) -> bytes:
        """Return the tags of `realm` and the end mark; ValueError when it cannot be a realm."""
        out = bytearray()
        labels = realm.split(".") if realm else []
        if len(realm) > MAX_REALM:
            raise ValueError("realm over 253 octets")
        for label in labels:
            if not 0 < len(label) <= _MAX_LABEL or min(label) == "\0" or max(label) > "\xff":
                raise ValueError("bad label in realm")
        run = 0  # the "longest non-matching string" is labels[run:i]
        i = 0
        while i < len(labels):
            end = len(labels)
            index = self._find(labels, i, end)
            while index < 0 and end > i + 1:
                end -= 1
                index = self._find(labels, i, end)
            if index >= 0:
                out.append(0x80 | index)
                i = run = end
            else:
                out.append(len(labels[i]))
                out.extend(bytes([ord(c) for c in labels[i]]))
                self._insert(labels[i])
                i += 1
        while run < i - 1:  # longest suffix first [A25]
            self._insert(".".join(labels[run:i]))
            run += 1
        out.append(0)
        return bytes(out)

    def _find(self, labels: list[str], start: int, end: int) -> int:
        wanted = ".".join(labels[start:end])
        return self._slots.index(wanted) if wanted in self._slots else -1

    def _insert(self, string: str) -> None:
        if len(self._slots) < DICTIONARY_STRINGS:
            self._slots.append(string)
        else:
            self._slots[self._next] = string
        self._next = (self._next + 1) % DICTIONARY_STRINGS


class RealmDecoder:
    """The mirror of the compressor. All realms given to one instance must lie in the same buffer.

    Each dictionary string is a run of literal labels of that buffer, so a slot is only
    offset << 8 | octets: no string exists before a caller wants one, and checking costs no heap.
    """

    def __init__(self) -> None:
        self._slots = [0] * DICTIONARY_STRINGS  # 0: never written
        self._next = 0
        self._last = ""

    def decode(self, buf: bytes, off: int, end: int | None = None) -> tuple[str, int]:
        """Return (realm, offset after its end mark); WireError as `skip`."""
        pieces: list[int] = []
        off = self.skip(buf, off, end, pieces)
        out = bytearray()
        for piece in pieces:
            at = piece >> 8
            stop = at + (piece & 0xFF)
            while at < stop:
                if out:
                    out.append(_DOT)
                n = buf[at]
                out.extend(buf[at + 1 : at + 1 + n])
                at += 1 + n
        plain = not out or max(out) < 0x80
        realm = str(out, "utf-8") if plain else "".join([chr(c) for c in out])
        if realm != self._last:  # equal neighbours share one string
            self._last = realm
        return self._last, off

    def skip(
        self, buf: bytes, off: int, end: int | None = None, pieces: list[int] | None = None
    ) -> int:
        """Check one realm, update the dictionary, return the offset after its end mark.

        `pieces` collects offset << 8 | octets of its parts. Raises WireError realm_truncated,
        realm_index_unset, realm_label or realm_too_long.
        """
        end = len(buf) if end is None else end
        total = -1
        run = off
        while True:
            if off >= end:
                raise WireError("realm_truncated")
            tag = buf[off]
            if tag == 0:
                break
            if tag & 0x80:
                piece = self._slots[tag & 0x7F]
                if not piece:
                    raise WireError("realm_index_unset")
                off += 1
                run = off
            else:
                piece = off << 8 | tag
                self._check_label(buf, off + 1, off + 1 + tag, end)
                self._insert(piece)
                off += 1 + tag
            total += 1 + (piece & 0xFF)
            if total > MAX_REALM:
                raise WireError("realm_too_long")
            if pieces is not None:
                pieces.append(piece)
        while (
            run < off and run + 1 + buf[run] < off
        ):  # suffixes of two labels or more, longest first
            self._insert(run << 8 | off - run - 1)
            run += 1 + buf[run]
        return off + 1

    def _check_label(self, buf: bytes, start: int, stop: int, end: int) -> None:
        if stop > end:
            raise WireError("realm_truncated")
        for i in range(start, stop):
            octet = buf[i]
            if octet == 0 or octet == _DOT:
                raise WireError("realm_label")  # it would alias a list of labels [A23]

    def _insert(self, piece: int) -> None:
        self._slots[self._next] = piece
        self._next = (self._next + 1) % DICTIONARY_STRINGS
