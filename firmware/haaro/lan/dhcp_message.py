"""DHCP messages (RFC 2131 figure 1, options of RFC 2132): octets <-> what the server needs."""

import struct

from haaro.compat import const

_FIXED = const(240)  # up to the options, magic cookie included
_COOKIE = b"\x63\x82\x53\x63"
# BOOTP's relays may drop what is shorter.
_SHORTEST = const(300)

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = 1, 2, 3, 4, 5, 6, 7, 8

MASK, ROUTER, DNS, MTU, BROADCAST = 1, 3, 6, 26, 28
REQUESTED, LEASE, _KIND, SERVER, RENEW, REBIND = 50, 51, 53, 54, 58, 59
_CLIENT, _RELAY = 61, 82


class Message:
    """One request of a client; addresses are 4 octets, absent ones None. Raises ValueError."""

    def __init__(self, octets: bytes) -> None:
        if len(octets) < _FIXED or octets[:3] != b"\x01\x01\x06" or octets[236:240] != _COOKIE:
            raise ValueError("no request of a client on Ethernet")
        self.xid = octets[4:8]
        self.flags = octets[10:12]
        self.ciaddr = octets[12:16]
        self.giaddr = octets[24:28]
        self.mac = octets[28:34]
        self.chaddr = octets[28:44]
        options: dict = {}
        at = _FIXED
        while at < len(octets) and octets[at] != 255:
            if not octets[at]:
                at += 1
                continue
            if at + 2 > len(octets) or at + 2 + octets[at + 1] > len(octets):
                raise ValueError("an option is cut")
            value = octets[at + 2 : at + 2 + octets[at + 1]]
            # Parts of one long option belong together (RFC 3396).
            options[octets[at]] = options.get(octets[at], b"") + value
            at += 2 + octets[at + 1]
        kind = options.get(_KIND, b"")
        if len(kind) != 1 or not 1 <= kind[0] <= 8:
            raise ValueError("no DHCP message")
        self.kind = kind[0]
        self.server = _an_address(options, SERVER)
        self.requested = _an_address(options, REQUESTED)
        self.client = options.get(_CLIENT)
        self.relay = options.get(_RELAY)

    @property
    def broadcast(self) -> bool:
        """Whether the client takes nothing but broadcasts before it has its address."""
        return bool(self.flags[0] & 0x80)


def _an_address(options, code):
    value = options.get(code)
    if value is not None and len(value) != 4:
        raise ValueError("option %d is no address" % code)
    return value


def build(request: Message, kind: int, address: bytes, server: bytes, options: list) -> bytes:
    """Return the answer to `request` with yiaddr `address`; options: [(code, value)]."""
    flags = request.flags
    if kind == NAK and request.giaddr != b"\0\0\0\0":
        # The relay broadcasts it: the client may have no address that it can be reached at.
        flags = b"\x80\x00"
    ciaddr = request.ciaddr if kind == ACK else b"\0\0\0\0"
    made = struct.pack(
        ">4s4sHH4s4s4s4s16s192s4s",
        b"\x02\x01\x06\x00",
        request.xid,
        0,
        flags[0] << 8 | flags[1],
        ciaddr,
        address,
        b"",
        request.giaddr,
        request.chaddr,
        b"",
        _COOKIE,
    )
    made += bytes((_KIND, 1, kind, SERVER, 4)) + server
    if request.client is not None:
        options = options + [(_CLIENT, request.client)]  # RFC 6842
    if request.relay is not None:
        options = options + [(_RELAY, request.relay)]  # RFC 3046 2.2: the last
    for code, value in options:
        made += bytes((code, len(value))) + value
    made += b"\xff"
    return made + bytes(max(0, _SHORTEST - len(made)))
