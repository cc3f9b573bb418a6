"""The secrets of uplinks, which are no keys: Wi-Fi passwords, SIM PINs, passwords of APNs.

Owns their place in the key store's body and `haaro keys wifi` and `haaro keys modem`. They are
given by file or prompt, never on the command line, and shown by nobody. A Wi-Fi network has one
password in the whole fleet; a modem is one of a site.
"""

import sys
from collections.abc import Callable
from getpass import getpass
from pathlib import Path
from typing import Any

import typer

from haaro.shell import secrets as router_secrets
from haaro.shell.config_values import ConfigError
from haaro_host.fleet import inventory, store
from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.keys import Keys
from haaro_host.fleet.output import FLEET, JSON, PASSPHRASE_FILE, document, errors, site_names

WIFI, MODEMS = "wifi", "modems"
_ASK_AGAIN = "give it in a file of mode 0600, or run this on a terminal"


def wifi_networks(site: Site) -> list[dict[str, Any]]:
    """Return the networks of the site's Wi-Fi uplinks, as fleet.toml has them."""
    found = []
    for uplink in _uplinks(site, "wifi"):
        networks = uplink.get("networks")
        found += (
            [row for row in networks if isinstance(row, dict)] if isinstance(networks, list) else []
        )
    return found


def sections(keys: Keys, site: Site) -> dict[str, list[dict[str, Any]]]:
    """Return what router.secrets.json of `site` gets besides keys, empty parts left out.

    Raises FleetError when a Wi-Fi network has no password in the store.
    """
    passwords = keys.body.get(WIFI, {})
    rows: list[dict[str, Any]] = []
    for network in wifi_networks(site):
        ssid = network.get("ssid")
        row = {"ssid": ssid, "password": passwords.get(ssid)}
        if network.get("open") or row in rows:
            continue
        if row["password"] is None:
            raise FleetError(
                f"{site.name}: no password for the Wi-Fi network {ssid!r}; first:"
                f" haaro keys wifi {ssid!r}, or open = true in fleet.toml"
            )
        rows.append(row)
    own = keys.body.get(MODEMS, {}).get(site.name, {})
    names = [uplink.get("name") for uplink in _uplinks(site, "cellular")]
    modems = [{"uplink": name, **own[name]} for name in names if name in own]
    return {name: part for name, part in ((WIFI, rows), (MODEMS, modems)) if part}


def passwords_in(keys: Keys) -> set[str]:
    """Return every password in the store, for what must not print them."""
    modems = [row for site in keys.body.get(MODEMS, {}).values() for row in site.values()]
    found = {*keys.body.get(WIFI, {}).values(), *(row.get("password", "") for row in modems)}
    return found - {""}


def forget(keys: Keys, site: str) -> None:
    """Delete what only the modems of a lost box used."""
    keys.body.get(MODEMS, {}).pop(site, None)


def _uplinks(site: Site, driver: str) -> list[dict[str, Any]]:
    rows = site.router.get("uplinks")
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict) and row.get("driver") == driver]


# --- commands -----------------------------------------------------------------------------------


def wifi(
    ssid: str = typer.Argument(help="the network's name"),
    password_file: Path | None = typer.Option(
        None, "--password-file", help="a file (mode 0600) with the password"
    ),
    remove: bool = typer.Option(False, "--remove", help="delete it from the store"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Keep the password of a Wi-Fi network that boxes use as uplink."""

    def step(fleet: Fleet, keys: Keys) -> list[str]:
        passwords = keys.body.setdefault(WIFI, {})
        if remove:
            if passwords.pop(ssid, None) is None:
                raise FleetError(f"no password is kept for the Wi-Fi network {ssid!r}")
            return [f"Wi-Fi {ssid!r}: its password is deleted"]
        given = _given(password_file, f"Password of the Wi-Fi network {ssid!r}: ")
        passwords[ssid] = _checked(router_secrets.wifi_row, {"ssid": ssid, "password": given})
        users = [
            site.name
            for site in fleet.in_service
            if any(row.get("ssid") == ssid for row in wifi_networks(site))
        ]
        after = (
            f"next: haaro fleet export router {' '.join(users)}"
            if users
            else ("no site uses this network yet: name it in the uplinks of [site.NAME.router]")
        )
        return [f"Wi-Fi {ssid!r}: its password is kept", after]

    _changed(step, path, passphrase_file, as_json)


def modem(
    name: str = typer.Argument(help="the site", metavar="SITE", autocompletion=site_names),
    uplink: str = typer.Argument(help="the name of its cellular uplink"),
    pin_file: Path | None = typer.Option(
        None, "--pin-file", help="a file (mode 0600) with the SIM's PIN"
    ),
    password_file: Path | None = typer.Option(
        None, "--password-file", help="a file (mode 0600) with the password of the APN"
    ),
    remove: bool = typer.Option(False, "--remove", help="delete both from the store"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Keep the PIN and the APN's password of a site's modem. Without a file, both are asked for."""

    def step(fleet: Fleet, keys: Keys) -> list[str]:
        site = fleet.site(name)
        rows = keys.body.setdefault(MODEMS, {}).setdefault(name, {})
        if remove:
            if rows.pop(uplink, None) is None:
                raise FleetError(f"{name}: nothing is kept for an uplink {uplink!r}")
            return [f"{name}: PIN and password of {uplink!r} are deleted"]
        names = [row.get("name") for row in _uplinks(site, "cellular")]
        if uplink not in names:
            known = ", ".join(map(str, names)) or "none"
            raise FleetError(
                f"{name}: no cellular uplink {uplink!r}; its cellular uplinks: {known}"
            )
        row = {"uplink": uplink}
        ask = pin_file is None and password_file is None
        if ask or pin_file:
            row["pin"] = _given(pin_file, "PIN of the SIM (empty: none): ")
        if ask or password_file:
            row["password"] = _given(password_file, "Password of the APN (empty: none): ")
        row = {key: value for key, value in row.items() if value}
        _checked(router_secrets.modem_row, row)
        del row["uplink"]
        rows[uplink] = {**rows.get(uplink, {}), **row}
        kept = " and ".join(rows[uplink]) or "nothing"
        return [f"{name}: {kept} kept for {uplink!r}", f"next: haaro fleet export router {name}"]

    _changed(step, path, passphrase_file, as_json)


def _changed(
    step: Callable[[Fleet, Keys], list[str]],
    path: Path,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    with errors():
        fleet = inventory.load(path)
        with store.changing(fleet, passphrase_file) as opened:
            lines = step(fleet, opened.keys)
            opened.save()
        if as_json:
            document("haaro.keys.uplink/1", done=lines)
            return
        for line in lines:
            typer.echo(line)


def _given(file: Path | None, prompt: str) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise FleetError(f"there is no terminal to ask on; {_ASK_AGAIN}")
        try:
            return getpass(prompt)
        except (EOFError, KeyboardInterrupt):
            raise FleetError("nothing was given; nothing was changed") from None
    try:
        if file.stat().st_mode & 0o077:
            raise FleetError(f"{file}: others may read it; run: chmod 600 {file}")
        return file.read_text().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{file}: cannot be read ({error})") from None


def _checked(rule: Callable[[dict[str, str]], dict[str, str]], row: dict[str, str]) -> str:
    """Have the router's own reader judge the row; return its password, if it has one."""
    try:
        return rule(row).get("password", "")
    except ConfigError as error:
        # file: key: value: what is allowed. The value is never shown.
        raise FleetError(str(error).split(": ", 1)[1]) from None
