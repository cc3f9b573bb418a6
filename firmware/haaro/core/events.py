"""What the core hands to the shell: datagrams to send and things to apply. Both queues are
bounded.
"""

from haaro.compat import const

_MAX_TRANSMITS = const(256)  # the newest is dropped: every sender retries on its own timer
_MAX_LOGS = const(32)  # the oldest is dropped


class Transmit:
    """One thing to send.

    `tunnel` >= 0: `payload` is a whole inner IPv4 packet for that tunnel. `tunnel` < 0: `payload`
    is a UDP payload, from the care-of address of `uplink`, port 434, to `dst`:`dport`.
    """

    def __init__(self, tunnel: int, uplink: int, dst: bytes, dport: int, payload: bytes) -> None:
        self.tunnel = tunnel
        self.uplink = uplink
        self.dst = dst
        self.dport = dport
        self.payload = payload


class Queues:
    """Transmits in order; events with ("tunnel", id) and ("routes",) at most once each."""

    def __init__(self, counters) -> None:
        self._counters = counters
        self.transmits: list[Transmit] = []  # taken from the front
        self._tunnels: list[int] = []
        self._routes = False
        self._logs: list[tuple[str, str]] = []

    def transmit(self, item: Transmit) -> None:
        """Queue a datagram; a full queue drops it, counted."""
        if len(self.transmits) >= _MAX_TRANSMITS:
            self._counters.bump("transmit_queue_full")
            return
        self.transmits.append(item)

    def tunnel(self, ident: int) -> None:
        """Note that tunnel `ident` changed."""
        if ident not in self._tunnels:
            self._tunnels.append(ident)

    def routes(self) -> None:
        """Note that the forwarding table changed."""
        self._routes = True

    def log(self, level: str, text: str) -> None:
        """Queue a line for the log; `level` is "info" or "warning"."""
        if len(self._logs) >= _MAX_LOGS:
            self._logs.pop(0)
            self._counters.bump("log_queue_full")
        self._logs.append((level, text))

    def next_event(self) -> tuple | None:
        """Return the next event: a tunnel before the routes that use it, then log lines."""
        if self._tunnels:
            return ("tunnel", self._tunnels.pop(0))
        if self._routes:
            self._routes = False
            return ("routes",)
        if self._logs:
            level, text = self._logs.pop(0)
            return ("log", level, text)
        return None
