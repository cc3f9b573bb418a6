"""The signalling sockets of the uplinks: Mobile IP messages from and to our care-of addresses.

Owns one raw receive socket and one UDP send socket per uplink, the latter marked CS6 and ahead of
all data. Never looks into a message. What arrives is all to port 434 but tunnelled data
(platform/bpf.py); the kernel does not check UDP checksums here: messages carry authenticators or
cookies of their own. Control packets inside a tunnel come and go by these sockets too, so that
they never wait behind data; those that come are the data plane's to check.
"""

from haaro.compat import const

_LARGEST = const(2048)


class Signalling:
    """`sockets` is the platform's factory (platform/linux_sockets.py).

    take: (uplink, IPv4 packet), called for tunnel data that was sent to `home_address`.
    """

    def __init__(self, sockets, home_address: bytes, take) -> None:
        self._sockets = sockets
        self._home_address = home_address
        self._take = take
        self._poll = None
        self._open: dict = {}  # uplink: (receiver, sender, (interface, address))
        self.send_errors = 0
        self.malformed = 0

    def register(self, poll) -> None:
        """Have the receive sockets, now and later, watched by `poll`."""
        self._poll = poll
        for receiver, _, _ in self._open.values():
            poll.register(receiver, 1)

    def open(self, uplink: int, interface: str, address: bytes) -> None:
        """Receive and send as `address`; replaces what was open, unless it is. Raises OSError."""
        if uplink in self._open and self._open[uplink][2] == (interface, address):
            return
        self.close(uplink)
        # The sender first: from the bind on it keeps the kernel from answering "unreachable".
        sender = self._sockets.control(interface, address)
        try:
            receiver = self._sockets.signalling(interface, address, self._home_address)
        except OSError:
            sender.close()
            raise
        self._open[uplink] = (receiver, sender, (interface, address))
        if self._poll:
            self._poll.register(receiver, 1)

    def close(self, uplink: int) -> None:
        """Close the sockets of an uplink, if open."""
        opened = self._open.pop(uplink, None)
        if opened:
            if self._poll:
                self._poll.unregister(opened[0])
            opened[0].close()
            opened[1].close()

    def send(self, uplink: int, dst: bytes, dport: int, payload: bytes) -> bool:
        """Send a datagram from port 434 of the uplink's address; False and counted on failure."""
        try:
            if uplink in self._open:
                address = self._sockets.inet(dst, dport)
                if self._open[uplink][1].sendto(payload, address) == len(payload):
                    return True
        except OSError:
            pass
        self.send_errors += 1
        return False

    def receive(self, obj) -> tuple | None:
        """Return (uplink, src, sport, dst, dport, data) of the next datagram of socket `obj`.

        None: no more. Empty: it was one for the data plane, which has it now.
        """
        for uplink, (receiver, _, _) in self._open.items():
            if receiver is obj:
                return self._next(uplink, receiver)
        return None

    def _next(self, uplink, receiver):
        while True:
            try:
                packet = receiver.recv(_LARGEST)
            except OSError:
                return None
            if not packet:
                return None
            header = (packet[0] & 15) << 2
            length = 0
            if len(packet) >= header + 8:
                length = packet[header + 4] << 8 | packet[header + 5]
            if length < 8 or header + length > len(packet):
                self.malformed += 1
                continue
            if header == 20 and self._is_control(packet, length):
                self._take(uplink, packet)
                return ()
            return (
                uplink,
                packet[12:16],
                packet[header] << 8 | packet[header + 1],
                packet[16:20],
                packet[header + 2] << 8 | packet[header + 3],
                packet[header + 8 : header + length],
            )

    def _is_control(self, packet, length):
        """What platform/bpf.py lets through as well-formed, and to our home address."""
        return (
            length >= 32
            and packet[28:30] == b"\x04\x04"
            and packet[32] >> 4 == 4
            and packet[48:52] == self._home_address
            and (packet[34] << 8 | packet[35]) == length - 12 == len(packet) - 32
        )

    def close_all(self) -> None:
        """Close everything."""
        for uplink in list(self._open):
            self.close(uplink)
