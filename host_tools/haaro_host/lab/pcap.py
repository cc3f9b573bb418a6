"""Reads capture files while they grow and sorts what they hold into flows.

A small reader of its own, independent of the code under test: it knows Ethernet, IPv4, UDP port
434 and the four octets of an RFC 3519 tunnel header, IP in IP, GRE and minimal encapsulation, and
nothing of haaro's parsers. It reads files that still grow, 2 us a packet;
`haaro_host.decode.captures` reads streams of every kind. Judging is `evidence.py`'s job.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from operator import itemgetter
from pathlib import Path

from haaro_host.decode.captures import PCAP_HEADER_OCTETS, pcap_header
from haaro_host.lab.plan import MIP_PORT

_RECORD_HEADER = 16
_MAGIC_NANO = 0xA1B23C4D
_ETHERNET = 1
_RAW = 101
_LINK_HEADER = 14
_ETHERTYPE_AT = 12
_SHORTEST = _LINK_HEADER + 20
_IPV4 = b"\x08\x00"
_UDP = 17
_IPIP, _GRE, _MINIMAL = 4, 47, 55
_OTHERS = (_IPIP, _GRE, _MINIMAL)
_IN_UDP = struct.pack("!HHHHI", MIP_PORT, MIP_PORT, 0, 0, 0x04040000)
_TUNNEL_DATA = 4
# The octets that decide a flow: fragment field, protocol, addresses and ports, type and tunnel
# header, inner protocol, inner addresses and ports, first inner payload octet.
_DECIDING = itemgetter(
    slice(6, 8), slice(9, 10), slice(12, 24), slice(28, 32), slice(41, 42), slice(44, 56),
    slice(60, 61),
)  # fmt: skip
_FRAGMENT_OFFSET = 0x1FFF


@dataclass(frozen=True)
class Flow:
    """What a packet looks like from outside. Addresses are dotted quads, "" when absent.

    `kind`: "tunnel" (UDP 434, type 4, next header IPv4; or IP protocol 4, 47 or 55: `protocol`
    tells which), "signalling" (UDP 434, other),
    "fragment" (not the first of several, so its ports are unknown) or "other".
    `type` is the first octet of the Mobile IP message, outside a tunnel or inside it, else -1.
    """

    source: str
    destination: str
    kind: str
    protocol: int
    type: int = -1
    inner_source: str = ""
    inner_destination: str = ""
    inner_protocol: int = -1

    @property
    def tunnelled_signalling(self) -> bool:
        """True for a Mobile IP message carried inside a tunnel."""
        return self.kind == "tunnel" and self.type >= 0


@dataclass(frozen=True)
class Packet:
    """One captured packet: seconds since 1970, the IPv4 packet (perhaps cut), its flow."""

    time: float
    data: bytes
    flow: Flow

    def message(self) -> bytes:
        """Mobile IP message it carries, outside a tunnel or inside it; empty if none."""
        data = _in_udp(self.data)
        payload = data[_header_length(data, 0) + 8 :]
        if self.flow.kind != "tunnel":
            return payload if self.flow.kind == "signalling" else b""
        if not self.flow.tunnelled_signalling:
            return b""
        inner = payload[4:]
        return inner[_header_length(inner, 0) + 8 :]


class Times:
    """When the packets of one flow were seen, in order; seconds since 1970."""

    def __init__(self) -> None:
        self.at = array("d")

    def count(self, since: float = 0.0, until: float = float("inf")) -> int:
        """Packets seen in [since, until]."""
        return max(0, bisect_right(self.at, until) - bisect_left(self.at, since))

    def first(self, since: float = 0.0) -> float | None:
        """Time of the first packet at or after `since`."""
        index = bisect_left(self.at, since)
        return self.at[index] if index < len(self.at) else None

    def last(self, until: float = float("inf")) -> float | None:
        """Time of the last packet at or before `until`."""
        index = bisect_right(self.at, until)
        return self.at[index - 1] if index else None


class Reader:
    """Yields the packets of one capture file; may be called again when it has grown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        self._order = "<"
        self._unit = 1e-6

    def raw(self) -> Iterator[tuple[float, bytes]]:
        """(time, IPv4 packet) of each whole record written since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as source:
            source.seek(self._at)
            data = source.read()
        at = 0
        if self._at == 0:
            if len(data) < PCAP_HEADER_OCTETS:
                return
            self._read_file_header(data)
            at = PCAP_HEADER_OCTETS
        record = struct.Struct(self._order + "IIII")
        size = len(data)
        while at + _RECORD_HEADER <= size:
            seconds, part, held, _ = record.unpack_from(data, at)
            body = at + _RECORD_HEADER
            if body + held > size:
                break
            at = body + held
            if data[body + _ETHERTYPE_AT : body + _LINK_HEADER] == _IPV4 and held >= _SHORTEST:
                yield seconds + part * self._unit, data[body + _LINK_HEADER : at]
        self._at += at

    def _read_file_header(self, data: bytes) -> None:
        header = pcap_header(data)
        if header is None:
            raise ValueError(f"{self.path}: not a capture file")
        if header.link != _ETHERNET:
            raise ValueError(f"{self.path}: link type {header.link} is not Ethernet")
        self._order = header.order
        self._unit = header.unit * 1e-9


class FlowTable:
    """Flows of one capture file -> times. `update` reads what came since.

    Packets of the flows that `keep` wants are kept whole in `kept`, in order.
    """

    def __init__(self, path: Path, keep: Callable[[Flow], bool] = lambda flow: False) -> None:
        self.flows: dict[Flow, Times] = {}
        self.kept: list[Packet] = []
        self._keep = keep
        self._reader = Reader(path)
        self._by_key: dict[bytes, tuple[Times, Flow, bool]] = {}

    def update(self) -> None:
        """Read on. Costs about two microseconds a packet."""
        by_key = self._by_key
        for time, data in self._reader.raw():
            seen = _in_udp(data) if data[9] in _OTHERS else data
            key = b"".join(_DECIDING(seen))
            known = by_key.get(key)
            if known is None:
                flow = flow_of(data)
                known = self.flows.setdefault(flow, Times()), flow, self._keep(flow)
                by_key[key] = known
            known[0].at.append(time)
            if known[2]:
                self.kept.append(Packet(time, data, known[1]))

    def select(self, **wanted: object) -> Times:
        """Times, merged and sorted, of the flows whose attributes equal `wanted`."""
        merged = Times()
        for flow, times in self.flows.items():
            if all(getattr(flow, key) == value for key, value in wanted.items()):
                merged.at.extend(times.at)
        merged.at = array("d", sorted(merged.at))
        return merged


def flow_of(data: bytes) -> Flow:
    """The flow of an IPv4 packet (at least 20 octets, perhaps cut)."""
    source, destination = _text(data, 12), _text(data, 16)
    protocol = data[9]
    data = _in_udp(data)
    if int.from_bytes(data[6:8], "big") & _FRAGMENT_OFFSET:
        return Flow(source, destination, "fragment", protocol)
    udp = _header_length(data, 0)
    if protocol not in (_UDP, *_OTHERS) or len(data) < udp + 9 or MIP_PORT not in _ports(data, udp):
        return Flow(source, destination, "other", protocol)
    kind, next_header = data[udp + 8], data[udp + 9]
    inner = udp + 12
    tunnel = kind == _TUNNEL_DATA and next_header == 4 and len(data) >= inner + 20
    if not tunnel:
        return Flow(source, destination, "signalling", protocol, kind)
    inner_protocol = data[inner + 9]
    return Flow(
        source, destination, "tunnel", protocol, _inner_type(data, inner),
        _text(data, inner + 12), _text(data, inner + 16), inner_protocol,
    )  # fmt: skip


def _in_udp(data: bytes) -> bytes:
    """A packet of another encapsulation as it would be in UDP, but for its protocol and lengths."""
    if data[9] not in _OTHERS or int.from_bytes(data[6:8], "big") & _FRAGMENT_OFFSET:
        return data
    inner = data[20:]
    if data[9] == _GRE:
        inner = data[24:]
    elif data[9] == _MINIMAL and len(data) >= 32:
        size, source = (12, data[28:32]) if data[21] & 0x80 else (8, data[12:16])
        inner = data[:9] + data[20:21] + data[10:12] + source + data[24:28] + data[20 + size :]
    return data[:20] + _IN_UDP + inner


def _inner_type(data: bytes, inner: int) -> int:
    udp = inner + _header_length(data, inner)
    later = int.from_bytes(data[inner + 6 : inner + 8], "big") & _FRAGMENT_OFFSET
    if data[inner + 9] != _UDP or later or len(data) < udp + 9:
        return -1
    return data[udp + 8] if MIP_PORT in _ports(data, udp) else -1


def _ports(data: bytes, at: int) -> tuple[int, int]:
    return (data[at] << 8 | data[at + 1], data[at + 2] << 8 | data[at + 3])


def _header_length(data: bytes, at: int) -> int:
    return (data[at] & 15) * 4 if len(data) > at else 20


def _text(data: bytes, at: int) -> str:
    return str(IPv4Address(data[at : at + 4]))


def write(path: Path, packets: list[tuple[float, bytes]]) -> None:
    """Write (time, IPv4 packet) as a capture of bare IP packets (LINKTYPE_RAW)."""
    parts = [struct.pack("<IHHiIII", _MAGIC_NANO, 2, 4, 0, 0, 65535, _RAW)]
    for time, data in packets:
        total = int.from_bytes(data[2:4], "big")
        seconds = int(time)
        nanoseconds = int((time - seconds) * 1e9)
        parts += [struct.pack("<IIII", seconds, nanoseconds, len(data), total), data]
    path.write_bytes(b"".join(parts))
