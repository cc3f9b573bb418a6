"""UDP at port 434 of a link that is ours alone: IPv4 (RFC 791) and UDP (RFC 768) without a stack.

Owns headers and checksums, and the datagrams that wait for their reader. In place of one of lwIP's
sockets (platform/lwip_sockets.py) on a link that lwIP does not know: a modem's PPP. What is sent is
never a fragment; what comes as one, for another port or address, or is no UDP, is counted and
dropped.
"""

import io

from haaro.compat import const
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import (
    PROTOCOL_UDP,
    TOS_NETWORK_CONTROL,
    build_udp,
    parse_ipv4,
    parse_udp,
    text,
)

_PORT = const(434)
_HEADERS = const(28)
_MOST = const(16)  # datagrams that wait, and ends that are known
_POLL = const(3)  # MP_STREAM_POLL; its bit 1: readable
_EINVAL = const(22)
_EAGAIN = const(11)
_EMSGSIZE = const(90)


class IpSocket(io.IOBase):
    """One address. send(packet, urgent): takes an IPv4 packet, or raises OSError; mtu: octets."""

    def __init__(self, address: bytes, mtu: int, send) -> None:
        self._address = address
        self._mtu = mtu
        self._send = send
        self._came: list = []
        self._ends: dict = {}  # (address, port): as `recvfrom` says it
        self._ident = 0
        self.fragments = 0
        self.malformed = 0
        self.strangers = 0  # not UDP, not to us, or of no content
        self.lost = 0  # nobody has read them in time

    def ioctl(self, request, argument):
        """Answer `poll`."""
        if request == _POLL:
            return argument & 1 if self._came else 0
        return -_EINVAL

    def recvfrom(self, octets: int) -> tuple:
        """Return (datagram, ("192.0.2.1", port)); OSError EAGAIN when there is none."""
        if not self._came:
            raise OSError(_EAGAIN)
        return self._came.pop(0)

    def sendto(self, data, address: tuple, tos: int = 0) -> int:
        """Send to (4 octets, port) after what waits already; OSError when there is no room."""
        self._build(data, address, tos, False)
        return len(data)

    def urgent(self, data, address: tuple) -> int:
        """As `sendto`, ahead of all that is not urgent, and marked so."""
        self._build(data, address, TOS_NETWORK_CONTROL, True)
        return len(data)

    def _build(self, data, address, tos, urgent):
        if _HEADERS + len(data) > self._mtu:
            raise OSError(_EMSGSIZE)
        # A router on the way may cut it (RFC 6864 4.2: then each has a number of its own).
        self._ident = (self._ident + 1) & 0xFFFF
        here = self._address
        self._send(
            build_udp(here, address[0], _PORT, address[1], data, 64, tos, self._ident), urgent
        )

    def take(self, buffer, start: int, end: int) -> None:
        """Take an IPv4 packet that came, borrowed until this returns."""
        packet = memoryview(buffer)[start:end]
        try:
            ip = parse_ipv4(packet)
            if ip.dst != self._address or ip.protocol != PROTOCOL_UDP:
                self.strangers += 1
                return
            sport, dport, data = parse_udp(packet, ip)
        except WireError as error:
            if error.reason == "udp_fragment":
                self.fragments += 1
            else:
                self.malformed += 1
            return
        if dport != _PORT or not data:
            self.strangers += 1
        elif len(self._came) >= _MOST:
            self.lost += 1
        else:
            self._came.append((data, self._end(ip.src, sport)))

    def close(self) -> None:
        """Forget what waits. The link is not ours."""
        self._came = []

    def _end(self, address, port):
        key = (address, port)
        end = self._ends.get(key)
        if end is None:
            if len(self._ends) >= _MOST:
                self._ends.clear()
            self._ends[key] = end = (text(address), port)
        return end
