"""What the two sides of a PPP link ask of each other: options as octets, and where it stands.

RFC 1661 5 and 6. Used by uplink/ppp.py.
"""

MAX_CONFIGURE = 10


class Layer:
    """One option negotiation, ours and the peer's (RFC 1661 4): LCP or IPCP."""

    def __init__(self, protocol: int, options: dict) -> None:
        self.protocol = protocol
        self.options = options  # {type: value} that we ask for
        self.acked = False  # the peer took our request
        self.answered = False  # we took the peer's
        self.tries = MAX_CONFIGURE
        self.naks = 0
        self.ident = 0


def pack(options) -> bytes:
    """Return [(type, value)] as octets."""
    return b"".join([bytes((kind, 2 + len(value))) + value for kind, value in options])


def unpack(data: bytes) -> list | None:
    """Return [(type, value)], None if the lengths do not add up."""
    options = []
    at = 0
    while at < len(data):
        length = data[at + 1] if at + 1 < len(data) else 0
        if length < 2 or at + length > len(data):
            return None
        options.append((data[at], data[at + 2 : at + length]))
        at += length
    return options
