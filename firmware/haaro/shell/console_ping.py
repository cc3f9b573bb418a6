"""`ping`: four echo requests from our home address, through the tunnel that leads to the target."""

from haaro.compat import const
from haaro.wire import ipv4
from haaro.wire.errors import WireError

_COUNT = const(4)
_EVERY_MS = const(1000)
_IDENT = const(0x6B63)


class Ping:
    """One run; the console drops it when it has said its last line. Raises ValueError."""

    def __init__(self, console, now: int, words: list) -> None:
        self._console = console
        self._to = ipv4.address(words[0])
        self.target = words[0]
        self._sent: list = []
        self._answered = 0
        self._next = now
        self._choose(console, now, words)

    def _choose(self, console, now: int, words: list) -> None:
        if len(words) != 1:
            raise ValueError("ping ADDRESS, or ping ADDRESS via UPLINK")
        self._source = console.box.settings.home_address
        self._tunnel = -1
        longest = -1
        for prefix, plen, tunnel, _ in console.box.router.forwarding_table()[0]:
            if plen > longest and ipv4.contains(prefix, plen, self._to):
                self._tunnel, longest = tunnel, plen
        if self._tunnel < 0:
            raise ValueError("%s: no tunnel leads there now" % self.target)
        self.way = "the direct tunnel" if self._tunnel else "the home agent's tunnel"

    def _send(self, packet: bytes) -> None:
        self._console.box.plane.send(self._tunnel, packet)

    def handle(self, obj, now: int) -> bool:
        """Return whether `obj` is a socket of ours: here there is none."""
        return False

    def close(self) -> None:
        """There is nothing to give back."""

    def tick(self, now: int) -> None:
        """Send the next request when it is due, or end."""
        if now < self._next:
            return
        self._next = now + _EVERY_MS
        console = self._console
        if len(self._sent) == _COUNT:
            self.close()
            console.ping = None
            text = "%d of %d answered" % (self._answered, _COUNT)
            console.finish(text + "\r\nok" if self._answered else "error: " + text)
            return
        seq = len(self._sent)
        packet = ipv4.build_icmp_echo(self._source, self._to, False, _IDENT, seq, b"haaro")
        self._sent.append(now)
        self._send(packet)

    def take(self, now: int, packet: bytes) -> bool:
        """Take an inner packet if it is an answer to ours; return whether it was."""
        try:
            ip = ipv4.parse_ipv4(packet)
            if ip.protocol != 1 or ip.src != self._to:
                return False
            echo = ipv4.parse_icmp_echo(packet, ip)
        except WireError:
            return False
        if echo is None or not echo[0] or echo[1] != _IDENT or echo[2] >= len(self._sent):
            return False
        self._answered += 1
        self._console.finish("%s: %d ms" % (self.target, now - self._sent[echo[2]]))
        return True
