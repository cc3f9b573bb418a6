"""The key store of a fleet: opened, changed and written under the fleet's lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from haaro_host.fleet import passphrase, sealed
from haaro_host.fleet.files import PRIVATE, FleetError, locked, write_whole
from haaro_host.fleet.inventory import Fleet
from haaro_host.fleet.keys import Keys


class Store:
    """An opened key store; `keys` may be changed, `save` writes it."""

    def __init__(self, path: Path, keys: Keys, unlock: str, secret: bytes) -> None:
        self.path = path
        self.keys = keys
        self.unlock = unlock
        self._secret = secret

    def seal_with(self, unlock: str, secret: bytes) -> None:
        """Let the next `save` use another passphrase."""
        self.unlock = unlock
        self._secret = secret

    def save(self) -> None:
        """Seal and replace the file. Raises FleetError, and then the old one is there still."""
        data = sealed.seal(self.keys.body, self.keys.index(), self.unlock, self._secret)
        write_whole(self.path, data, PRIVATE)


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise FleetError(f"{path}: others may read it ({mode:04o}); run: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise FleetError(f"{path}: there is no key store yet; first: haaro keys new") from None
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}; make it readable for you alone") from None


def open_store(fleet: Fleet, file: Path | None) -> Store:
    """Return the fleet's store, read only by intent. Raises FleetError."""
    path = fleet.store_path
    data = _read(path)
    unlock = sealed.head_of(data, str(path))["unlock"]
    secret = passphrase.existing(path, unlock, file)
    return Store(path, Keys(sealed.unseal(data, secret, str(path))), unlock, secret)


@contextmanager
def changing(fleet: Fleet, file: Path | None, create: str = "") -> Iterator[Store]:
    """Hold the fleet's lock and give its store; what the caller saved is what stays.

    `create` is how a new one is to be unlocked ("passphrase", "keyring"); "" refuses to make one.
    """
    # Asked for before the lock: nobody shall wait for a person who types.
    path = fleet.store_path
    fresh = bool(create) and not path.exists()
    if fresh:
        made = passphrase.chosen(path, create, file)
        with locked(fleet.directory):
            if path.exists():
                raise FleetError(f"{path}: was made by another command meanwhile; try again")
            yield Store(path, Keys(), create, made)
        return
    unlock = sealed.head_of(_read(path), str(path))["unlock"]
    secret = passphrase.existing(path, unlock, file)
    with locked(fleet.directory):
        yield Store(path, Keys(sealed.unseal(_read(path), secret, str(path))), unlock, secret)


def index(fleet: Fleet) -> dict[str, Any]:
    """Return what the store says of itself without the passphrase; empty when there is none."""
    path = fleet.store_path
    if not path.exists():
        return {"sites": {}, "epochs": []}
    result: dict[str, Any] = sealed.head_of(_read(path), str(path))["index"]
    return result
