"""Prefix compression (RFC 6521 4.1) and the data of the Prefix Advertisement Extension (5.5).

    D M PLen/Info(6) | M=1: Mobile Router HoA (4)
                     | M=0: Prefix, D=0: 0..4 octets, D=1: one octet ending at bit PLen; then Realm

Structures in priority order; the first is an HoA. Readings A12 to A19, A50, A51.
"""

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import mask
from haaro.wire.realms import RealmDecoder, RealmEncoder

_D = const(0x80)
_M = const(0x40)
_INFO = const(0x3F)
_OUTBOUND_ONLY = const(1)


class PrefixEncoder:
    """Delta compression of prefixes; one instance for one Prefix Advertisement."""

    def __init__(self) -> None:
        self._master = 0
        self._master_plen = -1

    def encode(self, prefix: bytes, plen: int) -> tuple[int, bytes]:
        """Return (D, octets) for prefix/plen; host bits are cleared."""
        value = int.from_bytes(mask(prefix, plen), "big")
        # Never a delta shorter than /8 [A13], nor one copying bits the master does not have [A50].
        if 8 <= plen <= self._master_plen + 8 and not (value ^ self._master) >> (40 - plen):
            return 1, bytes([(value >> (32 - plen)) & 0xFF])
        self._master = value
        self._master_plen = plen
        return 0, value.to_bytes(4, "big")[: (plen + 7) // 8]


class PrefixDecoder:
    """The mirror of PrefixEncoder."""

    def __init__(self) -> None:
        self._master = -1

    def decode(self, delta: int, plen: int, buf: bytes, off: int, end: int) -> tuple[bytes, int]:
        """Return (4 octets with host bits cleared, offset after the field); WireError as `skip`."""
        stop = self.skip(delta, plen, off, end)
        bits = 32 - plen
        if delta:
            value = self._master >> (bits + 8) << (bits + 8) | buf[off] << bits
        else:
            value = int.from_bytes(buf[off:stop], "big") << 8 * (off + 4 - stop) >> bits << bits
            self._master = value
        return value.to_bytes(4, "big"), stop

    def skip(self, delta: int, plen: int, off: int, end: int) -> int:
        """Check one field, return the offset after it.

        WireError plen_33_63, delta_without_master, delta_plen_below_8, advertisement_truncated.
        """
        if plen > 32:
            raise WireError("plen_33_63")
        stop = off + (1 if delta else (plen + 7) // 8)
        if stop > end:
            raise WireError("advertisement_truncated")
        if not delta:
            self._master = 0  # there is one; only `decode` wants to know which
        elif self._master < 0:
            raise WireError("delta_without_master")
        elif plen < 8:
            raise WireError("delta_plen_below_8")
        return stop


def build_advertisement(routers: list, limit: int | None = None) -> tuple[bytes, int]:
    """Return (extension data, number of routers that are in it completely).

    `routers` is [(home address, outbound only, [(prefix, plen, realm)])] in priority order; the
    data is cut before the first structure that ends over `limit` octets. ValueError on a bad realm.
    """
    limit = 0xFFFF if limit is None else limit
    prefixes = PrefixEncoder()
    realms = RealmEncoder()
    out = bytearray()
    complete = 0
    for home_address, outbound_only, networks in routers:
        if len(out) + 5 > limit:
            break
        out.append(_M | (_OUTBOUND_ONLY if outbound_only else 0))
        out.extend(home_address)
        for prefix, plen, realm in networks:
            delta, octets = prefixes.encode(prefix, plen)
            octets += realms.encode(realm)
            if len(out) + 1 + len(octets) > limit:
                return bytes(out), complete
            out.append((_D if delta else 0) | plen)
            out.extend(octets)
        complete += 1
    return bytes(out), complete


def check_advertisement(buf: bytes, off: int, end: int) -> None:
    """Decode buf[off:end] and throw the result away, in constant memory.

    Raises WireError advertisement_empty, advertisement_truncated, first_not_hoa, info_2_63, and
    those of PrefixDecoder and RealmDecoder.
    """
    for _ in _structures(buf, off, end, False):
        pass


def iterate_advertisement(buf: bytes, off: int, end: int):
    """Yield (home address, outbound only, [(prefix, plen, realm)]) in order; WireError as above."""
    networks: list = []
    owner = outbound_only = None
    for outbound, home_address, network in _structures(buf, off, end, True):
        if home_address is None:
            networks.append(network)
            continue
        if owner is not None:
            yield owner, outbound_only, networks
        owner, outbound_only, networks = home_address, outbound, []
    yield owner, outbound_only, networks


def iterate_owners(buf: bytes, off: int, end: int):
    """Yield the home addresses in order; WireError as above."""
    for _, home_address, _ in _structures(buf, off, end, False):
        yield home_address


def _structures(buf: bytes, off: int, end: int, text: bool):
    """Yield (outbound only, HoA, None) or, only if `text`, (None, None, (prefix, plen, realm))."""
    if off >= end:
        raise WireError("advertisement_empty")
    if not buf[off] & _M:
        raise WireError("first_not_hoa")
    prefixes = PrefixDecoder()
    realms = RealmDecoder()
    while off < end:
        head = buf[off]
        info = head & _INFO
        off += 1
        if head & _M:
            if info > _OUTBOUND_ONLY:
                raise WireError("info_2_63")
            if off + 4 > end:
                raise WireError("advertisement_truncated")
            yield info == _OUTBOUND_ONLY, bytes(buf[off : off + 4]), None
            off += 4
            continue
        if text:
            prefix, off = prefixes.decode(head & _D, info, buf, off, end)
            realm, off = realms.decode(buf, off, end)
            yield None, None, (prefix, info, realm)
        else:
            off = realms.skip(buf, prefixes.skip(head & _D, info, off, end), end)
