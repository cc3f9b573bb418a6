"""Authenticators: HMAC (RFC 2104), Mobile-Home (RFC 5944 3.5), Mobile-Correspondent (RFC 6521 5.3).

With HMAC-SHA1 and HMAC-SHA256 the Mobile-Home authenticator is the full digest, 20 and 32 octets:
RFC 5944 names no truncation. The Mobile-Correspondent one is the first 16 octets of HMAC-SHA1.
"""

import struct
from hashlib import sha256

from haaro.compat import const
from haaro.wire.extensions import MOBILE_HOME_AUTHENTICATION, ROUTE_OPTIMIZATION
from haaro.wire.registration import (
    ExtendedMessage,
    MobileCorrespondentAuthentication,
    MobileHomeAuthentication,
)

try:
    from hashlib import md5
except ImportError:  # some ports of MicroPython
    from haaro.wire.pure_hash import md5  # type: ignore[assignment]
try:
    from hashlib import sha1
except ImportError:
    from haaro.wire.pure_hash import sha1  # type: ignore[assignment]

HMAC_MD5 = "hmac-md5"
HMAC_SHA1 = "hmac-sha1"
HMAC_SHA256 = "hmac-sha256"
ALGORITHMS = (HMAC_MD5, HMAC_SHA1, HMAC_SHA256)

_HASHES = {HMAC_MD5: md5, HMAC_SHA1: sha1, HMAC_SHA256: sha256}
_BLOCK = const(64)
_INNER = int.from_bytes(b"\x36" * 64, "big")
_OUTER = int.from_bytes(b"\x5c" * 64, "big")
_CORRESPONDENT_OCTETS = const(16)  # First (128, HMAC_SHA1 (KRm, Protected Data))


def hmac(algorithm: str, key: bytes, *parts: bytes | bytearray | memoryview) -> bytes:
    """Return the whole HMAC digest over `parts` in a row; ValueError on another algorithm."""
    if algorithm not in ALGORITHMS:
        raise ValueError("unknown algorithm: " + algorithm)
    new = _HASHES[algorithm]
    if len(key) > _BLOCK:
        key = new(key).digest()
    number = int.from_bytes(key + bytes(_BLOCK - len(key)), "big")
    # MicroPython hashes have no copy() and give their digest once: two objects a call.
    hash_in = new((number ^ _INNER).to_bytes(_BLOCK, "big"))
    for part in parts:
        hash_in.update(part)
    hash_out = new((number ^ _OUTER).to_bytes(_BLOCK, "big"))
    hash_out.update(hash_in.digest())
    return hash_out.digest()


def equal(a: bytes, b: bytes) -> bool:
    """Compare in a time that depends on the lengths only."""
    if len(a) != len(b):
        return False
    difference = 0
    for i in range(len(a)):
        difference |= a[i] ^ b[i]
    return difference == 0


def verify_mobile_home(message: ExtendedMessage, algorithm: str, key: bytes) -> bool:
    """Tell whether `message` has exactly one authenticator [A07], of type 32, and it is right."""
    auth = message.authenticator
    if message.authenticators != 1 or not isinstance(auth, MobileHomeAuthentication):
        return False
    covered = memoryview(message.raw)[: auth.offset + 6]
    return equal(hmac(algorithm, key, covered), auth.value)


def verify_mobile_correspondent(message: ExtendedMessage, krm: bytes) -> bool:
    """Tell whether `message` has exactly one authenticator [A42], of type 49/2, and it is right."""
    auth = message.authenticator
    if message.authenticators != 1 or not isinstance(auth, MobileCorrespondentAuthentication):
        return False
    return equal(_correspondent(message.raw, auth.offset, krm), auth.value)


def append_mobile_home(message: bytearray, spi: int, algorithm: str, key: bytes) -> None:
    """Append the Mobile-Home Authentication Extension over all of `message` so far."""
    size = {HMAC_MD5: 16, HMAC_SHA1: 20}.get(algorithm, 32)
    message.extend(struct.pack(">BBI", MOBILE_HOME_AUTHENTICATION, 4 + size, spi))
    message.extend(hmac(algorithm, key, message))


def append_mobile_correspondent(
    message: bytearray, krm: bytes, home_index: int, care_of_index: int
) -> None:
    """Append the Mobile-Correspondent Authentication Extension over all of `message` so far."""
    off = len(message)
    length = 6 + _CORRESPONDENT_OCTETS
    head = struct.pack(">BBBBHH", ROUTE_OPTIMIZATION, length, 2, 0, home_index, care_of_index)
    message.extend(head)
    message.extend(_correspondent(message, off, krm))


def _correspondent(raw: bytes | bytearray, off: int, krm: bytes) -> bytes:
    # RFC 6521 5.3 lists Type, Length and the indexes, not Subtype and Reserved between [A03].
    view = memoryview(raw)
    return hmac(HMAC_SHA1, krm, view[: off + 2], view[off + 4 : off + 8])[:_CORRESPONDENT_OCTETS]
