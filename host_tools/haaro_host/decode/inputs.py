"""Where datagrams come from: hex text, raw octets, captures; from files, pipes and arguments."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BufferedReader, RawIOBase
from typing import Any, BinaryIO, cast

from haaro_host.decode import captures
from haaro_host.decode.packets import Datagram, Extractor

_SNIFF = 4  # enough: no message type is a hexadecimal digit or a space
_MAX_LINE = 4 * 65536  # characters: 65535 octets as `aa:bb:` and some spaces
_MAX_RAW = 65536
_HEX = frozenset(b"0123456789abcdefABCDEF")
_BETWEEN = frozenset(b" \t\r\n\v\f:")


def from_hex(text: bytes, source: dict[str, Any] | None = None) -> Datagram:
    """Return the datagram that one line of hex means; spaces and colons may stand between."""
    digits = bytearray()
    for at, octet in enumerate(text):
        if octet in _HEX:
            digits.append(octet)
        elif octet not in _BETWEEN:
            return _not_hex(digits, "not_hex", at, source)
    if len(digits) % 2:
        return _not_hex(digits, "odd_hex", len(text), source)
    return Datagram.whole(bytes.fromhex(digits.decode()), source)


def _not_hex(digits: bytearray, reason: str, at: int, source: dict[str, Any] | None) -> Datagram:
    data = bytes.fromhex(digits[: len(digits) // 2 * 2].decode())
    return Datagram(data, len(data), source, reason, at)


def hex_lines(file: BinaryIO, place: dict[str, Any]) -> Iterator[Datagram]:
    """Yield one datagram a line, an empty one for an empty line."""
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        source = {**place, "line": number}
        found = from_hex(line.rstrip(b"\r\n"), source)
        if len(line) == _MAX_LINE and not line.endswith(b"\n"):
            found = Datagram(found.data[:65535], len(found.data), source, "too_long", 65535)
            while line and not line.endswith(b"\n"):
                line = file.readline(_MAX_LINE)
        yield found


class FileInput:
    """One file or standard input, whatever it holds.

    After the datagrams, `problems` says in words what was wrong with a capture as a whole;
    `captured` tells whether it was one, `frames` how many were read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self.captured = False
        self.frames = 0
        source = file if isinstance(file, BufferedReader) else BufferedReader(cast(Any, file))
        self._head = source.read(_SNIFF)
        self._file = BufferedReader(_Again(self._head, source))

    def datagrams(self) -> Iterator[Datagram]:
        """Yield the datagrams: of a capture, of lines of hex, or the one that the file is."""
        head = self._head
        if captures.is_capture(head):
            self.captured = True
            yield from self._capture()
        elif head and all(octet in _HEX or octet in _BETWEEN for octet in head):
            yield from hex_lines(self._file, {"file": self.name})
        else:
            yield Datagram.whole(_read(self._file, _MAX_RAW), {"file": self.name})

    def _capture(self) -> Iterator[Datagram]:
        extractor = Extractor()
        try:
            for frame in captures.frames(self._file):
                self.frames += 1
                place = {"file": self.name, "frame": self.frames, "time": iso(frame.time)}
                yield from _placed(extractor.datagram(frame.data, frame.link), place)
        except captures.CaptureError as error:
            what = "cut short" if error.cut else "damaged"
            self.problems.append(f"{what}: {error}; {self.frames} frames were read")
        if extractor.unknown_links:
            links = ", ".join(map(str, sorted(extractor.unknown_links)))
            self.problems.append(f"frames of unknown link type {links} were not read")
        lost = extractor.fragments_lost + extractor.fragments_waiting
        if lost:
            self.problems.append(f"{lost} UDP fragments or fragmented packets were not complete")


class _Again(RawIOBase):
    """A stream of which the first octets were read already, from the start."""

    def __init__(self, head: bytes, rest: BufferedReader) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # read1 gives what is there: a capture from a pipe is shown as it comes.
        data = self._head or self._rest.read1(len(buffer))
        self._head = b""
        buffer[: len(data)] = data
        return len(data)


def live(packets: Iterator[tuple[int, bytes]], interface: str) -> Iterator[Datagram]:
    """Yield the datagrams of a live interface."""
    extractor = Extractor()
    for number, (time, packet) in enumerate(packets, 1):
        place = {"interface": interface, "frame": number, "time": iso(time)}
        yield from _placed(extractor.in_ipv4(packet), place)


def iso(time: int | None) -> str | None:
    """Return nanoseconds since 1970 as ISO 8601 in UTC with microseconds; None if impossible."""
    if time is None:
        return None
    try:
        moment = datetime.fromtimestamp(time // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time % 10**9 // 1000:06d}Z"


def standard_input() -> BinaryIO:
    """Return standard input as octets."""
    return sys.stdin.buffer


def _placed(found: Datagram | None, place: dict[str, Any]) -> Iterator[Datagram]:
    if found is not None:
        source = {**place, **(found.source or {})}
        yield Datagram(found.data, found.octets, source, found.fault, found.fault_at)


def _read(file: BinaryIO, most: int) -> bytes:
    parts = bytearray()
    while len(parts) < most:
        part = file.read(most - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)
