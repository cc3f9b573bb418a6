"""IPv4, UDP and ICMP as the control plane needs them (RFC 791, 768, 792, 1191), and address text.

Owns no buffer: functions copy out of, or write into, what they are given. Addresses are 4 octets.
"""

import struct

from haaro.compat import const
from haaro.wire.errors import WireError

PROTOCOL_ICMP = const(1)
PROTOCOL_IPIP = const(4)
PROTOCOL_UDP = const(17)

ECHO_REPLY = const(0)
UNREACHABLE = const(3)
FRAGMENTATION_NEEDED = const(4)
ECHO_REQUEST = const(8)
TIME_EXCEEDED = const(11)

_DF = const(0x4000)
TOS_NETWORK_CONTROL = const(0xC0)  # DSCP CS6: RFC 1812 4.3.2.5, RFC 4594 3.1


class Ipv4:
    """The fields of one IPv4 header; addresses are 4 octets, lengths and offsets in octets."""

    def __init__(self, packet: bytes) -> None:
        self.header_length = (packet[0] & 15) * 4
        self.tos = packet[1]
        self.total_length = packet[2] << 8 | packet[3]
        self.ident = packet[4] << 8 | packet[5]
        self.df = bool(packet[6] & 0x40)
        self.more_fragments = bool(packet[6] & 0x20)
        self.fragment_offset = ((packet[6] & 31) << 8 | packet[7]) * 8
        self.ttl = packet[8]
        self.protocol = packet[9]
        self.src = bytes(packet[12:16])
        self.dst = bytes(packet[16:20])


def parse_ipv4(packet: bytes) -> Ipv4:
    """Check version, lengths and header checksum of `packet`; octets may follow Total Length.

    WireError ipv4_truncated, ipv4_version, ipv4_header_length, ipv4_total_length or ipv4_checksum.
    """
    if len(packet) < 20:
        raise WireError("ipv4_truncated")
    if packet[0] >> 4 != 4:
        raise WireError("ipv4_version")
    ip = Ipv4(packet)
    if not 20 <= ip.header_length <= len(packet):
        raise WireError("ipv4_header_length")
    if not ip.header_length <= ip.total_length <= len(packet):
        raise WireError("ipv4_total_length")
    if checksum(packet, 0, ip.header_length):
        raise WireError("ipv4_checksum")
    return ip


def parse_udp(packet: bytes, ip: Ipv4) -> tuple[int, int, bytes]:
    """Return (source port, destination port, payload copied) of a UDP packet parsed as `ip`.

    Raises WireError udp_fragment, udp_length or udp_checksum. A zero checksum means none was sent.
    """
    if ip.more_fragments or ip.fragment_offset:
        raise WireError("udp_fragment")
    off = ip.header_length
    if ip.total_length < off + 8:
        raise WireError("udp_length")
    sport, dport, length, sent = struct.unpack_from(">HHHH", packet, off)
    if not 8 <= length <= ip.total_length - off:
        raise WireError("udp_length")
    if sent and checksum(packet, off, length, _pseudo_header(ip.src, ip.dst, length)):
        raise WireError("udp_checksum")
    return sport, dport, bytes(packet[off + 8 : off + length])


def parse_icmp_echo(packet: bytes, ip: Ipv4) -> tuple[bool, int, int, bytes] | None:
    """Return (is_reply, identifier, sequence, payload copied), or None for other ICMP messages.

    Raises WireError icmp_fragment, icmp_length or icmp_checksum.
    """
    if ip.more_fragments or ip.fragment_offset:
        raise WireError("icmp_fragment")
    off = ip.header_length
    if ip.total_length < off + 8:
        raise WireError("icmp_length")
    if checksum(packet, off, ip.total_length - off):
        raise WireError("icmp_checksum")
    kind, code, _, ident, seq = struct.unpack_from(">BBHHH", packet, off)
    if code or kind not in (ECHO_REPLY, ECHO_REQUEST):
        return None
    return kind == ECHO_REPLY, ident, seq, bytes(packet[off + 8 : ip.total_length])


def build_ipv4_into(
    buf: bytearray,
    off: int,
    proto: int,
    src: bytes,
    dst: bytes,
    payload_len: int,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    df: bool = False,
) -> int:
    """Write a 20 octet header with checksum at buf[off:], return the offset after it.

    ValueError when the packet would be over 65535 octets.
    """
    if payload_len > 65515:
        raise ValueError("packet over 65535 octets")
    first = 0x4500 | tos
    flags = _DF if df else 0
    last = ttl << 8 | proto
    total = first + 20 + payload_len + ident + flags + last + int.from_bytes(src + dst, "big")
    struct.pack_into(
        ">HHHHHH4s4s",
        buf,
        off,
        first,
        20 + payload_len,
        ident,
        flags,
        last,
        (total % 0xFFFF or 0xFFFF) ^ 0xFFFF,
        src,
        dst,
    )
    return off + 20


def build_udp(
    src: bytes,
    dst: bytes,
    sport: int,
    dport: int,
    payload: bytes,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
) -> bytes:
    """Return a whole IPv4 + UDP packet with both checksums."""
    length = 8 + len(payload)
    buf = bytearray(20 + length)
    off = build_ipv4_into(buf, 0, PROTOCOL_UDP, src, dst, length, ttl, tos, ident)
    struct.pack_into(">HHHH", buf, off, sport, dport, length, 0)
    buf[off + 8 :] = payload
    # RFC 768: a computed zero is sent as all ones.
    total = checksum(buf, off, length, _pseudo_header(src, dst, length)) or 0xFFFF
    struct.pack_into(">H", buf, off + 6, total)
    return bytes(buf)


def build_icmp_echo(
    src: bytes, dst: bytes, reply: bool, ident: int, seq: int, payload: bytes = b"", tos: int = 0
) -> bytes:
    """Return a whole IPv4 + ICMP Echo or Echo Reply packet (RFC 792)."""
    rest = struct.pack(">HH", ident, seq)
    return _icmp(src, dst, ECHO_REPLY if reply else ECHO_REQUEST, 0, rest, payload, tos)


def build_icmp_error(
    src: bytes, icmp_type: int, icmp_code: int, rest4: bytes | int, offending: bytes
) -> bytes:
    """Return an ICMP error to the source of `offending`, of which header and 8 octets are quoted.

    `rest4` is the second word of the ICMP header, or the next-hop MTU in octets (RFC 1191 4).
    Whether one may be sent (never about errors, later fragments, multicast): ask the caller.
    """
    rest = struct.pack(">HH", 0, rest4) if isinstance(rest4, int) else rest4
    quoted = bytes(offending[: (offending[0] & 15) * 4 + 8])
    dst = bytes(offending[12:16])
    return _icmp(src, dst, icmp_type, icmp_code, rest, quoted, TOS_NETWORK_CONTROL)


def _icmp(
    src: bytes, dst: bytes, kind: int, code: int, rest: bytes, body: bytes, tos: int
) -> bytes:
    buf = bytearray(24)
    build_ipv4_into(buf, 0, PROTOCOL_ICMP, src, dst, 8 + len(body), 64, tos)
    first = kind << 8 | code
    rest += body
    struct.pack_into(">HH", buf, 20, first, checksum(rest, 0, len(rest), first))
    return bytes(buf) + rest


def checksum(buf: bytes | bytearray, off: int, n: int, start: int = 0) -> int:
    """Return the RFC 1071 checksum of buf[off:off + n] and the sum `start`; 0 over valid data."""
    # 2^16 is 1 modulo 0xFFFF; of a sum that is not 0, a remainder of 0 is all ones.
    start += int.from_bytes(buf[off : off + n], "big") << 8 * (n & 1)
    return (start and (start % 0xFFFF or 0xFFFF)) ^ 0xFFFF


def _pseudo_header(src: bytes, dst: bytes, length: int) -> int:
    return int.from_bytes(src + dst, "big") + PROTOCOL_UDP + length


def text(addr: bytes) -> str:
    """Return the dotted decimal form of 4 octets."""
    return "%d.%d.%d.%d" % (addr[0], addr[1], addr[2], addr[3])


def address(string: str) -> bytes:
    """Return the 4 octets of a dotted decimal address; ValueError on leading zeros and all else."""
    parts = string.split(".")
    if len(parts) != 4:
        raise ValueError("not an IPv4 address: " + string)
    out = bytearray(4)
    for i in range(4):
        out[i] = _decimal(parts[i], 255, string)
    return bytes(out)


def prefix(string: str) -> tuple[bytes, int]:
    """Return (4 octets, length) of "a.b.c.d/n"; ValueError on a bad form or host bits."""
    parts = string.split("/")
    if len(parts) != 2:
        raise ValueError("not a prefix: " + string)
    addr = address(parts[0])
    plen = _decimal(parts[1], 32, string)
    if mask(addr, plen) != addr:
        raise ValueError("host bits are set: " + string)
    return addr, plen


def _decimal(part: str, most: int, whole: str) -> int:
    digits = 0 < len(part) <= 3 and all("0" <= c <= "9" for c in part)
    if not digits or (part[0] == "0" and part != "0") or int(part) > most:
        raise ValueError("not an IPv4 address or prefix: " + whole)
    return int(part)


def mask(addr: bytes, plen: int) -> bytes:
    """Return `addr` with all bits after the first `plen` (0..32) cleared."""
    bits = 32 - plen
    return (int.from_bytes(addr, "big") >> bits << bits).to_bytes(4, "big")


def contains(net: bytes, plen: int, addr: bytes) -> bool:
    """Tell whether `addr` lies inside net/plen; host bits of `net` do not matter."""
    return mask(net, plen) == mask(addr, plen)
