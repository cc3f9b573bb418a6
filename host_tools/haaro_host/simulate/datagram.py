"""One UDP datagram between public addresses, and what it carries by its first octets.

Owns nothing else. The kinds are told without the wire layer, so that counting a datagram costs
little and a defect of the parser cannot hide in the count.
"""

from haaro.wire import ipv4, message
from haaro.wire.message import MIP_PORT
from haaro.wire.udp_tunnel import TUNNEL_HEADER

# IPv4 and UDP headers around the payload, in octets.
HEADERS = 28

NAMES = {
    message.REGISTRATION_REQUEST: "request",
    message.REGISTRATION_REPLY: "reply",
    message.REVOCATION: "revocation",
    message.REVOCATION_ACK: "revocation ack",
    message.HOTI: "hoti",
    message.COTI: "coti",
    message.HOT: "hot",
    message.COT: "cot",
}
# What comes back to a port other than 434 and is signalling all the same.
_ANSWERS = (message.REGISTRATION_REPLY, message.HOT, message.COT)
_ICMP, _UDP = b"\x01", b"\x11"
_PORT = MIP_PORT.to_bytes(2, "big")


class Datagram:
    """A datagram on the wire: when, from whom, between what, and "" or why it was dropped.

    `sender` and `receiver` are names of nodes; `receiver` is "" until it arrives. `src` and `dst`
    are rewritten by NATs on the way, `first` is (src, sport, dst, dport) as it was sent. `kind` is
    the name of what is carried: a message, "keepalive", "user" or "other".
    """

    __slots__ = (
        "dport",
        "dropped",
        "dst",
        "first",
        "kind",
        "payload",
        "receiver",
        "sender",
        "sport",
        "src",
        "time",
    )

    def __init__(self, time: int, ends: tuple[bytes, int, bytes, int], payload: bytes) -> None:
        self.time = time
        self.first = ends
        self.src, self.sport, self.dst, self.dport = ends
        self.dropped = ""
        self.sender = ""
        self.receiver = ""
        self.carry(payload)

    def carry(self, payload: bytes) -> None:
        """Have this payload, and be of its kind."""
        self.payload = payload
        if payload[:4] != TUNNEL_HEADER:
            self.kind = NAMES.get(payload[0], "other") if payload else "other"
        elif payload[13:14] == _ICMP:
            self.kind = "keepalive"
        else:
            found = self.control
            if found is None:
                self.kind = "user"
            else:
                self.kind = NAMES.get(found[0], "other") if found else "other"

    def copy(self) -> "Datagram":
        """Return a duplicate that a NAT may rewrite on its own."""
        ends = (self.src, self.sport, self.dst, self.dport)
        other = Datagram(self.time, ends, self.payload)
        other.sender = self.sender
        return other

    @property
    def inner(self) -> bytes | None:
        """The tunnelled packet, or None."""
        return self.payload[4:] if self.payload[:4] == TUNNEL_HEADER else None

    @property
    def control(self) -> bytes | None:
        """The Mobile IP message carried, tunnelled or not; None for user traffic, keepalives."""
        payload = self.payload
        if payload[:4] != TUNNEL_HEADER:
            return payload
        if payload[13:14] != _UDP:
            return None
        data = 4 + (payload[4] & 15) * 4
        found = payload[data + 8 :]
        if payload[data + 2 : data + 4] == _PORT or (
            payload[data : data + 2] == _PORT and found[:1] and found[0] in _ANSWERS
        ):
            return found
        return None

    def __repr__(self) -> str:
        via = " dropped: " + self.dropped if self.dropped else ""
        where = f"{ipv4.text(self.src)}:{self.sport} > {ipv4.text(self.dst)}:{self.dport}"
        return f"{self.time:8} {where} {self.kind}{via}"
