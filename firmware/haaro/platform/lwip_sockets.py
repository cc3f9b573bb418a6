"""UDP sockets of a board's own stack: one at port 434 for each uplink, for everything.

Owns addresses and options of lwIP's sockets; a link that lwIP does not know makes its own. Where
the port can bind a socket to an interface (esp32) what leaves by it takes that interface; on rp2
lwIP takes its default route whatever the source address is. There is no way to mark packets (TOS)
on either, nor to forbid fragments.
"""

import socket

from haaro.compat import const
from haaro.wire.ipv4 import text

_PORT = const(434)
_SOL_SOCKET = const(0xFFF)
_SO_REUSEADDR = const(4)
_ENOTCONN = const(128)

CAN_BIND = hasattr(socket, "SO_BINDTODEVICE")


class LwipSockets:
    """Open sockets by (interface or None, address). view: of the buffer that senders are given;
    own: {interface: a link that makes its socket itself, as uplink/uart_modem.py}.
    """

    def __init__(self) -> None:
        self._open: dict = {}
        self.own: dict = {}
        self.view = memoryview(b"")
        self.send_errors = 0

    def open(self, interface: str | None, address: bytes):
        """Return a socket at port 434 of `address`; raises OSError."""
        if interface in self.own:
            made = self._open[(interface, address)] = self.own[interface].open(address)
            return made
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            level = getattr(socket, "SOL_SOCKET", _SOL_SOCKET)
            made.setsockopt(level, getattr(socket, "SO_REUSEADDR", _SO_REUSEADDR), 1)
            if interface and CAN_BIND:
                made.setsockopt(level, socket.SO_BINDTODEVICE, interface)  # type: ignore[attr-defined]
            made.bind(_resolved(address, _PORT))
            made.setblocking(False)
        except OSError:
            made.close()
            raise
        self._open[(interface, address)] = made
        return made

    def of(self, uplink: tuple):
        """Return the open socket of (interface, address), None if there is none."""
        return self._open.get(uplink)

    def close(self, uplink: tuple) -> None:
        """Close the socket of (interface, address), if it is open."""
        if uplink in self._open:
            self._open.pop(uplink).close()

    def tunnel(self, interface: str | None, local: bytes, remote: bytes, port: int):
        """Return what sends into one tunnel; it needs no closing."""
        if interface in self.own:
            return _OwnSender(self, (interface, local), (remote, port))
        return _Sender(self, (interface, local), _resolved(remote, port))

    def send(self, uplink: tuple, dst: bytes, dport: int, payload: bytes) -> bool:
        """Send one datagram; False and counted on failure."""
        try:
            opened = self._open[uplink]
            if uplink[0] in self.own:
                return opened.urgent(payload, (dst, dport)) == len(payload)
            if opened.sendto(payload, _resolved(dst, dport)) == len(payload):
                return True
        except (OSError, KeyError):
            pass
        self.send_errors += 1
        return False

    def icmp_errors(self):
        """lwIP gives no ICMP."""
        return None

    def takes_runs(self, interface: str, on: bool = False) -> int:
        """Nor does it cut."""
        return 0

    def mark(self, sender, tos: int) -> None:
        """Nor mark: what is asked for is taken as done, once. A link of its own does."""
        sender.tos = tos

    def drops(self, sockets: list) -> int:
        """Nor count what found its queue full."""
        raise OSError


class _Sender:
    """A tunnel's way out."""

    def __init__(self, sockets, uplink: tuple, address) -> None:
        self._sockets = sockets
        self._uplink = uplink
        self._address = address
        self.tos = 0

    def write(self, buffer, at: int, octets: int) -> int:
        """Send `octets` octets of the plane's buffer; OSError when lwIP has no room (ENOMEM)."""
        sockets = self._sockets
        opened = sockets.of(self._uplink)
        if opened is None:
            raise OSError(_ENOTCONN)
        return opened.sendto(sockets.view[at : at + octets], self._address)

    def close(self) -> None:
        """The socket is the uplink's."""


class _OwnSender(_Sender):
    """A tunnel's way out by a link that has its own socket."""

    def write(self, buffer, at: int, octets: int) -> int:
        """As a _Sender's, with the mark that was asked for."""
        sockets = self._sockets
        opened = sockets.of(self._uplink)
        if opened is None:
            raise OSError(_ENOTCONN)
        return opened.sendto(sockets.view[at : at + octets], self._address, self.tos)


def _resolved(address, port):
    # Never a name: nothing is asked of a server, so this does not wait.
    return socket.getaddrinfo(text(address), port)[0][-1]
