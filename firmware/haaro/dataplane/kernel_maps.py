"""What the kernel plane's maps hold, as lines of a `bpftool batch`.

Owns the layouts of firmware/kernel_plane/haaro.bpf.c and what a prefix inherits from a shorter
one. Pure: `file` is anything to write to. Called by dataplane/kernel.py.
"""

import os
import struct

from haaro.compat import const

# enum counter of haaro.bpf.c
COUNTERS = (
    "out_forwarded",
    "in_forwarded",
    "out_bad_checksum",
    "out_foreign_source",
    "out_not_unicast",
    "out_own_destination",
    "out_tunnel_end_destination",
    "out_no_route",
    "out_tunnel_down",
    "in_bad_checksum",
    "in_not_unicast",
    "in_own_source",
    "in_tunnel_end_source",
    "in_unconfirmed_source",
    "in_tunnel_end_destination",
    "in_foreign_destination",
    "in_congestion_unmarked",
)

TUNNEL = 24  # octets of struct tunnel

ROW = 10  # octets of a prefix while its table is made

OWN = 1
HOME = 2
END = 4
LOCAL = 8

_NONE = const(0xFFFF)
_END = const(20)  # octets of a tunnel end and its slot
_END_KEY = const(16)
_EPOCH = const(24)  # offset in struct settings
_MAX_LANS = const(8)

# Offsets in a row, after its address and length.
_LENGTH = const(4)
_ROUTE = const(5)
_SOURCE = const(6)
_BITS = const(7)
_LAN = const(8)
_HINT = const(9)
# Bits: the flags of struct entry, and what the row sets itself, so does not inherit.
_FLAGS = const(0x0F)
_ROUTE_SET = const(0x10)
_SOURCE_SET = const(0x20)
_LAN_SET = const(0x40)
_HINTED = const(0x80)


class Rows:
    """Prefixes in a buffer of others, 10 octets each, sorted: a shorter one before what it holds.

     0       1       2       3       4       5       6       7       8       9
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+
    | address                       | length| route | source| bits  | LAN   | hint  |
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+

    route, source: tunnel. The heap of a router is in pieces, a dict of as many has no room there.
    What finds none is left out and counted in `omitted`.
    """

    def __init__(self, buffer: bytearray, rows: bytes) -> None:
        self._data = buffer
        self._view = memoryview(buffer)
        self._view[: len(rows)] = rows
        self.count = len(rows) // ROW
        self.omitted = 0

    def copy(self) -> bytes:
        """Return the rows there are."""
        return bytes(self._view[: self.count * ROW])

    def route(self, prefix: bytes, length: int, tunnel: int, hint: int) -> None:
        """Say where a prefix goes, tunnel -1 = nowhere; of two that say so the first wins."""
        at = self._at(prefix, length)
        if at < 0 or self._data[at + _BITS] & _ROUTE_SET:
            return
        self._data[at + _BITS] |= _ROUTE_SET | (0 if hint < 0 else _HINTED)
        self._data[at + _ROUTE] = tunnel & 255
        self._data[at + _HINT] = hint & 255

    def source(self, prefix: bytes, length: int, tunnel: int) -> None:
        """Say by which tunnel packets from a prefix may come; the first wins."""
        at = self._at(prefix, length)
        if at >= 0 and not self._data[at + _BITS] & _SOURCE_SET:
            self._data[at + _BITS] |= _SOURCE_SET
            self._data[at + _SOURCE] = tunnel

    def flag(self, prefix: bytes, length: int, flags: int) -> None:
        """Add flags to a prefix and all it holds."""
        at = self._at(prefix, length)
        if at >= 0:
            self._data[at + _BITS] |= flags

    def own(self, networks: list, home_address: bytes, ends: list) -> None:
        """Add the flags of own networks, home address and tunnel ends."""
        # Everywhere else is in the table too: what is there is known not to be ours.
        self.flag(bytes(4), 0, 0)
        for prefix, length in networks:
            self.flag(prefix, length, OWN)
        self.flag(home_address, 32, HOME)
        for end in ends:
            self.flag(end, 32, END)

    def kernels(self, networks: list, local: list, connected: list) -> None:
        """Add what the kernel routes elsewhere, and each LAN interface's (address4, length)."""
        for prefix, length in local:
            self.flag(prefix, length, LOCAL)
        for i, addresses in enumerate(connected):
            for address, length in addresses:
                self.lan(networks, address, length, i + 1)

    def lan(self, networks: list, address: bytes, length: int, lan: int) -> None:
        """Say that hosts of an own network beside LAN interface `lan`, at `address`, are reached by
        ARP; not so the router itself, and the two addresses that are everyone's.
        """
        high = int.from_bytes(address, "big") | (1 << 32 - length) - 1
        low = high - (1 << 32 - length) + 1
        for prefix, plen in networks:
            first = int.from_bytes(prefix, "big")
            last = first | (1 << 32 - plen) - 1
            if low <= first and last <= high:
                self._set_lan(prefix, plen, lan)
            elif first <= low and high <= last:
                self._set_lan(low.to_bytes(4, "big"), length, lan)
        for own in (address, low.to_bytes(4, "big"), high.to_bytes(4, "big")):
            self._set_lan(own, 32, 0)

    def _set_lan(self, prefix, length, lan):
        at = self._at(prefix, length)
        if at >= 0:
            self._data[at + _BITS] |= _LAN_SET
            self._data[at + _LAN] = lan

    def _at(self, prefix, length):
        """Return the offset of a prefix's row, made if there was none, -1 if there is no room."""
        key = prefix + bytes((length,))
        low = 0
        high = self.count
        while low < high:
            middle = low + high >> 1
            at = middle * ROW
            if bytes(self._view[at : at + 5]) < key:
                low = middle + 1
            else:
                high = middle
        at = low * ROW
        if low < self.count and self._view[at : at + 5] == key:
            return at
        end = self.count * ROW
        if end + ROW > len(self._data):
            self.omitted += 1
            return -1
        self._view[at + ROW : end + ROW] = self._view[at:end]
        self._view[at : at + ROW] = key + b"\xff\xff\0\0\0"
        self.count += 1
        return at

    def hand_down(self) -> None:
        """Give every prefix what it inherits; what it set itself is told no more."""
        data = self._data
        above: list = []  # (last address, offset) of the prefixes around this one, outermost first
        for at in range(0, self.count * ROW, ROW):
            first = int.from_bytes(data[at : at + 4], "big")
            while above and above[-1][0] < first:
                above.pop()
            if above:
                self._inherit(at, above[-1][1])
            above.append((first | (1 << 32 - data[at + _LENGTH]) - 1, at))
            data[at + _BITS] &= _FLAGS | _HINTED
            if not data[at + _BITS] & _HINTED:
                data[at + _HINT] = 0

    def write(self, file, path: str, first_slot: int) -> None:
        """Write every prefix with what holds for it (struct entry), after `hand_down`."""
        for at in range(0, self.count * ROW, ROW):
            self._write_row(file, path, first_slot, at)

    def write_changes(self, file, path: str, first_slot: int, before: bytes) -> bool:
        """Write what differs from rows that were handed down before; False if nothing does.

        First what there is, the longer prefixes before those that hold them; then what goes, these
        after those. So every address has its old word or its new one, also between two lines.
        """
        data = self._data
        end = self.count * ROW
        changed = False
        old = len(before)
        for at in range(end - ROW, -ROW, -ROW):
            key = data[at : at + _ROUTE]
            while old > 0 and before[old - ROW : old - ROW + _ROUTE] > key:
                old -= ROW
            if old == 0 or before[old - ROW : old] != data[at : at + ROW]:
                self._write_row(file, path, first_slot, at)
                changed = True
        at = 0
        for old in range(0, len(before), ROW):
            gone = before[old : old + _ROUTE]
            while at < end and data[at : at + _ROUTE] < gone:
                at += ROW
            if at == end or data[at : at + _ROUTE] != gone:
                delete(file, path, struct.pack("@I", gone[_LENGTH]) + gone[:_LENGTH])
                changed = True
        return changed

    def _write_row(self, file, path, first_slot, at):
        data = self._data
        bits = data[at + _BITS]
        entry = struct.pack(
            "@HHHBB",
            _slot(first_slot, data[at + _ROUTE]),
            _slot(first_slot, data[at + _SOURCE]),
            data[at + _HINT] if bits & _HINTED else _NONE,
            bits & _FLAGS,
            data[at + _LAN],
        )
        update(file, path, struct.pack("@I", data[at + _LENGTH]) + data[at : at + 4], entry)

    def _inherit(self, at, above):
        data = self._data
        bits = data[at + _BITS]
        upper = data[above + _BITS]
        bits |= upper & _FLAGS
        if not bits & _ROUTE_SET:
            data[at + _ROUTE] = data[above + _ROUTE]
            data[at + _HINT] = data[above + _HINT]
            bits |= upper & _HINTED
        if not bits & _SOURCE_SET:
            data[at + _SOURCE] = data[above + _SOURCE]
        if not bits & _LAN_SET:
            data[at + _LAN] = data[above + _LAN]
        data[at + _BITS] = bits


def _slot(first, tunnel):
    return _NONE if tunnel == 255 else first + tunnel


def tunnel(
    local: bytes, remote: bytes, port: int, link: int, via: bytes, mtu: int, up: int, direct: bool
) -> bytes:
    """Return struct tunnel. link: index of the interface; without a next hop `via` none is used.

    up: 2 if TCP is told of the MTU, else 1.
    """
    header = b"\x45\0\0\0\0\0\0\0\x40\x11\0\0" + local + remote
    words = 0
    for word in struct.unpack("@10H", header):
        words += word
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    ends = local + remote + (via or bytes(4)) + struct.pack("@I", link if via else 0)
    return ends + struct.pack(">H", port) + struct.pack("@HHBB", mtu, words, up, direct)


def table(file, path: str) -> None:
    """Make the map of prefixes."""
    file.write("map create %s type lpm_trie key 8 value 8 entries 16384 name table " % path)
    file.write("flags 1\n")


def ends(file, path: str, rows: bytes) -> None:
    """Make the map of tunnel ends. rows: struct end and slot, 20 octets each."""
    file.write("map create %s type hash key 16 value 4 entries 260 name ends\n" % path)
    added_ends(file, path, b"", rows)


def added_ends(file, path: str, before: bytes, rows: bytes) -> None:
    """Write the ends that are not the same in `before`."""
    for at in range(0, len(rows), _END):
        if not _has(before, rows[at : at + _END]):
            update(file, path, rows[at : at + _END_KEY], rows[at + _END_KEY : at + _END])


def gone_ends(file, path: str, before: bytes, rows: bytes) -> None:
    """Delete the ends of `before` that are no more."""
    for at in range(0, len(before), _END):
        if not _has(rows, before[at : at + _END_KEY]):
            delete(file, path, before[at : at + _END_KEY])


def _has(rows, wanted):
    at = rows.find(wanted)
    while at >= 0 and at % _END:
        at = rows.find(wanted, at + 1)
    return at >= 0


def settings(file, maps: str, value: bytes) -> None:
    """Write struct settings, after what it tells of: what the programs remember ends with it."""
    epoch = b"\1" + os.urandom(3)
    update(file, maps + "/settings", bytes(4), value[:_EPOCH] + epoch + value[_EPOCH:])


def links(pair: tuple, ethernet: bytes, lans: list) -> bytes:
    """Return struct settings without its epoch.

    pair: index of the kernel's and of our end. ethernet: 14 octets. lans: (index, mtu ...) of each.
    """
    value = struct.pack("@II", *pair) + bytes(ethernet) + bytes(2)
    for i in range(_MAX_LANS):
        value += struct.pack("@II", *(lans[i][:2] if i < len(lans) else (0, 0)))
    return value


def point(file, maps: str, kind: str, at: int, path: str) -> None:
    """Put the map pinned at `path` in force as [at] of table_now or ends_now."""
    file.write("map update pinned %s/%s_now key hex" % (maps, kind))
    file.write("%s value pinned %s\n" % (_hex(struct.pack("@I", at)), path))


def update(file, path: str, key: bytes, value: bytes) -> None:
    """Write one entry of a map."""
    file.write("map update pinned %s key hex%s value hex%s\n" % (path, _hex(key), _hex(value)))


def delete(file, path: str, key: bytes) -> None:
    """Delete one entry of a map."""
    file.write("map delete pinned %s key hex%s\n" % (path, _hex(key)))


def _hex(octets):
    return " " + octets.hex(" ")
