"""The keys that authenticators are checked with; nothing here ever shows one.

A key given as SPI:ALGORITHM:HEX, as KRm in HEX, or in the secrets file of a router or home agent.
Messages of errors name the place, never the value.
"""

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haaro.wire import auth
from haaro.wire.registration import (
    ExtendedMessage,
    MobileCorrespondentAuthentication,
    MobileHomeAuthentication,
)
from haaro_host.home_agent.status import fingerprint

MAX_SECRETS_FILE = 1 << 20


class KeyFormatError(ValueError):
    """A key that cannot be used; the text says where and why, without the key."""


@dataclass(frozen=True, repr=False)
class MobileHomeKey:
    """One mobility security association: the SPI names it in the message."""

    spi: int
    algorithm: str
    key: bytes


@dataclass(repr=False)
class Keys:
    """All keys given. Several may share an SPI, which is chosen by each pair for itself."""

    mobile_home: list[MobileHomeKey] = field(default_factory=list)
    krm: list[bytes] = field(default_factory=list)

    @classmethod
    def from_options(
        cls, mobile_home: Iterable[str] = (), krm: Iterable[str] = (), secrets: Iterable[Path] = ()
    ) -> "Keys":
        """Return the keys of the command line. Raises KeyFormatError."""
        keys = cls()
        for number, text in enumerate(mobile_home, 1):
            parts = text.split(":")
            if len(parts) != 3:
                raise KeyFormatError(f"--mobile-home, number {number}: not SPI:ALGORITHM:HEX")
            keys._add(f"--mobile-home, number {number}", *parts)
        for number, text in enumerate(krm, 1):
            keys.krm.append(_octets(f"--krm, number {number}", text))
        for path in secrets:
            keys._read(path)
        return keys

    def check(self, message: ExtendedMessage) -> tuple[str, str | None, str | None]:
        """Return (result, algorithm, fingerprint of the key that is right).

        Result "right", "wrong", or "not_checked" when no key for this authenticator is given.
        """
        found = message.authenticator
        if isinstance(found, MobileHomeAuthentication):
            candidates = [each for each in self.mobile_home if each.spi == found.spi]
            for each in candidates:
                if auth.verify_mobile_home(message, each.algorithm, each.key):
                    return "right", each.algorithm, fingerprint(each.key)
            return ("wrong" if candidates else "not_checked"), None, None
        if isinstance(found, MobileCorrespondentAuthentication):
            for krm in self.krm:
                if auth.verify_mobile_correspondent(message, krm):
                    return "right", auth.HMAC_SHA1, fingerprint(krm)
            return ("wrong" if self.krm else "not_checked"), None, None
        return "not_checked", None, None

    def _add(self, where: str, spi: object, algorithm: object, key: object) -> None:
        try:
            number = int(str(spi), 0)
        except ValueError:
            number = -1
        if not 0 <= number <= 0xFFFFFFFF:
            raise KeyFormatError(f"{where}: the SPI is not a number from 0 to 4294967295")
        if algorithm not in auth.ALGORITHMS:
            known = ", ".join(auth.ALGORITHMS)
            raise KeyFormatError(f"{where}: the algorithm is none of {known}")
        self.mobile_home.append(MobileHomeKey(number, str(algorithm), _octets(where, key)))

    def _read(self, path: Path) -> None:
        """Add the keys of a router's JSON or a home agent's TOML secrets file."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SECRETS_FILE)
        except OSError as error:
            raise KeyFormatError(f"--secrets {path}: {error.strerror}") from None
        try:
            document = _document(content.decode())
        except (ValueError, RecursionError):
            raise KeyFormatError(f"--secrets {path}: neither JSON nor TOML") from None
        for table in ("mobile_home", "router"):
            for number, row in enumerate(_rows(document, table), 1):
                where = f"--secrets {path}: {table}, number {number}"
                self._add(where, row.get("spi"), row.get("algorithm", auth.HMAC_MD5),
                          row.get("key"))  # fmt: skip
        for number, row in enumerate(_rows(document, "peers"), 1):
            listed = row.get("krm")
            for text in listed if isinstance(listed, list) else []:
                self.krm.append(_octets(f"--secrets {path}: peers, number {number}", text))


def _document(text: str) -> dict[str, Any]:
    document = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    if not isinstance(document, dict):
        raise ValueError
    return document


def _rows(document: dict[str, Any], table: str) -> list[dict[str, Any]]:
    rows = document.get(table, [])
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _octets(where: str, text: object) -> bytes:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if not key:
        raise KeyFormatError(f"{where}: the key is not one or more octets in hexadecimal")
    return key
