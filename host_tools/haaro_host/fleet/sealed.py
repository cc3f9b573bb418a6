"""The key store's file: a readable head, and a body that only the passphrase opens.

    {"format": "haaro.keys/1",            which of these descriptions holds
     "unlock": "passphrase",              or "keyring": the passphrase is kept there
     "kdf": {"name": "scrypt", "n": 131072, "r": 8, "p": 1, "salt": "<32 hex digits>"},
     "cipher": {"name": "chacha20-poly1305", "nonce": "<24 hex digits>"},
     "index": {...},                      what may be known without the passphrase: no key
     "sealed": "<base64>"}

The key of the cipher is scrypt of the passphrase (RFC 7914); salt and nonce are new with every
write. All of the head but `sealed` is authenticated with the body (RFC 8439 2.8), as the JSON text
with sorted keys and no spaces: an index that was changed by hand is refused when the store is
opened. Owns the format. Never asks for a passphrase and keeps none.
"""

import base64
import binascii
import json
import os
from typing import Any

from haaro_host.fleet.files import FleetError

FORMAT = "haaro.keys/1"
_SALT_OCTETS = 16
_NONCE_OCTETS = 12
_KEY_OCTETS = 32
# 128 MB and a third of a second for each guess. r and p are what scrypt's author recommends.
_N, _R, _P = 1 << 17, 8, 1
# A head is not authentic before it was used: what it may make us spend is bounded.
_MAX_N, _MAX_R, _MAX_P = 1 << 20, 16, 4


def seal(body: dict[str, Any], index: dict[str, Any], unlock: str, passphrase: bytes) -> bytes:
    """Return the file that holds `body` and shows `index`."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = os.urandom(_SALT_OCTETS), os.urandom(_NONCE_OCTETS)
    head = {
        "format": FORMAT,
        "unlock": unlock,
        "kdf": {"name": "scrypt", "n": _N, "r": _R, "p": _P, "salt": salt.hex()},
        "cipher": {"name": "chacha20-poly1305", "nonce": nonce.hex()},
        "index": index,
    }
    cipher = ChaCha20Poly1305(_derive(passphrase, salt, _N, _R, _P))
    sealed = cipher.encrypt(nonce, _canonical(body), _canonical(head))
    whole = {**head, "sealed": base64.b64encode(sealed).decode()}
    return (json.dumps(whole, indent=1) + "\n").encode()


def head_of(data: bytes, file: str) -> dict[str, Any]:
    """Return the head of a store, checked for form but not authentic. Raises FleetError."""
    try:
        whole = json.loads(data)
        found = whole["format"]
    except (ValueError, KeyError, TypeError):
        raise FleetError(f"{file}: is not a key store of haaro; restore it from a backup") from None
    if found != FORMAT:
        raise FleetError(
            f"{file}: format {str(found)[:40]!r}; this haaro reads {FORMAT}: use the haaro that"
            " wrote it"
        )
    try:
        kdf, cipher = whole["kdf"], whole["cipher"]
        numbers = kdf["n"], kdf["r"], kdf["p"]
        bytes.fromhex(kdf["salt"]), bytes.fromhex(cipher["nonce"])
        base64.b64decode(whole["sealed"], validate=True)
        sound = (
            (kdf["name"], cipher["name"]) == ("scrypt", "chacha20-poly1305")
            and all(type(n) is int and n > 0 for n in numbers)
            and kdf["n"] <= _MAX_N
            and kdf["r"] <= _MAX_R
            and kdf["p"] <= _MAX_P
            and kdf["n"] & (kdf["n"] - 1) == 0
            and kdf["n"] > 1
            and len(cipher["nonce"]) == 2 * _NONCE_OCTETS
            and isinstance(whole["index"], dict)
            and whole["unlock"] in ("passphrase", "keyring")
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        sound = False
    if not sound:
        raise FleetError(f"{file}: its head is damaged; restore it from a backup")
    result: dict[str, Any] = whole
    return result


def unseal(data: bytes, passphrase: bytes, file: str) -> dict[str, Any]:
    """Return the body. Raises FleetError for a wrong passphrase or a changed file."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    whole = head_of(data, file)
    kdf = whole["kdf"]
    key = _derive(passphrase, bytes.fromhex(kdf["salt"]), kdf["n"], kdf["r"], kdf["p"])
    sealed = base64.b64decode(whole.pop("sealed"))
    try:
        body = ChaCha20Poly1305(key).decrypt(
            bytes.fromhex(whole["cipher"]["nonce"]), sealed, _canonical(whole)
        )
    except InvalidTag:
        raise FleetError(
            f"{file}: wrong passphrase, or the file was changed; try again, or restore the file"
        ) from None
    result: dict[str, Any] = json.loads(body)
    return result


def _derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=_KEY_OCTETS, n=n, r=r, p=p).derive(passphrase)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
