"""Where the passphrase of a key store comes from: a file, the environment, the keyring, a prompt.

Never the command line: that is public on the machine.
"""

import getpass
import os
import secrets
import sys
from pathlib import Path

from haaro_host.fleet.files import FleetError

VARIABLE = "HAARO_PASSPHRASE"
_LEAST = 8
_SERVICE = "haaro key store"
_REMEDY = f"give --passphrase-file FILE, set {VARIABLE}, or run it on a terminal"


def existing(store: Path, unlock: str, file: Path | None) -> bytes:
    """Return the passphrase of the store at `store`. Raises FleetError."""
    given = _given(file)
    if given is not None:
        return given
    if unlock == "keyring":
        found = _keyring().get_password(_SERVICE, str(store))
        if found is None:
            raise FleetError(
                f"{store}: the keyring of this desktop has no passphrase for it; {_REMEDY}"
            )
        return str(found).encode()
    return _prompt(f"Passphrase of {store}: ", store)


def chosen(store: Path, unlock: str, file: Path | None, fresh: bool = False) -> bytes:
    """Return the passphrase to seal a store with; a prompt asks twice. Raises FleetError.

    `fresh`: the one in the environment is the old one, and not meant.
    """
    given = None if fresh and file is None else _given(file)
    if given is None and unlock == "keyring":
        made = secrets.token_urlsafe(32)
        _keyring().set_password(_SERVICE, str(store), made)
        return made.encode()
    if given is None:
        given = _prompt(f"New passphrase for {store}: ", store)
        if _prompt("Once more: ", store) != given:
            raise FleetError("the two passphrases differ; nothing was changed, try again")
    if len(given) < _LEAST:
        raise FleetError(f"the passphrase has {len(given)} octets; choose one of {_LEAST} or more")
    return given


def _given(file: Path | None) -> bytes | None:
    if file is not None:
        try:
            if file.stat().st_mode & 0o077:
                raise FleetError(f"{file}: others may read it; run: chmod 600 {file}")
            text = file.read_bytes()
        except OSError as error:
            raise FleetError(f"{file}: {error.strerror}; name a readable passphrase file") from None
        # An editor ends the line; the passphrase is what stands in it.
        text = text.removesuffix(b"\n").removesuffix(b"\r")
        if not text:
            raise FleetError(f"{file}: is empty; write the passphrase in its first line")
        return text
    value = os.environ.get(VARIABLE)
    return value.encode() if value else None


def _prompt(text: str, store: Path) -> bytes:
    if not sys.stdin.isatty():
        raise FleetError(f"{store}: needs a passphrase and there is no terminal; {_REMEDY}")
    try:
        return getpass.getpass(text).encode()
    except (EOFError, KeyboardInterrupt):
        raise FleetError("no passphrase given; nothing was changed") from None


class _Keyring:
    """The two calls of the package `keyring` that are used; its many errors become ours."""

    def __init__(self) -> None:
        try:
            import keyring
        except ModuleNotFoundError:
            raise FleetError(
                "the package keyring is not installed; run: pip install 'haaro[keyring]'"
            ) from None
        self._keyring = keyring

    def get_password(self, service: str, user: str) -> str | None:
        try:
            found: str | None = self._keyring.get_password(service, user)
        except Exception as error:
            # Each backend raises errors of its own: D-Bus, Windows, a plug-in's.
            raise _unusable(error) from None
        return found

    def set_password(self, service: str, user: str, value: str) -> None:
        try:
            self._keyring.set_password(service, user, value)
        except Exception as error:  # as above
            raise _unusable(error) from None


def _keyring() -> _Keyring:
    return _Keyring()


def _unusable(error: Exception) -> FleetError:
    # The text of a backend's error is not ours to trust with what we just handed it.
    return FleetError(f"the desktop's keyring cannot be used ({type(error).__name__}); {_REMEDY}")
