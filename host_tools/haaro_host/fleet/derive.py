"""KRm of a pair of sites, so that N sites need no N^2 hand work.

    KRm = HKDF-SHA256(secret of the epoch, salt = none, 20 octets,
                      info = "haaro KRm 1" | epoch | HoA a | generation a | HoA b | generation b)

(RFC 5869; epoch and generations 4 octets big-endian; a is the lower home address.) Both home
addresses are in it, ordered, so that both boxes get the same key and no two pairs share one. What
follows from it:

- A box holds the results for its own pairs. It cannot get another pair's key, nor the secret.
- Who has the secret has all keys: it never leaves the store.
- Every epoch has a secret of its own, drawn, not derived: keys of a retired epoch cannot be made
  again by anybody, not by who steals the store later either.
- A generation is how many boxes had this home address. After a theft it is one more, and the new
  box shares no key with the old one within the same epoch.
"""

import base64
import hashlib
from typing import Any

from haaro.wire import ipv4

CONSOLE_ROUNDS = 4096
KRM_OCTETS = 20
SECRET_OCTETS = 32
_LABEL = b"haaro KRm 1"
_CONSOLE_LABEL = b"haaro console 1"
_PASSWORD_OCTETS, _SALT_OCTETS = 10, 16


def krm(secret: bytes, epoch: int, one: tuple[str, int], other: tuple[str, int]) -> bytes:
    """Return KRm of two (home address, generation); their order does not matter."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = _LABEL + epoch.to_bytes(4, "big")
    ends = sorted((ipv4.address(address), generation) for address, generation in (one, other))
    if ends[0][0] == ends[1][0]:
        raise ValueError("a pair is two home addresses")
    for address, generation in ends:
        info += address + generation.to_bytes(4, "big")
    return HKDF(algorithm=SHA256(), length=KRM_OCTETS, salt=None, info=info).derive(secret)


def console(secret: bytes, site: str, generation: int) -> tuple[str, dict[str, Any]]:
    """Return (password of the console of `site`, what its secrets file has to check it by).

    80 bits, as four groups of four letters and digits that are not taken for each other.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = _CONSOLE_LABEL + generation.to_bytes(4, "big") + site.encode()
    made = HKDF(
        algorithm=SHA256(), length=_PASSWORD_OCTETS + _SALT_OCTETS, salt=None, info=info
    ).derive(secret)
    text = base64.b32encode(made[:_PASSWORD_OCTETS]).decode().lower()
    password = "-".join(text[at : at + 4] for at in range(0, len(text), 4))
    salt = made[_PASSWORD_OCTETS:]
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, CONSOLE_ROUNDS)
    return password, {"salt": salt.hex(), "rounds": CONSOLE_ROUNDS, "hash": digest.hex()}
