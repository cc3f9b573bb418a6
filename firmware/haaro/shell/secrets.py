"""Reads router.secrets.json: the keys with the home agent and with single peers.

Owns the schema of that file. Called by config at start, and by the loop's reload in a full heap:
keep it small. The value of a secret is never shown.
"""

import os

from haaro.shell.config_values import (
    REQUIRED,
    ConfigError,
    an_address,
    anything,
    check,
    choice,
    console_hash,
    hidden,
    key_octets,
    krm_octets,
    list_of,
    number,
    quotable,
    read,
    take,
    text_of,
)

_ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha256")


def load(path: str) -> tuple:
    """Return ([(spi, algorithm, key), ...], {home address: [KRm, ...]}) of the file at `path`.

    One or two of each, the one in use first. Raises ConfigError.
    """
    try:
        mode = os.stat(path)[0]
    except OSError as error:
        raise ConfigError(path, "(file)", error, "secrets file cannot be read") from None
    if mode & 0o077:
        allowed = "others may read it; run: chmod 600 " + path
        raise ConfigError(path, "(mode)", "%03o" % (mode & 0o777), allowed)
    top = take(path, "", read(path), _SECRETS, hidden)
    associations = [
        take(path, "mobile_home[%d]." % i, row, _MOBILE_HOME, hidden)
        for i, row in enumerate(top["mobile_home"])
    ]
    if associations[0]["spi"] == associations[-1]["spi"] and len(associations) > 1:
        raise ConfigError(path, "mobile_home[1].spi", associations[1]["spi"], "needs its own SPI")
    _modems(path, top["modems"])
    _wifi(path, top["wifi"])
    static_krm = {}
    for i, row in enumerate(top["peers"]):
        where = "peers[%d]." % i
        peer = take(path, where, row, _PEER, hidden)
        static_krm[peer["home_address"]] = [
            check(path, where + "krm[%d]" % k, text, krm_octets, hidden)
            for k, text in enumerate(peer["krm"])
        ]
    return [(row["spi"], row["algorithm"], row["key"]) for row in associations], static_krm


def modem(path: str, name: str) -> dict:
    """Return {"password", "pin"} of the uplink called `name`, "" where the file has none."""
    for row in _modems(path, take(path, "", read(path), _SECRETS, hidden)["modems"]):
        if row.pop("uplink") == name:
            return row
    return {"password": "", "pin": ""}


def wifi(path: str) -> dict:
    """Return {ssid: password} of the Wi-Fi networks in the file at `path`. Raises ConfigError."""
    rows = _wifi(path, take(path, "", read(path), _SECRETS, hidden)["wifi"])
    return {row["ssid"]: row["password"] for row in rows}


def _wifi(path, rows):
    found = [wifi_row(row, path, "wifi[%d]." % i) for i, row in enumerate(rows)]
    names = [row["ssid"] for row in found]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(path, "wifi[%d].ssid" % i, repr(name), "each network once")
    return found


def _modems(path, rows):
    return [modem_row(row, path, "modems[%d]." % i) for i, row in enumerate(rows)]


def wifi_row(row: object, path: str = "", where: str = "") -> dict:
    """Return one row of "wifi", checked. Raises ConfigError."""
    return take(path, where, row, _WIFI, _unseen)


def modem_row(row: object, path: str = "", where: str = "") -> dict:
    """Return one row of "modems", checked. Raises ConfigError."""
    return take(path, where, row, _MODEM, _unseen)


def _unseen(value: object) -> str:
    # A PIN may have been written as a number.
    return "<not shown>"


def _pin(value: object) -> str:
    # 3GPP TS 31.101 9.5.1: four to eight digits.
    if not isinstance(value, str) or not 4 <= len(value) <= 8 or not value.isdigit():
        raise ValueError("must be a text of 4 to 8 digits")
    return value


def _wpa(value: object) -> str:
    # IEEE 802.11 J.4.1: a passphrase of 8 to 63 ASCII characters, or the key itself.
    if not isinstance(value, str) or not all(" " <= letter <= "~" for letter in value):
        raise ValueError("must be a text of ASCII characters")
    if not 8 <= len(value) <= 63:
        try:
            if len(value) != 64:
                raise ValueError
            bytes.fromhex(value)
        except ValueError:
            raise ValueError("must have 8 to 63 characters, or 64 hexadecimal digits") from None
    return value


_SECRETS = {
    "version": (choice(1), REQUIRED),
    # The one in use, then, while the key is rotated, the other one that is live.
    "mobile_home": (list_of(anything, 1, 2), REQUIRED),
    "peers": (list_of(anything, 0, 64), []),
    "modems": (list_of(anything, 0, 8), []),
    "wifi": (list_of(anything, 0, 16), []),
    # Of the console's password; read by shell/console_lock.py.
    "console": (console_hash, None),
}
_MOBILE_HOME = {
    # RFC 5944 3.5.1: SPIs 0 to 255 are reserved.
    "spi": (number(256, 0xFFFFFFFF), REQUIRED),
    "algorithm": (choice(*_ALGORITHMS), REQUIRED),
    "key": (key_octets, REQUIRED),
}
_MODEM = {"uplink": (text_of(16), REQUIRED), "password": (quotable, ""), "pin": (_pin, "")}
_WIFI = {"ssid": (text_of(32), REQUIRED), "password": (_wpa, REQUIRED)}
_PEER = {"home_address": (an_address, REQUIRED), "krm": (list_of(anything, 1, 2), REQUIRED)}
