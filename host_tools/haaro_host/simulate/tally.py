"""Counts what each node sent and received, by kind. Reads only the first octets."""

from collections import Counter

from haaro_host.simulate.datagram import HEADERS, Datagram
from haaro_host.simulate.network import Network


class Tally:
    """Messages and octets (of IPv4) by node name; kinds "user", "keepalive", all else signalling.

    What was sent counts even if it is lost on the way.
    """

    def __init__(self, network: Network) -> None:
        self.sent: dict[str, Counter[str]] = {}
        self.sent_octets: dict[str, Counter[str]] = {}
        self.received: dict[str, Counter[str]] = {}
        self.received_octets: dict[str, Counter[str]] = {}
        network.observers.append(self._sent)
        network.arrivals.append(self._received)

    def _sent(self, datagram: Datagram) -> None:
        _add(self.sent, self.sent_octets, datagram.sender, datagram)

    def _received(self, datagram: Datagram) -> None:
        _add(self.received, self.received_octets, datagram.receiver, datagram)


def _add(
    messages: dict[str, Counter[str]],
    octets: dict[str, Counter[str]],
    name: str,
    datagram: Datagram,
) -> None:
    kind = datagram.kind
    counter = messages.get(name)
    if counter is None:
        counter = messages[name] = Counter()
        octets[name] = Counter()
    counter[kind] += 1
    octets[name][kind] += HEADERS + len(datagram.payload)


def signalling(counter: "Counter[str]") -> int:
    """Return the part of a count that is neither user traffic nor keepalives."""
    return sum(n for kind, n in counter.items() if kind not in ("user", "keepalive"))
