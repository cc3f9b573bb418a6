"""`ping ADDRESS via UPLINK`: four echo requests in the clear, out of one uplink by its address."""

from haaro.compat import const
from haaro.shell.console_ping import Ping
from haaro.wire import ipv4

_LARGEST = const(256)
_PIECES = const(16)


class UplinkPing(Ping):
    """One run by a socket of its own. Raises ValueError, OSError."""

    def __init__(self, console, now: int, words: list) -> None:
        self._socket = None
        super().__init__(console, now, words)

    def _choose(self, console, now: int, words: list) -> None:
        if len(words) != 3 or words[1] != "via":
            raise ValueError("ping ADDRESS via UPLINK")
        uplinks = console.box.router.status(now)["uplinks"]
        found = [one for one in uplinks if one["name"] == words[2]]
        if not found:
            names = " ".join([one["name"] for one in uplinks])
            raise ValueError("no such uplink; uplinks: " + names)
        if not found[0]["up"]:
            raise ValueError("uplink %s is down" % words[2])
        echo = getattr(console.box.machine, "echo", None)
        if echo is None:
            raise ValueError("this platform cannot choose the uplink of a ping")
        self._source = ipv4.address(found[0]["care_of_address"])
        self.way = "uplink %s, in the clear" % words[2]
        self._socket, self._address = echo(found[0]["index"], self._source, self._to)
        console.box.poll.register(self._socket, 1)

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.sendto(packet[20:], self._address)
        except OSError as error:
            self._console.finish("not sent: %s" % error)

    def take(self, now: int, packet: bytes) -> bool:
        """Nothing that comes by a tunnel is ours."""
        return False

    def handle(self, obj, now: int) -> bool:
        """Read our socket; it brings all ICMP of the uplink. Return whether `obj` is it."""
        if obj is not self._socket:
            return False
        for _ in range(_PIECES):
            try:
                packet = self._socket.recv(_LARGEST)
            except OSError:
                break
            Ping.take(self, now, packet)
        return True

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            box = self._console.box
            if box is not None:
                box.poll.unregister(self._socket)
            self._socket.close()
            self._socket = None
