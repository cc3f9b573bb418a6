"""The socket of what the home agent says and hears for itself: signalling and keepalives.

Owns a raw UDP socket and the filters that split port 434: each datagram is either data, for the
ordinary UDP socket, or control, for this one. So control is received however full the queue of
data is, and leaves marked CS6, ahead of data. Knows no message. Called by the shell.
"""

import ctypes
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from haaro.wire import ipv4
from haaro.wire.ipv4 import text
from haaro.wire.message import MIP_PORT

_SO_ATTACH_FILTER = 26
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DONT = 0
_PRIORITY_CONTROL = 6  # the first band of Linux's default queue
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
_BATCH = 64
_ALL = 0xFFFF

# Classic BPF: load, compare, return.
_LDX_IMM, _LDX_HEADER = 0x01, 0xB1  # X = k; X = 4 * (octet k & 15)
_LD_B_X, _LD_H_X, _LD_W_X, _LD_LENGTH = 0x50, 0x48, 0x40, 0x80
_SUB_X, _JEQ, _JGE, _JSET, _RET = 0x1C, 0x15, 0x35, 0x45, 0x06

_UDP_HEADER = 8
_INNER = _UDP_HEADER + 4  # the inner packet, behind the tunnel data header
_SHORTEST_CONTROL = _INNER + 28  # with an ICMP or UDP header

_Instruction = tuple[int, int, int, int]  # code, jumps when true and when false, k


class Datagram(NamedTuple):
    """One control datagram that arrived at port 434."""

    src: bytes
    sport: int
    data: bytes


class PrioritySocket:
    """Sends from, and receives control at, UDP port 434 of `address`; raises OSError."""

    def __init__(self, address: bytes) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        try:
            _attach(self._socket, _program(address, True))
            self._socket.setblocking(False)
            self._socket.bind((text(address), 0))
            self._drain()
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ipv4.TOS_NETWORK_CONTROL)
            # After the TOS, which sets the priority too, and to another one.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _PRIORITY_CONTROL)
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        except OSError:
            self._socket.close()
            raise
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, dst: bytes, dport: int, payload: bytes) -> None:
        """Send one datagram from port 434. Raises OSError."""
        packet = ipv4.build_udp(self._address, dst, MIP_PORT, dport, payload)
        self._socket.sendto(packet[20:], (text(dst), 0))

    def receive(self) -> Iterator[Datagram]:
        """Yield what is queued, a batch at most; what is no whole datagram is left out."""
        for _ in range(_BATCH):
            try:
                packet = self._socket.recv(65536)
            except OSError:
                return
            # A raw socket gives the IP header too; its checksum and lengths the kernel has checked.
            header = (packet[0] & 15) * 4
            sport, _, length, _ = struct.unpack_from("!HHHH", packet, header)
            data = packet[header + _UDP_HEADER : header + length]
            if length >= _UDP_HEADER and len(data) == length - _UDP_HEADER:
                yield Datagram(packet[12:16], sport, data)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _drain(self) -> None:
        """Throw away what came before filter and address were set."""
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            pass


def only_data(udp: socket.socket, address: bytes) -> None:
    """Keep control away from `udp`, the socket that receives data at port 434 of `address`."""
    _attach(udp, _program(address, False))


def _program(address: bytes, control: bool) -> list[_Instruction]:
    """Return the filter of a raw socket that takes control, or of a UDP socket that takes data.

    Control is every message but tunnel data, and in tunnel data an echo request to `address` or
    UDP from or to port 434, not in fragments: what delivery answers or marks.
    """
    data = 0 if control else _ALL
    code: list[tuple[int, int | str, int | str, int]]
    if control:
        code = [(_LDX_HEADER, 0, 0, 0), (_LD_H_X, 0, 0, 2), (_JEQ, 0, "other", MIP_PORT)]
    else:
        code = [(_LDX_IMM, 0, 0, 0)]  # a UDP socket's filter sees no IP header
    code += [
        (_LD_LENGTH, 0, 0, 0),
        (_SUB_X, 0, 0, 0),
        (_JGE, 0, "data", _UDP_HEADER + 1),
        (_LD_B_X, 0, 0, _UDP_HEADER),
        (_JEQ, 0, "control", 4),
        (_LD_LENGTH, 0, 0, 0),
        (_SUB_X, 0, 0, 0),
        (_JGE, 0, "data", _SHORTEST_CONTROL),
        (_LD_H_X, 0, 0, _UDP_HEADER),
        (_JEQ, 0, "data", 0x0404),
        (_LD_B_X, 0, 0, _INNER),
        (_JEQ, 0, "data", 0x45),
        (_LD_H_X, 0, 0, _INNER + 6),
        (_JSET, "data", 0, 0x3FFF),
        (_LD_B_X, 0, 0, _INNER + 9),
        (_JEQ, 0, 4, ipv4.PROTOCOL_ICMP),
        (_LD_W_X, 0, 0, _INNER + 16),
        (_JEQ, 0, "data", int.from_bytes(address, "big")),
        (_LD_B_X, 0, 0, _INNER + 20),
        (_JEQ, "control", "data", ipv4.ECHO_REQUEST),
        (_JEQ, 0, "data", ipv4.PROTOCOL_UDP),
        (_LD_H_X, 0, 0, _INNER + 20),
        (_JEQ, "control", 0, MIP_PORT),
        (_LD_H_X, 0, 0, _INNER + 22),
        (_JEQ, "control", "data", MIP_PORT),
    ]
    ends = {"other": 0, "data": data, "control": _ALL - data}
    targets = {name: len(code) + place for place, name in enumerate(ends)}

    def jump(at: int, to: int | str) -> int:
        return targets[to] - at - 1 if isinstance(to, str) else to

    linked = [(op, jump(at, yes), jump(at, no), k) for at, (op, yes, no, k) in enumerate(code)]
    return linked + [(_RET, 0, 0, keep) for keep in ends.values()]


def _attach(sock: socket.socket, program: list[_Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    # struct sock_fprog; the kernel copies the program before setsockopt returns.
    pointer = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)
