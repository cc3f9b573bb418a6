"""The other encapsulations of Mobile IPv4: IP in IP (RFC 2003), minimal (RFC 2004), GRE (RFC 2784).

    minimal: Protocol | S Reserved(7) | Checksum (2) | Original Destination | Source, only if S
    GRE:     C Reserved(12) Version(3) | Protocol Type (2) | Checksum (2), Reserved (2), only if C

Packets go in and come out whole and copied: for the home agent, tools and tests. A router has
leaves that work in place (dataplane/leaves_encapsulation.py) and does not import this.
"""

import struct

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import PROTOCOL_IPIP, build_ipv4_into, checksum, parse_ipv4

PROTOCOL_GRE = const(47)
PROTOCOL_MINIMAL = const(55)

_ETHERTYPE_IPV4 = const(0x0800)
_S = const(0x80)
_C = const(0x8000)
_GRE_REFUSED = const(0x7C07)  # bits 1 to 5 (RFC 2784 2.3) and the version


def encapsulate_ipip(src: bytes, dst: bytes, packet: bytes, ttl: int = 64) -> bytes:
    """Return `packet` behind an outer header (RFC 2003 3.1): TOS and DF are those of the inner.

    ValueError when the result would be over 65535 octets.
    """
    return _outer(PROTOCOL_IPIP, src, dst, b"", packet, ttl)


def encapsulate_gre(
    src: bytes, dst: bytes, packet: bytes, ttl: int = 64, with_checksum: bool = False
) -> bytes:
    """Return the IPv4 `packet` behind an outer header and a GRE header; ValueError as above."""
    header = bytearray(struct.pack(">HH", _C if with_checksum else 0, _ETHERTYPE_IPV4))
    if with_checksum:
        header.extend(bytes(4))
        total = checksum(header + packet, 0, 8 + len(packet))
        struct.pack_into(">H", header, 4, total)
    return _outer(PROTOCOL_GRE, src, dst, header, packet, ttl)


def encapsulate_minimal(src: bytes, dst: bytes, packet: bytes) -> bytes:
    """Return `packet` with its header changed and a minimal forwarding header after it.

    S is set when `src` is not the original source. ValueError for a fragment (RFC 2004 3) and when
    the result would be over 65535 octets.
    """
    ip = parse_ipv4(packet)
    if ip.more_fragments or ip.fragment_offset:
        raise ValueError("a fragment has no place for minimal encapsulation")
    s = _S if ip.src != src else 0
    header = bytearray(struct.pack(">BBH", ip.protocol, s, 0) + ip.dst + (ip.src if s else b""))
    struct.pack_into(">H", header, 2, checksum(header, 0, len(header)))
    if ip.total_length + len(header) > 0xFFFF:
        raise ValueError("packet over 65535 octets")
    out = bytearray(packet[: ip.header_length]) + header
    out.extend(packet[ip.header_length : ip.total_length])
    return _readdress(out, ip.header_length, PROTOCOL_MINIMAL, src, dst)


def decapsulate(packet: bytes) -> bytes:
    """Return the packet inside an IP in IP, minimal or GRE `packet`, by its Protocol field.

    Raises WireError not_encapsulated, tunnel_fragment, those of parse_ipv4 for the outer and the
    inner header, minimal_truncated, minimal_checksum, gre_truncated, gre_version (also for the
    fields of RFC 1701), gre_protocol or gre_checksum.
    """
    ip = parse_ipv4(packet)
    if ip.more_fragments or ip.fragment_offset:
        raise WireError("tunnel_fragment")
    off, end = ip.header_length, ip.total_length
    if ip.protocol == PROTOCOL_IPIP:
        inner = bytes(packet[off:end])
    elif ip.protocol == PROTOCOL_GRE:
        inner = _gre_payload(packet, off, end)
    elif ip.protocol == PROTOCOL_MINIMAL:
        return _from_minimal(packet, off, end, ip.src)
    else:
        raise WireError("not_encapsulated")
    return inner[: parse_ipv4(inner).total_length]


def _outer(
    proto: int, src: bytes, dst: bytes, header: bytes | bytearray, packet: bytes, ttl: int
) -> bytes:
    buf = bytearray(20)
    df = bool(packet[6] & 0x40)
    build_ipv4_into(buf, 0, proto, src, dst, len(header) + len(packet), ttl, packet[1], 0, df)
    return bytes(buf + header + packet)


def _gre_payload(packet: bytes, off: int, end: int) -> bytes:
    if off + 4 > end:
        raise WireError("gre_truncated")
    flags, protocol = struct.unpack_from(">HH", packet, off)
    if flags & _GRE_REFUSED:
        raise WireError("gre_version")
    if protocol != _ETHERTYPE_IPV4:
        raise WireError("gre_protocol")
    if flags & _C:
        if off + 8 > end:
            raise WireError("gre_truncated")
        if checksum(packet, off, end - off):
            raise WireError("gre_checksum")
        off += 4
    return bytes(packet[off + 4 : end])


def _from_minimal(packet: bytes, off: int, end: int, src: bytes) -> bytes:
    size = 12 if off + 8 <= end and packet[off + 1] & _S else 8
    if off + size > end:
        raise WireError("minimal_truncated")
    if checksum(packet, off, size):
        raise WireError("minimal_checksum")
    if size == 12:
        src = packet[off + 8 : off + 12]
    out = bytearray(packet[:off]) + packet[off + size : end]
    return _readdress(out, off, packet[off], src, packet[off + 4 : off + 8])


def _readdress(out: bytearray, header_length: int, proto: int, src: bytes, dst: bytes) -> bytes:
    struct.pack_into(">H", out, 2, len(out))
    struct.pack_into(">BH4s4s", out, 9, proto, 0, src, dst)
    struct.pack_into(">H", out, 10, checksum(out, 0, header_length))
    return bytes(out)
