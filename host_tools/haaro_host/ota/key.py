"""The Ed25519 key that bundles are signed with: in the sealed store, beside the sites' keys."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haaro_host.fleet import store
from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet
from haaro_host.fleet.keys import Keys

_FIRST = "there is no key to sign with; first: haaro ota key new"


def new(keys: Keys, replace: bool) -> None:
    """Make one. Raises FleetError if there is one already and it is not to be replaced."""
    if keys.ota() and not replace:
        raise FleetError(
            f"there is a key already, {keys.ota()[0]['fingerprint']}; --replace makes another:"
            " boxes must get their new router.json before they take a bundle of it"
        )
    made = Ed25519PrivateKey.generate()
    keys.add_ota(made.public_key().public_bytes_raw(), made.private_bytes_raw())


def signing(keys: Keys, mark: str = "") -> Ed25519PrivateKey:
    """Return the key in use, or the one with the fingerprint `mark`. Raises FleetError."""
    for record in keys.ota():
        if mark in ("", record["fingerprint"]):
            return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(record["secret"]))
    raise FleetError(f"no key {mark} is in the store; see: haaro ota key show" if mark else _FIRST)


def publics(fleet: Fleet) -> list[bytes]:
    """Return the public keys; needs no passphrase. Raises FleetError when there is none."""
    found = [bytes.fromhex(record["public"]) for record in store.index(fleet).get("ota", [])]
    if not found:
        raise FleetError(_FIRST)
    return found
