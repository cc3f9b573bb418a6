"""AF_NETLINK from MicroPython: requests with their answers, and attributes both ways.

Owns framing, sequence numbers and errors (raised as OSError with the kernel's errno). Which links
and routes there should be is platform/linux.py's business. Structures are in host byte order.
"""

import socket
import struct

from haaro.compat import const

_AF_NETLINK = const(16)
_SOCK_RAW = const(3)
_NLMSG_ERROR = const(2)
_NLMSG_DONE = const(3)
_HEADER = const(16)
# The kernel fills a page at most, less its own overhead, for a reader this small.
_RECEIVE = const(4096)
_EMSGSIZE = const(90)
_HOLE = const(_RECEIVE + 64)

# Room for an answer, given up when one is read: late in a router's life the heap has no other hole
# of that size, and a cable that is pulled must not end it.
_held: list = []

REQUEST = 1
ACK = 4
ROOT_AND_MATCH = 0x300
CREATE = 0x400
EXCLUSIVE = 0x200
REPLACE = 0x100

GROUP_LINK = 1
GROUP_ADDRESS = 0x10
GROUP_ROUTE = 0x40

GENERIC = 16


class Netlink:
    """One netlink socket; groups != 0 makes it one of events, to be read by `events`.

    octets: of the longest answer; what dumps takes as much as the default.
    """

    def __init__(self, protocol: int = 0, groups: int = 0, octets: int = _RECEIVE) -> None:
        self._octets = octets
        self.socket = socket.socket(_AF_NETLINK, _SOCK_RAW, protocol)
        try:
            self.socket.bind(struct.pack("@HHII", _AF_NETLINK, 0, 0, groups))
        except TypeError:  # CPython's own way to write the address
            self.socket.bind((0, groups))
        if groups:
            self.socket.setblocking(False)
        self._sequence = 0
        _hold()

    def request(self, kind: int, flags: int, body: bytes) -> list:
        """Send one request and return [(type, body)] of its answer; raises OSError."""
        try:
            return self._request(kind, flags, body)
        finally:
            _hold()

    def _request(self, kind: int, flags: int, body: bytes) -> list:
        self._sequence += 1
        flags |= REQUEST
        if not flags & ROOT_AND_MATCH or flags & CREATE:
            flags |= ACK
        message = struct.pack("@IHHII", _HEADER + len(body), kind, flags, self._sequence, 0)
        self.socket.send(message + body)
        answer: list = []
        while True:
            data = b""
            _held.clear()
            data = self.socket.recv(self._octets)
            for kind, sequence, body in messages(data):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    error = struct.unpack_from("@i", body)[0]
                    if error:
                        raise OSError(-error)
                    return answer
                if kind == _NLMSG_DONE:
                    return answer
                answer.append((kind, body))

    def dump(self, kind: int, body: bytes) -> list:
        """Return [(type, body)] of all objects of a kind."""
        return self.request(kind, ROOT_AND_MATCH, body)

    def drain(self) -> bool:
        """Throw away queued events; True if there were any (or more than the queue held)."""
        seen = False
        while True:
            try:
                if not self.socket.recv(_HEADER):
                    return seen
                seen = True
            except OSError as error:
                if error.errno == 11:
                    return seen
                # ENOBUFS: events were lost, so the caller has to look at everything anyway.
                seen = True

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _hold() -> None:
    if not _held:
        try:
            _held.append(bytearray(_HOLE))
        except MemoryError:
            pass  # the next time, perhaps; until then there may be no answer


def messages(data: bytes):
    """Yield (type, sequence, body) of each message in a datagram; raises OSError if it was cut."""
    at = 0
    while at + _HEADER <= len(data):
        length, kind, _, sequence, _ = struct.unpack_from("@IHHII", data, at)
        if length < _HEADER or at + length > len(data):
            raise OSError(_EMSGSIZE)
        yield kind, sequence, data[at + _HEADER : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    length = 4 + len(value)
    return struct.pack("@HH", length, kind) + value + bytes(-length & 3)


def number(kind: int, value: int) -> bytes:
    """Return an attribute of 32 bits."""
    return attribute(kind, struct.pack("@I", value))


def name(kind: int, value: str) -> bytes:
    """Return an attribute with a zero-terminated name."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | 0x8000, b"".join(attributes))


def attributes(body: bytes, at: int) -> dict:
    """Return {type: value} of the attributes from octet `at` on."""
    found = {}
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("@HH", body, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
