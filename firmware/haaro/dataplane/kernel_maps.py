"""What the kernel plane's maps hold, as lines of a `bpftool batch`.

Owns the layouts of firmware/kernel_plane/haaro.bpf.c and what a prefix inherits from a shorter one.
Pure: `file` is anything to write to. Called by dataplane/kernel.py.
"""

import struct

from haaro.compat import const

TUNNEL = 24  # octets of struct tunnel

_NONE = const(0xFFFF)
_OWN = const(1)
_HOME = const(2)
_END = const(4)
_LOCAL = const(8)
_MAX_LANS = const(8)

# A prefix while its table is made, in one integer: what was set here, and is not inherited ...
_ROUTE_SET = const(1 << 0)
_SOURCE_SET = const(1 << 1)
_LAN_SET = const(1 << 2)
# ... and the fields, by their shift: route, source, LAN and hint as number + 1, 0 = none.
_ROUTE = const(3)
_SOURCE = const(10)
_LAN = const(17)
_FLAGS = const(21)
_HINT = const(25)
_SMALL = const(127)
_FOUR = const(15)
_LONG = const(0x1FFFF)


def collect(routes: list, sources: list, networks: list, home_address: bytes, ends: list) -> dict:
    """Return {first address << 6 | length: value} of all prefixes; the first listed wins.

    routes: (prefix4, length, tunnel, hint), negative = none. sources: (prefix4, length, tunnel).
    """
    rows: dict = {0: 0}
    for prefix, length, tunnel, hint in routes:
        value = tunnel + 1 << _ROUTE | hint + 1 << _HINT if tunnel >= 0 else 0
        _set(rows, prefix, length, _ROUTE_SET, value)
    for prefix, length, tunnel in sources:
        _set(rows, prefix, length, _SOURCE_SET, tunnel + 1 << _SOURCE)
    for prefix, length in networks:
        _set(rows, prefix, length, 0, _OWN << _FLAGS)
    _set(rows, home_address, 32, 0, _HOME << _FLAGS)
    for end in ends:
        _set(rows, end, 32, 0, _END << _FLAGS)
    return rows


def collect_lans(rows: dict, networks: list, local: list, connected: list) -> None:
    """Add what packets that pass by the kernel's forwarding must respect.

    local: prefixes that the kernel routes elsewhere than into the tunnels. connected: for each LAN
    interface its (address4, length): hosts of an own network there are reached by ARP, but not the
    router's own address and the two that are everyone's.
    """
    for prefix, length in local:
        _set(rows, prefix, length, 0, _LOCAL << _FLAGS)
    for i, addresses in enumerate(connected):
        for address, length in addresses:
            low = int.from_bytes(address, "big") & -1 << 32 - length & 0xFFFFFFFF
            high = low | (1 << 32 - length) - 1
            for prefix, plen in networks:
                first = int.from_bytes(prefix, "big")
                if low <= first and first | (1 << 32 - plen) - 1 <= high:
                    _set(rows, prefix, plen, _LAN_SET, i + 1 << _LAN)
                elif first <= low and high <= first | (1 << 32 - plen) - 1:
                    _set(rows, low.to_bytes(4, "big"), length, _LAN_SET, i + 1 << _LAN)
    for addresses in connected:
        for address, length in addresses:
            low = int.from_bytes(address, "big") & -1 << 32 - length & 0xFFFFFFFF
            for own in (int.from_bytes(address, "big"), low, low | (1 << 32 - length) - 1):
                key = own << 6 | 32
                rows[key] = rows.get(key, 0) & ~(_FOUR << _LAN) | _LAN_SET


def table(file, path: str, rows: dict, first_slot: int) -> None:
    """Write every prefix with what holds for it, its own or inherited (struct entry)."""
    above: list = []  # (last address, value) of the prefixes around this one, outermost first
    for key in sorted(rows):
        first = key >> 6
        length = key & 63
        value = rows[key]
        while above and above[-1][0] < first:
            above.pop()
        if above:
            value = _inherit(value, above[-1][1])
        above.append((first | (1 << 32 - length) - 1, value))
        route = value >> _ROUTE & _SMALL
        source = value >> _SOURCE & _SMALL
        entry = struct.pack(
            "@HHHBB",
            first_slot + route - 1 if route else _NONE,
            first_slot + source - 1 if source else _NONE,
            (value >> _HINT & _LONG) - 1 & _NONE,
            value >> _FLAGS & _FOUR,
            value >> _LAN & _FOUR,
        )
        update(file, path, struct.pack("@I", length) + first.to_bytes(4, "big"), entry)


def tunnel(
    local: bytes, remote: bytes, port: int, link: int, via: bytes, mtu: int, direct: bool
) -> bytes:
    """Return struct tunnel. link: index of the interface; without a next hop `via` none is used."""
    header = b"\x45\0\0\0\0\0\x40\0\x40\x11\0\0" + local + remote
    words = 0
    for word in struct.unpack("@10H", header):
        words += word
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    ends = local + remote + (via or bytes(4)) + struct.pack("@I", link if via else 0)
    return ends + struct.pack(">H", port) + struct.pack("@HHBB", mtu, words, 1, direct)


def settings(file, maps: str, pair: tuple, ethernet: bytes, lans: list) -> None:
    """Write struct settings. pair: index of the kernel's and of our end. lans: (index, mtu)."""
    value = struct.pack("@II", *pair) + bytes(ethernet) + bytes(2)
    for i in range(_MAX_LANS):
        value += struct.pack("@II", *(lans[i] if i < len(lans) else (0, 0)))
    update(file, maps + "/settings", bytes(4), value)


def point(file, maps: str, kind: str, at: int, path: str) -> None:
    """Put the map pinned at `path` in force as [at] of table_now or ends_now."""
    file.write("map update pinned %s/%s_now key hex" % (maps, kind))
    file.write("%s value pinned %s\n" % (_hex(struct.pack("@I", at)), path))


def update(file, path: str, key: bytes, value: bytes) -> None:
    """Write one entry of a map."""
    file.write("map update pinned %s key hex%s value hex%s\n" % (path, _hex(key), _hex(value)))


def _set(rows, prefix, length, bit, value):
    key = int.from_bytes(prefix, "big") << 6 | length
    there = rows.get(key, 0)
    if not there & bit:
        rows[key] = there | value | bit


def _inherit(value, above):
    value |= above & _FOUR << _FLAGS
    if not value & _ROUTE_SET:
        value |= above & (_SMALL << _ROUTE | _LONG << _HINT)
    if not value & _SOURCE_SET:
        value |= above & _SMALL << _SOURCE
    if not value & _LAN_SET:
        value |= above & _FOUR << _LAN
    return value


def _hex(octets):
    text = octets.hex()
    return "".join([" " + text[i : i + 2] for i in range(0, len(text), 2)])
