"""Registration Revocation and its Acknowledgment (RFC 3543 3.3, 3.4).

7:  Type | Reserved | A I Reserved (2) | Home Address | Home Domain | Foreign Domain | Identifier
15: Type | Reserved | I Reserved (2)   | Home Address | Revocation Identifier
"""

import struct

from haaro.compat import const
from haaro.wire.registration import ExtendedMessage

REVOCATION = const(7)
REVOCATION_ACK = const(15)


class Revocation(ExtendedMessage):
    """`.a` the sender acts as home agent, `.i` inform; `.identifier` is a 32 bit timestamp."""

    type = REVOCATION

    def __init__(self, data: bytes) -> None:
        ExtendedMessage.__init__(self, data, 20)
        self.a = bool(data[2] & 0x80)
        self.i = bool(data[2] & 0x40)
        self.home_address = data[4:8]
        self.home_domain = data[8:12]
        self.foreign_domain = data[12:16]
        self.identifier: int = struct.unpack_from(">I", data, 16)[0]


class RevocationAck(ExtendedMessage):
    """`.i` and `.identifier` answer those of the Revocation."""

    type = REVOCATION_ACK

    def __init__(self, data: bytes) -> None:
        ExtendedMessage.__init__(self, data, 12)
        self.i = bool(data[2] & 0x80)
        self.home_address = data[4:8]
        self.identifier: int = struct.unpack_from(">I", data, 8)[0]


def build_revocation(
    a: bool, i: bool, home_address: bytes, home_domain: bytes, foreign_domain: bytes, ident: int
) -> bytearray:
    """Return the fixed part; the caller appends the authenticator."""
    flags = (0x8000 if a else 0) | (0x4000 if i else 0)
    head = struct.pack(">BBH", REVOCATION, 0, flags) + home_address + home_domain + foreign_domain
    return bytearray(head + struct.pack(">I", ident))


def build_revocation_ack(i: bool, home_address: bytes, ident: int) -> bytearray:
    """Return the fixed part; the caller appends the authenticator."""
    flags = 0x8000 if i else 0
    return bytearray(struct.pack(">BBH4sI", REVOCATION_ACK, 0, flags, home_address, ident))
