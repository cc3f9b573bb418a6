"""The module `socket` as lwIP's ports have it: addresses are tuples, few options, no AF_UNIX.

MCU_SIM_PORT "rp2": no SO_BINDTODEVICE. What nothing has come for is EAGAIN, or ETIMEDOUT each
second time; each 50th datagram that is sent finds no buffer (ENOMEM). An empty datagram is taken
for the end of a connection on esp32: nothing comes any more (ports/esp32/modsocket.c, peer_closed).
"""

import io
import os
import struct

import usocket as _real

AF_INET = 2
SOCK_STREAM = 1
SOCK_DGRAM = 2
SOL_SOCKET = 0xFFF
SO_REUSEADDR = 4
if os.getenv("MCU_SIM_PORT") != "rp2":
    SO_BINDTODEVICE = 0x100B

_ESP32 = os.getenv("MCU_SIM_PORT") != "rp2"
_OPTIONS = {4: 2, 0x100B: 25}
_EAGAIN, _ENOMEM, _EINVAL, _ETIMEDOUT = 11, 12, 22, 116


def getaddrinfo(host, port, *rest):
    """Only addresses: there is no name server."""
    for octet in host.split("."):
        int(octet)
    return [(AF_INET, SOCK_STREAM, 0, "", (host, port))]


def _packed(address):
    host, port = address
    octets = bytes([int(octet) for octet in host.split(".")])
    return struct.pack("@H", AF_INET) + struct.pack(">H4s8s", port, octets, b"")


class socket(io.IOBase):
    """A UDP socket."""

    def __init__(self, family=AF_INET, kind=SOCK_STREAM, protocol=0):
        self._real = _real.socket(family, kind)
        self._timed_out = False
        self._sent = 0
        self._closed = None

    def ioctl(self, request, argument):
        # 4: close, 10: the file descriptor, for poll.
        if request == 10:
            return self._real.fileno()
        return 0 if request == 4 else -_EINVAL

    def setsockopt(self, level, option, value):
        if level != SOL_SOCKET or option not in _OPTIONS:
            raise OSError(_EINVAL)
        if option == 0x100B:
            import network

            value = network.device().encode() + b"\0"
        self._real.setsockopt(1, _OPTIONS[option], value)

    def setblocking(self, yes):
        self._real.setblocking(yes)

    def bind(self, address):
        self._real.bind(_packed(address))

    def sendto(self, data, address):
        self._sent += 1
        if self._sent % 50 == 0:
            raise OSError(_ENOMEM)
        return self._real.sendto(data, _packed(address))

    def recvfrom(self, octets):
        if self._closed:
            return b"", self._closed
        try:
            data, source = self._real.recvfrom(octets)
        except OSError:
            self._timed_out = not self._timed_out
            raise OSError(_ETIMEDOUT if self._timed_out else _EAGAIN) from None
        port, host = struct.unpack(">H4s", source[2:8])
        source = (".".join([str(octet) for octet in host]), port)
        if not data and _ESP32:
            self._closed = source
        return data, source

    def close(self):
        self._real.close()
