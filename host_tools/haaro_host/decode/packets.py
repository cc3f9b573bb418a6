"""From a link's frame to the Mobile IP datagrams in it: Ethernet and others, IPv4, fragments, UDP.

Lenient where a capture differs from the wire: checksums are not looked at (a sender's card fills
them in after the capture), and a frame may be cut. Owns the fragments that wait, in bounded memory.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from haaro.wire.encapsulation import PROTOCOL_GRE, PROTOCOL_MINIMAL, decapsulate
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import PROTOCOL_IPIP, PROTOCOL_UDP, address, build_ipv4_into, text
from haaro.wire.message import MIP_PORT
from haaro_host.decode.words import PROTOCOLS

NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 276
_RAW_OLD = (12, 14)  # what some systems write for RAW
_ETHERTYPE_IPV4 = 0x0800
_VLAN = (0x8100, 0x88A8, 0x9100)
_MAX_VLANS = 4
_MAX_IP_IN_IP = 4

MAX_REASSEMBLIES = 16  # packets of which fragments wait; the oldest goes first
_MAX_PACKET = 65535
_MAX_WAITING = 2 * _MAX_PACKET  # octets of one packet's fragments, which may overlap


@dataclass(frozen=True)
class Datagram:
    """A UDP payload, or what was held of it.

    `octets` it had on the wire; `source` (JSON-able) tells where it comes from, None if unknown;
    `fault` is the reason why it cannot be read as a whole, at octet `fault_at`.
    """

    data: bytes
    octets: int
    source: dict[str, Any] | None = None
    fault: str | None = None
    fault_at: int = 0

    @classmethod
    def whole(cls, data: bytes, source: dict[str, Any] | None = None) -> "Datagram":
        """Return a datagram of which everything is there."""
        if len(data) > _MAX_PACKET:
            return cls(data[:_MAX_PACKET], len(data), source, "too_long", _MAX_PACKET)
        return cls(data, len(data), source)


@dataclass
class _Packet:
    """An IPv4 packet that may be cut: its payload as held, and how long it was."""

    header: bytes
    payload: bytes
    octets: int

    @property
    def protocol(self) -> int:
        return self.header[9]

    @property
    def fragment(self) -> int:
        """More Fragments and Fragment Offset, 0 for a whole packet."""
        return int.from_bytes(self.header[6:8], "big") & 0x3FFF


@dataclass
class _Reassembly:
    pieces: dict[int, bytes] = field(default_factory=dict)
    end: int = -1


class Extractor:
    """Finds the datagrams of UDP port 434 in frames; one for each capture."""

    def __init__(self) -> None:
        self.unknown_links: set[int] = set()
        self.fragments_lost = 0
        self._waiting: OrderedDict[bytes, _Reassembly] = OrderedDict()

    @property
    def fragments_waiting(self) -> int:
        """Packets of which not all fragments were seen."""
        return len(self._waiting)

    def datagram(self, frame: bytes, link: int) -> Datagram | None:
        """Return the Mobile IP datagram in `frame` of DLT `link`, or None if there is none."""
        find = _LINKS.get(link)
        if find is None:
            if len(self.unknown_links) < 16:
                self.unknown_links.add(link)
            return None
        at = find(frame)
        return None if at < 0 else self.in_ipv4(frame[at:])

    def in_ipv4(self, data: bytes, depth: int = 1) -> Datagram | None:
        """Return the Mobile IP datagram in an IPv4 packet, also inside IP in IP."""
        packet = _packet(data)
        if packet is not None and packet.fragment:
            packet = self._reassembled(packet)
        if packet is None:
            return None
        if packet.protocol == PROTOCOL_IPIP and depth < _MAX_IP_IN_IP:
            return self.in_ipv4(packet.payload, depth + 1)
        if packet.protocol in (PROTOCOL_GRE, PROTOCOL_MINIMAL) and depth < _MAX_IP_IN_IP:
            return self.in_ipv4(_decapsulated(packet.header + packet.payload), depth + 1)
        return _udp(packet, (MIP_PORT,))

    def _reassembled(self, packet: _Packet) -> _Packet | None:
        """Keep a fragment; return the whole packet when it is the last that was missing."""
        if len(packet.payload) < packet.octets or packet.protocol != PROTOCOL_UDP:
            self.fragments_lost += packet.protocol == PROTOCOL_UDP
            return None
        key = packet.header[4:6] + packet.header[9:10] + packet.header[12:20]
        offset = (packet.fragment & 0x1FFF) * 8
        if offset + packet.octets > _MAX_PACKET:
            self.fragments_lost += 1
            return None
        waiting = self._waiting.setdefault(key, _Reassembly())
        self._waiting.move_to_end(key)
        waiting.pieces[offset] = packet.payload
        if not packet.fragment & 0x2000:
            waiting.end = offset + packet.octets
        payload = _joined(waiting)
        if payload is not None:
            del self._waiting[key]
            return _Packet(packet.header[:6] + bytes(2) + packet.header[8:], payload, len(payload))
        if sum(map(len, waiting.pieces.values())) > _MAX_WAITING:
            del self._waiting[key]
            self.fragments_lost += 1
        elif len(self._waiting) > MAX_REASSEMBLIES:
            self._waiting.popitem(last=False)
            self.fragments_lost += 1
        return None


def tunnelled(outside: Datagram, next_header: int) -> tuple[str, Datagram | None]:
    """Look at the packet in tunnel data: (what it is in words, the Mobile IP datagram in it).

    The words are empty and the datagram is None when the packet cannot be read.
    """
    payload, octets = outside.data[4:], outside.octets - 4
    if next_header in (PROTOCOL_GRE, PROTOCOL_MINIMAL):
        # Minimal encapsulation keeps of the packet only what the outer header lacks (RFC 2004).
        buf = bytearray(20)
        src, dst = _ends(outside)
        build_ipv4_into(buf, 0, next_header, src, dst, min(len(payload), _MAX_PACKET - 20))
        payload = _decapsulated(bytes(buf) + payload)
        octets = len(payload)
    elif next_header != PROTOCOL_IPIP:
        return "", None
    packet = _packet(payload)
    if packet is None:
        return "", None
    return _summary(packet, octets), None if packet.fragment else _udp(packet, (MIP_PORT,))


def _ends(outside: Datagram) -> tuple[bytes, bytes]:
    source = outside.source or {}
    return address(source.get("src", "0.0.0.0")), address(source.get("dst", "0.0.0.0"))


def _decapsulated(packet: bytes) -> bytes:
    try:
        return decapsulate(packet)
    except WireError:
        return b""


def _summary(packet: _Packet, octets: int) -> str:
    ends = [text(packet.header[12:16]), text(packet.header[16:20])]
    if packet.protocol in (6, 17) and len(packet.payload) >= 4 and not packet.fragment & 0x1FFF:
        ports = packet.payload[:2], packet.payload[2:4]
        ends = [f"{a}:{int.from_bytes(b, 'big')}" for a, b in zip(ends, ports, strict=True)]
    name = PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    return f"{ends[0]} > {ends[1]}, {name}, {octets} octets"


def _packet(data: bytes) -> _Packet | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    header_length = (data[0] & 15) * 4
    total = int.from_bytes(data[2:4], "big") or len(data)
    if not 20 <= header_length <= min(total, len(data)):
        return None
    return _Packet(data[:header_length], data[header_length:total], total - header_length)


def _udp(packet: _Packet, ports: tuple[int, ...]) -> Datagram | None:
    held = packet.payload
    if packet.protocol != PROTOCOL_UDP or len(held) < 8:
        return None
    sport, dport, length = (int.from_bytes(held[i : i + 2], "big") for i in (0, 2, 4))
    if sport not in ports and dport not in ports:
        return None
    source = {
        "src": text(packet.header[12:16]),
        "sport": sport,
        "dst": text(packet.header[16:20]),
        "dport": dport,
    }
    if not 8 <= length <= packet.octets:
        return Datagram(held[8:], packet.octets - 8, source, "udp_length", 0)
    data = held[8:length]
    if len(data) < length - 8:
        return Datagram(data, length - 8, source, "captured_short", len(data))
    return Datagram.whole(data, source)


def _joined(waiting: _Reassembly) -> bytes | None:
    out = bytearray()
    if waiting.end < 0:
        return None
    for offset in sorted(waiting.pieces):
        if offset > len(out):
            return None
        out[offset:] = waiting.pieces[offset]
    return bytes(out) if len(out) == waiting.end else None


def _ethernet(frame: bytes) -> int:
    at = 12
    for _ in range(_MAX_VLANS):
        kind = int.from_bytes(frame[at : at + 2], "big")
        if kind == _ETHERTYPE_IPV4:
            return at + 2
        if kind not in _VLAN:
            break
        at += 4
    return -1


def _cooked(protocol_at: int, size: int) -> Callable[[bytes], int]:
    def find(frame: bytes) -> int:
        kind = int.from_bytes(frame[protocol_at : protocol_at + 2], "big")
        return size if kind == _ETHERTYPE_IPV4 else -1

    return find


def _loopback(frame: bytes) -> int:
    # AF_INET is 2 in the order of the machine that captured, or of the network.
    return 4 if frame[:4] in (b"\x02\0\0\0", b"\0\0\0\x02") else -1


def _bare(frame: bytes) -> int:
    return 0


_LINKS: dict[int, Callable[[bytes], int]] = {
    NULL: _loopback,
    LOOP: _loopback,
    ETHERNET: _ethernet,
    RAW: _bare,
    IPV4: _bare,
    **dict.fromkeys(_RAW_OLD, _bare),
    LINUX_SLL: _cooked(14, 16),
    LINUX_SLL2: _cooked(0, 20),
}
