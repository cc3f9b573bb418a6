"""Counts what each node sent and received, by kind. Reads only the first octets."""

from haaro_host.simulate.datagram import HEADERS, Datagram
from haaro_host.simulate.network import Network

# By (node, kind): [messages, octets of IPv4].
Counts = dict[tuple[str, str], list[int]]


class Tally:
    """What was sent counts even if it is lost on the way.

    Kinds are those of Datagram; all but "user" and "keepalive" is signalling.
    """

    def __init__(self, network: Network) -> None:
        self.sent: Counts = {}
        self.received: Counts = {}
        network.observers.append(self._sent)
        network.arrivals.append(self._received)

    def _sent(self, datagram: Datagram) -> None:
        key = (datagram.sender, datagram.kind)
        found = self.sent.get(key)
        if found is None:
            found = self.sent[key] = [0, 0]
        found[0] += 1
        found[1] += HEADERS + len(datagram.payload)

    def _received(self, datagram: Datagram) -> None:
        key = (datagram.receiver, datagram.kind)
        found = self.received.get(key)
        if found is None:
            found = self.received[key] = [0, 0]
        found[0] += 1
        found[1] += HEADERS + len(datagram.payload)


def signalling(counts: Counts) -> dict[str, tuple[int, int]]:
    """Return (messages, octets) by node of what is neither user traffic nor keepalives."""
    sums: dict[str, tuple[int, int]] = {}
    for (name, kind), (messages, octets) in counts.items():
        if kind not in ("user", "keepalive"):
            before = sums.get(name, (0, 0))
            sums[name] = (before[0] + messages, before[1] + octets)
    return sums
