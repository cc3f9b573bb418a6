"""Return routability: messages (RFC 6521 5.6 to 5.9), keygen tokens and KRm (3.2).

HoTI 24, CoTI 25: Type | Reserved | Init Cookie (8)
HoT 26, CoT 27:   Type | Reserved | Nonce Index (2) | Init Cookie (8) | Keygen Token (8)
"""

import struct

from haaro.compat import const
from haaro.wire.auth import HMAC_SHA1, hmac, sha1
from haaro.wire.errors import WireError
from haaro.wire.extensions import walk

HOTI = const(24)
COTI = const(25)
HOT = const(26)
COT = const(27)


class TestMessage:
    """HoTI, CoTI, HoT or CoT by `.type`; `.nonce_index` and `.token` are None in HoTI and CoTI."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, data: bytes) -> None:
        self.type: int = data[0]
        self.nonce_index: int | None = None
        self.token: bytes | None = None
        reply = self.type >= HOT
        fixed = 20 if reply else 10
        if len(data) < fixed:
            raise WireError("message_truncated")
        # Octets after the fixed part are walked and never echoed [A34].
        for _ in walk(data, fixed):
            pass
        if reply:
            self.nonce_index = data[2] << 8 | data[3]
            self.cookie = data[4:12]
            self.token = data[12:20]
        else:
            self.cookie = data[2:10]


def build_init(kind: int, cookie: bytes) -> bytes:
    """Return a HoTI or CoTI; `cookie` is 8 octets."""
    return struct.pack(">BB8s", kind, 0, cookie)


def build_test(kind: int, nonce_index: int, cookie: bytes, token: bytes) -> bytes:
    """Return a HoT or CoT; `cookie` and `token` are 8 octets."""
    return struct.pack(">BBH8s8s", kind, 0, nonce_index, cookie, token)


def home_keygen_token(kcr: bytes, home_address: bytes, nonce: bytes) -> bytes:
    """First (64, HMAC_SHA1 (Kcr, (HoA | nonce | 0))) with one zero octet [A04]."""
    return hmac(HMAC_SHA1, kcr, home_address, nonce, b"\x00")[:8]


def care_of_keygen_token(kcr: bytes, care_of_address: bytes, nonce: bytes) -> bytes:
    """First (64, HMAC_SHA1 (Kcr, (CoA | nonce | 1))); CoA: the source of the CoTI seen [A35]."""
    return hmac(HMAC_SHA1, kcr, care_of_address, nonce, b"\x01")[:8]


def krm(home_token: bytes, care_of_token: bytes) -> bytes:
    """SHA1 (home keygen token | care-of keygen token), 20 octets."""
    return sha1(home_token + care_of_token).digest()


def krm_deregistration(home_token: bytes) -> bytes:
    """SHA1 (home keygen token), for Lifetime 0 only [A33]."""
    return sha1(home_token).digest()
