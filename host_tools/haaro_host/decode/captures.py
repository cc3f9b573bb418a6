"""Frames of pcap and pcapng files, read as a stream: from a pipe too, one frame in memory.

What is wrong with a file ends the reading with CaptureError, after all frames before it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

MAX_FRAME = 262144  # the largest that capture programs write
_MAX_BLOCK = MAX_FRAME + 65536
_MAX_INTERFACES = 4096
_SKIP = 65536

_MAGICS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # nanoseconds of the record's fraction unit
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_SECTION_OCTETS = struct.pack(">I", _SECTION)  # reads the same in both orders
_ORDER_MAGIC = 0x1A2B3C4D
_OPTION_END, _OPTION_RESOLUTION, _OPTION_OFFSET = 0, 9, 14
_SECOND = 10**9


class CaptureError(Exception):
    """Reading ends here: `cut` when the file just ends too early; `offset` in octets."""

    def __init__(self, why: str, offset: int, cut: bool = False) -> None:
        super().__init__(f"{why} at octet {offset}")
        self.offset = offset
        self.cut = cut


@dataclass(frozen=True)
class Frame:
    """One frame: nanoseconds since 1970 or None, link type (DLT), octets held."""

    time: int | None
    link: int
    data: bytes


@dataclass
class _Interface:
    link: int
    snap: int
    resolution: int = 6  # as in the file: 2 to the power when bit 7 is set, else 10
    offset: int = 0

    def nanoseconds(self, ticks: int) -> int:
        exponent = self.resolution & 0x7F
        unit = (2 if self.resolution & 0x80 else 10) ** exponent
        return self.offset * _SECOND + ticks * _SECOND // unit


def is_capture(head: bytes) -> bool:
    """Tell by the first 4 octets whether a file is pcap or pcapng."""
    orders = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return head[:4] == _SECTION_OCTETS or any(each in _MAGICS for each in orders)


@dataclass(frozen=True)
class PcapHeader:
    """What the 24 octets at the start of a pcap file say: byte order for struct, nanoseconds of
    the unit in which a record's fraction of a second is given, link type (DLT)."""

    order: str
    unit: int
    link: int


PCAP_HEADER_OCTETS = 24


def pcap_header(head: bytes) -> PcapHeader | None:
    """Return the file header of a pcap file, None if `head` (24 octets) is not one."""
    for order in "<>":
        unit = _MAGICS.get(struct.unpack_from(order + "I", head)[0])
        if unit is not None:
            link = struct.unpack_from(order + "I", head, 20)[0] & 0xFFFF
            return PcapHeader(order, unit, link)
    return None


def frames(file: BinaryIO) -> Iterator[Frame]:
    """Yield the frames of a capture in order. Raises CaptureError where it cannot be read on."""
    source = _Source(file)
    head = source.take(4, "the file ends within its header")
    if head == _SECTION_OCTETS:
        yield from _Ng(source).frames()
        return
    if not is_capture(head):
        raise CaptureError("neither pcap nor pcapng", 0)
    rest = source.take(PCAP_HEADER_OCTETS - 4, "the file ends within its header")
    header = pcap_header(head + rest)
    assert header is not None
    yield from _classic(source, header)


@dataclass
class _Source:
    """Counts what is read."""

    file: BinaryIO
    at: int = 0

    def some(self, size: int) -> bytes:
        """Return `size` octets, fewer only at the end of the file."""
        parts = bytearray()
        while len(parts) < size:
            part = self.file.read(size - len(parts))
            if not part:
                break
            parts += part
        self.at += len(parts)
        return bytes(parts)

    def take(self, size: int, why: str) -> bytes:
        got = self.some(size)
        if len(got) < size:
            raise CaptureError(why, self.at, cut=True)
        return got

    def skip(self, size: int, why: str) -> None:
        while size > 0:
            size -= len(self.take(min(size, _SKIP), why))


def _classic(source: _Source, header: PcapHeader) -> Iterator[Frame]:
    record = struct.Struct(header.order + "IIII")
    while True:
        start = source.at
        head = source.some(16)
        if not head:
            return
        if len(head) < 16:
            raise CaptureError("the file ends within a record header", source.at, cut=True)
        seconds, part, held, _ = record.unpack(head)
        if held > MAX_FRAME:
            raise CaptureError(f"a record of {held} octets cannot be", start)
        data = source.take(held, "the file ends within a record")
        yield Frame(seconds * _SECOND + part * header.unit, header.link, data)


@dataclass
class _Ng:
    """One pcapng stream; its interfaces are those of the current section."""

    source: _Source
    order: str = "<"
    interfaces: list[_Interface] = field(default_factory=list)

    def frames(self) -> Iterator[Frame]:
        self._section()
        while True:
            start = self.source.at
            head = self.source.some(4)
            if not head:
                return
            if len(head) < 4:
                raise CaptureError("the file ends within a block", self.source.at, cut=True)
            if head == _SECTION_OCTETS:
                self._section()
                continue
            kind = struct.unpack(self.order + "I", head)[0]
            frame = self._block(kind, start)
            if frame is not None:
                yield frame

    def _section(self) -> None:
        start = self.source.at - 4
        lengths = self.source.take(8, "the file ends within a section header")
        for order in "<>":
            total, magic = struct.unpack(order + "II", lengths)
            if magic == _ORDER_MAGIC:
                break
        else:
            raise CaptureError("a section of unknown byte order", start)
        if total < 28 or total % 4:
            raise CaptureError(f"a section header of {total} octets cannot be", start)
        self.order = order
        self.interfaces = []
        self.source.skip(total - 12, "the file ends within a section header")

    def _block(self, kind: int, start: int) -> Frame | None:
        raw = self.source.take(4, "the file ends within a block")
        total = struct.unpack(self.order + "I", raw)[0]
        if total < 12 or total % 4:
            raise CaptureError(f"a block of {total} octets cannot be", start)
        known = kind in (_INTERFACE, _PACKET, _SIMPLE_PACKET, _OLD_PACKET)
        if not known:
            self.source.skip(total - 8, "the file ends within a block")
            return None
        if total > _MAX_BLOCK:
            raise CaptureError(f"a block of {total} octets cannot be", start)
        body = self.source.take(total - 8, "the file ends within a block")[:-4]
        try:
            if kind == _INTERFACE:
                self._add_interface(body, start)
                return None
            return self._packet(kind, body)
        except (struct.error, IndexError):
            raise CaptureError("a block that contradicts itself", start) from None

    def _add_interface(self, body: bytes, start: int) -> None:
        if len(self.interfaces) >= _MAX_INTERFACES:
            raise CaptureError(f"more than {_MAX_INTERFACES} interfaces", start)
        link, _, snap = struct.unpack_from(self.order + "HHI", body)
        found = _Interface(link, snap)
        at = 8
        while at + 4 <= len(body):
            code, length = struct.unpack_from(self.order + "HH", body, at)
            value = body[at + 4 : at + 4 + length]
            if code == _OPTION_END:
                break
            if code == _OPTION_RESOLUTION and length == 1:
                found.resolution = value[0]
            elif code == _OPTION_OFFSET and length == 8:
                found.offset = struct.unpack(self.order + "q", value)[0]
            at += 4 + (length + 3) // 4 * 4
        self.interfaces.append(found)

    def _packet(self, kind: int, body: bytes) -> Frame:
        if kind == _SIMPLE_PACKET:
            (octets,) = struct.unpack_from(self.order + "I", body)
            interface = self.interfaces[0]
            held = min(octets, interface.snap or octets)
            return Frame(None, interface.link, _held(body, 4, held))
        index_format = "I" if kind == _PACKET else "HH"
        index, *_, high, low, held, _ = struct.unpack_from(self.order + index_format + "IIII", body)
        interface = self.interfaces[index]
        time = interface.nanoseconds(high << 32 | low)
        return Frame(time, interface.link, _held(body, 20, held))


def _held(body: bytes, at: int, size: int) -> bytes:
    if at + size > len(body):
        raise IndexError
    return body[at : at + size]
