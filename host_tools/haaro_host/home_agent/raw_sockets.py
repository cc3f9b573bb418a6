"""The sockets of tunnels that are in no UDP: IP protocols 4, 47 and 55 of the home agent's address.

Knows no encapsulation, only whole packets. Called by the shell.
"""

import socket
from collections.abc import Iterator

from haaro.wire.ipv4 import text
from haaro_host.home_agent.encapsulations import PROTOCOLS

_BATCH = 64
_RECEIVE_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33


class RawSockets:
    """One receiving socket for each protocol, and one that sends whole packets.

    While they are open the kernel answers no such packet with "protocol unreachable". OSError.
    """

    def __init__(self, address: bytes) -> None:
        self.receivers: list[socket.socket] = []
        # IPPROTO_RAW: the header is ours, the kernel adds identification and checksum.
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._sender.setblocking(False)
        for protocol in PROTOCOLS:
            receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
            self.receivers.append(receiver)
            receiver.setblocking(False)
            try:
                receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            except PermissionError:
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            receiver.bind((text(address), 0))

    def receive(self, receiver: socket.socket) -> Iterator[bytes]:
        """Yield what is queued, a batch at most, from the outer header on."""
        for _ in range(_BATCH):
            try:
                yield receiver.recv(65536)
            except OSError:
                return

    def send(self, packet: bytes) -> None:
        """Send a whole packet. Raises OSError."""
        self._sender.sendto(packet, (text(packet[16:20]), 0))

    def close(self) -> None:
        """Close all sockets."""
        for one in (*self.receivers, self._sender):
            one.close()
