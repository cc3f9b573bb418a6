"""Extensions of Mobile IP messages: framing (RFC 5944 1.8 to 1.11), a class and `append_*` a kind.

    short: Type | Length | Data, or Type | Length | Sub-Type | Data   Length counts all after it
    long:  Type | Sub-Type | Length (2) | Data                          only type 50 [A01]
    Type 0 is one octet of padding, anywhere [A48]

A class is made from (buf, off, end) of its Data and raises WireError(reason) if that is malformed.
Prefixes are masked to their length on reading [A49]. Nothing here knows of authentication.
"""

import struct
from hashlib import sha256

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import mask
from haaro.wire.prefixes import check_advertisement, iterate_advertisement, iterate_owners

MOBILE_HOME_AUTHENTICATION = const(32)
UDP_TUNNEL_REPLY = const(44)
ROUTE_OPTIMIZATION = const(49)
ROUTE_OPTIMIZATION_DATA = const(50)
NAI = const(131)
REVOCATION_SUPPORT = const(137)
UDP_TUNNEL_REQUEST = const(144)
MOBILE_NETWORK = const(148)
ROUTE_OPTIMIZATION_CAPABILITY = const(153)

MOBNET_INVALID_PREFIX_LEN = const(1)  # RFC 5177 4.2
MOBNET_UNAUTHORIZED = const(2)

MAX_EXTENSIONS = const(128)  # more: the message is dropped; bounds the objects a datagram makes
_FIRST_SKIPPABLE = const(128)
_PADDING = bytes(64)  # of a long run, this is passed in one step


class MobileNetworkRequest:
    """RFC 5177 4.1: `.prefix` (4 octets) / `.plen`; over 32 is kept, it must be refused by name."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off == 5, "mobnet_length")
        self.plen = buf[off]
        self.prefix = mask(buf[off + 1 : end], min(self.plen, 32))


class MobileNetworkAck:
    """RFC 5177 4.2: `.code` for `.prefix`/`.plen`; `.implicit` from the Sub-Type."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off == 7, "mobnet_length")
        self.code = buf[off]
        self.plen = buf[off + 1]
        _need(self.plen <= 32 or self.code != 0, "mobnet_plen")
        self.prefix = mask(buf[off + 3 : end], min(self.plen, 32))
        self.implicit = buf[off - 1] == 2


class UdpTunnelRequest:
    """RFC 3519 3.1: F, R, and the encapsulation wanted: 0 (by M and G), 4, 47 or 55."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off == 5, "udp_tunnel_length")
        _need(not buf[off + 3] and not buf[off + 4], "reserved_3")
        self.force = bool(buf[off + 1] & 0x80)
        self.through_fa = bool(buf[off + 1] & 0x40)
        self.encapsulation = buf[off + 2]


class UdpTunnelReply:
    """RFC 3519 3.2: `.will_tunnel` for codes 0..63; `.keepalive` s, 0: the router's default."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off == 5, "udp_tunnel_length")
        self.code = buf[off]
        self.will_tunnel = self.code < 64
        self.forced = bool(buf[off + 1] & 0x80)
        self.keepalive = buf[off + 3] << 8 | buf[off + 4]


class RouteOptimizationCapability:
    """RFC 6521 5.1: A, R, S, O, and the solicited router's home address if and only if S [A09]."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        flags = buf[off] if off < end else 0
        _need(end - off == (5 if flags & 0x20 else 1), "ro_cap_hoa_iff_s")
        self.advertise = bool(flags & 0x80)
        self.request = bool(flags & 0x40)
        self.solicit = bool(flags & 0x20)
        self.outbound_only = bool(flags & 0x10)
        self.home_address = buf[off + 1 : end] or None


class RouteOptimizationReply:
    """RFC 6521 5.2: O, N, S and a 5 bit code [A08]; `.accepted` for 0..15."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off == 1, "ro_reply_length")
        self.outbound_only = bool(buf[off] & 0x80)
        self.nat = bool(buf[off] & 0x40)
        self.solicited = bool(buf[off] & 0x20)
        self.code = buf[off] & 0x1F
        self.accepted = self.code < 16


class CareOfAddresses:
    """RFC 6521 5.4: `.addresses`, 1..63 times 4 octets in order of priority."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off >= 5 and (end - off) % 4 == 1, "coa_ext_length")
        self.addresses = [buf[i : i + 4] for i in range(off + 1, end, 4)]


class PrefixAdvertisement:
    """RFC 6521 5.5, checked as a whole when read [A52]; decoded again by each `routers()`.

    `.digest` is the hash of the octets: a list that was right when last read is right.
    """

    _right = b""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        octets = sha256()
        for at in range(off, end, 1024):  # in pieces: a copy of the whole could be 64 KB
            octets.update(buf[at : min(at + 1024, end)])
        self.digest = octets.digest()
        if self.digest != PrefixAdvertisement._right:
            check_advertisement(buf, off, end)
            PrefixAdvertisement._right = self.digest
        self._buf = buf
        self._off = off
        self._end = end

    @property
    def data(self) -> bytes:
        """The octets after the 4 octet extension header, copied."""
        return self._buf[self._off : self._end]

    def routers(self):
        """Iterate (home address, outbound only, [(prefix, plen, realm)]) in order of priority."""
        return iterate_advertisement(self._buf, self._off, self._end)

    def owners(self):
        """Iterate the home addresses alone, which takes half the time."""
        return iterate_owners(self._buf, self._off, self._end)

    def __iter__(self):
        return self.routers()


class RevocationSupport:
    """RFC 3543 3.2: I and the sender's 32 bit timestamp. A later version may be longer."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end - off >= 6, "revocation_length")
        self.i = bool(buf[off] & 0x80)
        self.timestamp: int = struct.unpack_from(">I", buf, off + 2)[0]


class Nai:
    """RFC 2794 2: `.value` octets, unchecked."""

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        _need(end > off, "nai_length")
        self.value = buf[off:end]


class Authenticator:
    """Stands for 32 and 49/2 in the table; registration.py reads them."""


_CLASSES = {
    (MOBILE_HOME_AUTHENTICATION, None): Authenticator,
    (NAI, None): Nai,
    (REVOCATION_SUPPORT, None): RevocationSupport,
    (UDP_TUNNEL_REPLY, 0): UdpTunnelReply,
    (ROUTE_OPTIMIZATION, 1): RouteOptimizationReply,
    (ROUTE_OPTIMIZATION, 2): Authenticator,
    (ROUTE_OPTIMIZATION, 3): CareOfAddresses,
    (ROUTE_OPTIMIZATION_DATA, 1): PrefixAdvertisement,
    (UDP_TUNNEL_REQUEST, 0): UdpTunnelRequest,
    (MOBILE_NETWORK, 0): MobileNetworkRequest,
    (MOBILE_NETWORK, 1): MobileNetworkAck,
    (MOBILE_NETWORK, 2): MobileNetworkAck,
    (ROUTE_OPTIMIZATION_CAPABILITY, 1): RouteOptimizationCapability,
}
_WITH_SUBTYPE = [kind for kind, subtype in _CLASSES if subtype is not None]


def walk(buf: bytes, off: int):
    """Iterate (class, type, subtype or None, extension offset, data offset, end), without padding.

    Class None is an unknown skippable extension: ignore it. Raises WireError ext_overrun,
    too_many_extensions or unknown_nonskippable (RFC 5944 1.8; A10 for subtypes of a known type).
    """
    size = len(buf)
    count = 0
    while off < size:
        kind = buf[off]
        while kind == 0:
            off += 64 if buf[off : off + 64] == _PADDING else 1
            if off == size:
                return
            kind = buf[off]
        start = off
        off += 1
        long = kind == ROUTE_OPTIMIZATION_DATA
        data = off + (3 if long else 1)
        if data > size:
            raise WireError("ext_overrun")
        off = data + (buf[off + 1] << 8 | buf[off + 2] if long else buf[off])
        if off > size:
            raise WireError("ext_overrun")
        count += 1
        if count > MAX_EXTENSIONS:
            raise WireError("too_many_extensions")
        subtype = None
        if long:
            subtype = buf[start + 1]
        elif kind in _WITH_SUBTYPE and data < off:
            subtype = buf[data]
            data += 1
        cls = _CLASSES.get((kind, subtype))
        if cls is None and kind < _FIRST_SKIPPABLE:
            raise WireError("unknown_nonskippable")
        yield cls, kind, subtype, start, data, off


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise WireError(reason)


def append_mobile_network_request(message: bytearray, prefix: bytes, plen: int) -> None:
    """RFC 5177 4.1."""
    message.extend(struct.pack(">BBBB4s", MOBILE_NETWORK, 6, 0, plen, prefix))


def append_mobile_network_ack(
    message: bytearray, code: int, prefix: bytes, plen: int, implicit: bool = False
) -> None:
    """RFC 5177 4.2."""
    kind = 2 if implicit else 1
    message.extend(struct.pack(">BBBBBB4s", MOBILE_NETWORK, 8, kind, code, plen, 0, prefix))


def append_udp_tunnel_request(
    message: bytearray, force: bool, encapsulation: int = 4, through_fa: bool = False
) -> None:
    """RFC 3519 3.1."""
    flags = (0x80 if force else 0) | (0x40 if through_fa else 0)
    message.extend(bytes([UDP_TUNNEL_REQUEST, 6, 0, 0, flags, encapsulation, 0, 0]))


def append_udp_tunnel_reply(message: bytearray, code: int, forced: bool, keepalive: int) -> None:
    """RFC 3519 3.2; keepalive in seconds."""
    flags = 0x8000 if forced else 0
    message.extend(struct.pack(">BBBBHH", UDP_TUNNEL_REPLY, 6, 0, code, flags, keepalive))


def append_route_optimization_capability(
    message: bytearray,
    advertise: bool,
    request: bool,
    outbound_only: bool = False,
    home_address: bytes | None = None,
) -> None:
    """RFC 6521 5.1; S is set exactly when a router is solicited by its `home_address`."""
    body = home_address or b""
    flags = (0x80 if advertise else 0) | (0x40 if request else 0)
    flags |= (0x20 if body else 0) | (0x10 if outbound_only else 0)
    message.extend(bytes([ROUTE_OPTIMIZATION_CAPABILITY, 2 + len(body), 1, flags]) + body)


def append_route_optimization_reply(
    message: bytearray, outbound_only: bool, nat: bool, solicited: bool, code: int = 0
) -> None:
    """RFC 6521 5.2; code 0..31 [A08]."""
    flags = (0x80 if outbound_only else 0) | (0x40 if nat else 0) | (0x20 if solicited else 0)
    message.extend(bytes([ROUTE_OPTIMIZATION, 2, 1, flags | code & 0x1F]))


def append_care_of_addresses(message: bytearray, addresses: list[bytes]) -> None:
    """RFC 6521 5.4; ValueError unless 1..63 addresses."""
    if not 1 <= len(addresses) <= 63:
        raise ValueError("1 to 63 care-of addresses")
    message.extend(bytes([ROUTE_OPTIMIZATION, 2 + 4 * len(addresses), 3, 0]))
    message.extend(b"".join(addresses))


def append_prefix_advertisement(message: bytearray, data: bytes) -> None:
    """RFC 6521 5.5; `data` as prefixes.build_advertisement made it."""
    message.extend(struct.pack(">BBH", ROUTE_OPTIMIZATION_DATA, 1, len(data)) + data)


def append_revocation_support(message: bytearray, i: bool, timestamp: int) -> None:
    """RFC 3543 3.2."""
    message.extend(struct.pack(">BBHI", REVOCATION_SUPPORT, 6, 0x8000 if i else 0, timestamp))


def append_nai(message: bytearray, value: bytes) -> None:
    """RFC 2794 2; 1..255 octets."""
    message.extend(bytes([NAI, len(value)]) + value)
