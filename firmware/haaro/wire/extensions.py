"""Extensions of Mobile IP messages: framing (RFC 5944 1.8 to 1.11) and one class and `append_*` a kind.

    short: Type | Length | Data, or Type | Length | Sub-Type | Data        Length counts all after itself
    long:  Type | Sub-Type | Length (2) | Data                             only type 50 [A01]
    Type 0 is one octet of padding, anywhere [A48]

Readers take (buf, off, end) of the Data and raise WireError(reason) when it is malformed; nothing here knows of
authentication. Prefixes are masked to their length on reading [A49].
"""

import struct

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import mask
from haaro.wire.prefixes import check_advertisement, iterate_advertisement

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
MOBNET_FWDING_SETUP_FAILED = const(3)

MAX_EXTENSIONS = const(128)  # a message with more is dropped: bounds the objects one datagram can make
_FIRST_SKIPPABLE = const(128)
_PLAIN = (MOBILE_HOME_AUTHENTICATION, NAI, REVOCATION_SUPPORT)
_WITH_SUBTYPE = (
    UDP_TUNNEL_REPLY,
    ROUTE_OPTIMIZATION,
    UDP_TUNNEL_REQUEST,
    MOBILE_NETWORK,
    ROUTE_OPTIMIZATION_CAPABILITY,
)


def walk(buf: bytes, off: int):  # type: ignore[no-untyped-def]
    """Yield (type, subtype or None, extension offset, data offset, end) to the end of `buf`, padding left out.

    Raises WireError ext_overrun, too_many_extensions, or unknown_nonskippable (RFC 5944 1.8, A10). An unknown
    skippable type or subtype is yielded: the caller ignores what `reader` does not know.
    """
    size = len(buf)
    count = 0
    while off < size:
        start = off
        kind = buf[off]
        off += 1
        if kind == 0:
            continue
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
        if kind < _FIRST_SKIPPABLE and not is_known(kind, subtype):
            raise WireError("unknown_nonskippable")
        yield kind, subtype, start, data, off


class MobileNetworkRequest:
    """RFC 5177 4.1: explicit mode asks for `.prefix` (4 octets) / `.plen`."""

    type = MOBILE_NETWORK
    subtype = 0
    single = False

    def __init__(self, plen: int, prefix: bytes) -> None:
        self.plen = plen
        self.prefix = prefix

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "MobileNetworkRequest":
        """Reasons: mobnet_length, mobnet_plen."""
        _need(end - off == 5, "mobnet_length")
        _need(buf[off] <= 32, "mobnet_plen")
        return MobileNetworkRequest(buf[off], mask(bytes(buf[off + 1 : end]), buf[off]))


class MobileNetworkAck:
    """RFC 5177 4.2: `.code` for `.prefix`/`.plen`; a refused prefix is as the router sent it."""

    type = MOBILE_NETWORK
    subtype = 1
    single = False

    def __init__(self, code: int, plen: int, prefix: bytes, implicit: bool) -> None:
        self.code = code
        self.plen = plen
        self.prefix = prefix
        self.implicit = implicit

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "MobileNetworkAck":
        """Reasons: mobnet_length, mobnet_plen (a length over 32 can only be acknowledged as refused)."""
        _need(end - off == 7, "mobnet_length")
        code = buf[off]
        plen = buf[off + 1]
        _need(plen <= 32 or code != 0, "mobnet_plen")
        prefix = bytes(buf[off + 3 : end])
        return MobileNetworkAck(code, plen, prefix if plen > 32 else mask(prefix, plen), buf[off - 1] == 2)


class UdpTunnelRequest:
    """RFC 3519 3.1: F, R, and the encapsulation wanted (0 by M and G, 4, 47, 55)."""

    type = UDP_TUNNEL_REQUEST
    subtype = 0
    single = True

    def __init__(self, force: bool, through_fa: bool, encapsulation: int) -> None:
        self.force = force
        self.through_fa = through_fa
        self.encapsulation = encapsulation

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "UdpTunnelRequest | None":
        """None when Reserved 3 is set: RFC 3519 3.1.3 wants it handled as not understood. Reason: udp_length."""
        _need(end - off == 5 + 0, "udp_tunnel_length")
        if buf[off + 3] or buf[off + 4]:
            return None
        return UdpTunnelRequest(bool(buf[off + 1] & 0x80), bool(buf[off + 1] & 0x40), buf[off + 2])


class UdpTunnelReply:
    """RFC 3519 3.2: `.will_tunnel` for codes 0..63; `.keepalive` in seconds, 0 means the router's own default."""

    type = UDP_TUNNEL_REPLY
    subtype = 0
    single = True

    def __init__(self, code: int, forced: bool, keepalive: int) -> None:
        self.code = code
        self.will_tunnel = code < 64
        self.forced = forced
        self.keepalive = keepalive

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "UdpTunnelReply":
        """Reason: udp_tunnel_length."""
        _need(end - off == 5, "udp_tunnel_length")
        return UdpTunnelReply(buf[off], bool(buf[off + 1] & 0x80), buf[off + 3] << 8 | buf[off + 4])


class RouteOptimizationCapability:
    """RFC 6521 5.1: A, R, S, O, and the solicited router's home address if and only if S [A09]."""

    type = ROUTE_OPTIMIZATION_CAPABILITY
    subtype = 1
    single = True

    def __init__(self, flags: int, home_address: bytes | None) -> None:
        self.advertise = bool(flags & 0x80)
        self.request = bool(flags & 0x40)
        self.solicit = bool(flags & 0x20)
        self.outbound_only = bool(flags & 0x10)
        self.home_address = home_address

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "RouteOptimizationCapability":
        """Reason: ro_cap_hoa_iff_s."""
        _need(end > off and end - off == (5 if buf[off] & 0x20 else 1), "ro_cap_hoa_iff_s")
        return RouteOptimizationCapability(buf[off], bytes(buf[off + 1 : end]) or None)


class RouteOptimizationReply:
    """RFC 6521 5.2: O, N, S and a 5 bit code [A08]; `.accepted` for 0..15."""

    type = ROUTE_OPTIMIZATION
    subtype = 1
    single = True

    def __init__(self, octet: int) -> None:
        self.outbound_only = bool(octet & 0x80)
        self.nat = bool(octet & 0x40)
        self.solicited = bool(octet & 0x20)
        self.code = octet & 0x1F
        self.accepted = self.code < 16

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "RouteOptimizationReply":
        """Reason: ro_reply_length."""
        _need(end - off == 1, "ro_reply_length")
        return RouteOptimizationReply(buf[off])


class CareOfAddresses:
    """RFC 6521 5.4: `.addresses`, 1..63 times 4 octets in order of priority."""

    type = ROUTE_OPTIMIZATION
    subtype = 3
    single = True

    def __init__(self, addresses: list[bytes]) -> None:
        self.addresses = addresses

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "CareOfAddresses":
        """Reason: coa_ext_length."""
        _need(end - off >= 5 and (end - off) % 4 == 1, "coa_ext_length")
        return CareOfAddresses([bytes(buf[i : i + 4]) for i in range(off + 1, end, 4)])


class PrefixAdvertisement:
    """RFC 6521 5.5, checked as a whole when read [A52]; nothing is decoded before `routers()` asks."""

    type = ROUTE_OPTIMIZATION_DATA
    subtype = 1
    single = True  # [A17]

    def __init__(self, buf: bytes, off: int, end: int) -> None:
        self._buf = buf
        self._off = off
        self._end = end

    @property
    def data(self) -> bytes:
        """The octets after the 4 octet extension header, copied."""
        return bytes(self._buf[self._off : self._end])

    def routers(self):  # type: ignore[no-untyped-def]
        """Yield (home address, outbound only, [(prefix, plen, realm)]) in order of priority."""
        return iterate_advertisement(self._buf, self._off, self._end)

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "PrefixAdvertisement":
        """Reasons: those of check_advertisement."""
        check_advertisement(buf, off, end)
        return PrefixAdvertisement(buf, off, end)


class RevocationSupport:
    """RFC 3543 3.2: I and the sender's 32 bit timestamp."""

    type = REVOCATION_SUPPORT
    subtype = None
    single = True

    def __init__(self, i: bool, timestamp: int) -> None:
        self.i = i
        self.timestamp = timestamp

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "RevocationSupport":
        """Reason: revocation_length. RFC 3543 lets a later version be longer."""
        _need(end - off >= 6, "revocation_length")
        return RevocationSupport(bool(buf[off] & 0x80), struct.unpack_from(">I", buf, off + 2)[0])


class Nai:
    """RFC 2794 2: `.value` octets, unchecked."""

    type = NAI
    subtype = None
    single = True

    def __init__(self, value: bytes) -> None:
        self.value = value

    @staticmethod
    def read(buf: bytes, off: int, end: int) -> "Nai":
        """Reason: nai_length."""
        _need(end > off, "nai_length")
        return Nai(bytes(buf[off:end]))


_READERS = {
    (NAI, None): Nai,
    (REVOCATION_SUPPORT, None): RevocationSupport,
    (UDP_TUNNEL_REPLY, 0): UdpTunnelReply,
    (ROUTE_OPTIMIZATION, 1): RouteOptimizationReply,
    (ROUTE_OPTIMIZATION, 3): CareOfAddresses,
    (ROUTE_OPTIMIZATION_DATA, 1): PrefixAdvertisement,
    (UDP_TUNNEL_REQUEST, 0): UdpTunnelRequest,
    (MOBILE_NETWORK, 0): MobileNetworkRequest,
    (MOBILE_NETWORK, 1): MobileNetworkAck,
    (MOBILE_NETWORK, 2): MobileNetworkAck,
    (ROUTE_OPTIMIZATION_CAPABILITY, 1): RouteOptimizationCapability,
}


def is_known(kind: int, subtype: int | None) -> bool:
    """Tell whether (type, subtype) is an extension this layer reads, authenticators included."""
    if kind == MOBILE_HOME_AUTHENTICATION or (kind, subtype) == (ROUTE_OPTIMIZATION, 2):
        return True
    return (kind, subtype) in _READERS


def reader(kind: int, subtype: int | None):  # type: ignore[no-untyped-def]
    """Return the class for (type, subtype), or None."""
    return _READERS.get((kind, subtype))


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
    subtype = 2 if implicit else 1
    message.extend(struct.pack(">BBBBBB4s", MOBILE_NETWORK, 8, subtype, code, plen, 0, prefix))


def append_udp_tunnel_request(
    message: bytearray, force: bool, encapsulation: int = 4, through_fa: bool = False
) -> None:
    """RFC 3519 3.1."""
    flags = (0x80 if force else 0) | (0x40 if through_fa else 0)
    message.extend(struct.pack(">BBBBBBH", UDP_TUNNEL_REQUEST, 6, 0, 0, flags, encapsulation, 0))


def append_udp_tunnel_reply(message: bytearray, code: int, forced: bool, keepalive: int) -> None:
    """RFC 3519 3.2; keepalive in seconds."""
    message.extend(
        struct.pack(">BBBBBBH", UDP_TUNNEL_REPLY, 6, 0, code, 0x80 if forced else 0, 0, keepalive)
    )


def append_route_optimization_capability(
    message: bytearray,
    advertise: bool,
    request: bool,
    outbound_only: bool = False,
    home_address: bytes | None = None,
) -> None:
    """RFC 6521 5.1; S is set exactly when a router is solicited by its `home_address`."""
    flags = (0x80 if advertise else 0) | (0x40 if request else 0) | (0x10 if outbound_only else 0)
    body = home_address or b""
    flags |= 0x20 if body else 0
    message.extend(bytes([ROUTE_OPTIMIZATION_CAPABILITY, 2 + len(body), 1, flags]))
    message.extend(body)


def append_route_optimization_reply(
    message: bytearray, outbound_only: bool, nat: bool, solicited: bool, code: int = 0
) -> None:
    """RFC 6521 5.2; code 0..31 [A08]."""
    octet = (0x80 if outbound_only else 0) | (0x40 if nat else 0) | (0x20 if solicited else 0)
    message.extend(bytes([ROUTE_OPTIMIZATION, 2, 1, octet | code & 0x1F]))


def append_care_of_addresses(message: bytearray, addresses: list[bytes]) -> None:
    """RFC 6521 5.4; ValueError unless 1..63 addresses."""
    if not 1 <= len(addresses) <= 63:
        raise ValueError("1 to 63 care-of addresses")
    message.extend(bytes([ROUTE_OPTIMIZATION, 2 + 4 * len(addresses), 3, 0]))
    for addr in addresses:
        message.extend(addr)


def append_prefix_advertisement(message: bytearray, data: bytes) -> None:
    """RFC 6521 5.5; `data` as prefixes.build_advertisement made it."""
    message.extend(struct.pack(">BBH", ROUTE_OPTIMIZATION_DATA, 1, len(data)))
    message.extend(data)


def append_revocation_support(message: bytearray, i: bool, timestamp: int) -> None:
    """RFC 3543 3.2."""
    message.extend(struct.pack(">BBHI", REVOCATION_SUPPORT, 6, 0x8000 if i else 0, timestamp))


def append_nai(message: bytearray, value: bytes) -> None:
    """RFC 2794 2; ValueError unless 1..255 octets."""
    if not 1 <= len(value) <= 255:
        raise ValueError("1 to 255 octets of NAI")
    message.extend(bytes([NAI, len(value)]))
    message.extend(value)
