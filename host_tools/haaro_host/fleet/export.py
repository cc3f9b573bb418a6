"""The files that the home agent and the routers read, made of the inventory and the keys.

Owns their text. Called by `haaro fleet export`, and by whatever hands a box its files.
"""

import json
from typing import Any

import tomlkit

from haaro_host.fleet import uplink_secrets
from haaro_host.fleet.files import PRIVATE, PUBLIC, FleetError
from haaro_host.fleet.inventory import Fleet, Site, home_agent_document, router_document
from haaro_host.fleet.keys import Keys

# Name, octets, mode.
File = tuple[str, bytes, int]

_HEADER = "# Made by `haaro fleet export ha` from {file}: edit that one, then make this anew.\n\n"
ROUTER, ROUTER_SECRETS = "router.json", "router.secrets.json"


def home_agent_files(fleet: Fleet, keys: Keys) -> list[File]:
    """Return ha.toml and its secrets file. Raises FleetError when a site has no key."""
    missing = keys.missing(fleet)
    if missing:
        raise FleetError(f"no key for {', '.join(missing)}; first: haaro keys new")
    document = home_agent_document(fleet)
    header = _HEADER.format(file=fleet.path.name)
    tables = [_table("[home_agent]", document["home_agent"])]
    tables += [_table("[[router]]", router) for router in document["router"]]
    secrets = [
        _table(
            "[[router]]",
            {
                "name": site.name,
                "spi": record["spi"],
                "algorithm": record["algorithm"],
                "key": record["key"],
            },
        )
        for site in fleet.in_service
        for record in keys.associations(site.name)
    ]
    name = fleet.document.home_agent.secrets.rpartition("/")[2]
    return [
        ("ha.toml", (header + "\n".join(tables)).encode(), PUBLIC),
        (name, (header + "\n".join(secrets)).encode(), PRIVATE),
    ]


def router_files(fleet: Fleet, keys: Keys, site: Site) -> list[File]:
    """Return router.json and router.secrets.json of `site`: its own rows only.

    Raises FleetError when it is revoked or has no key.
    """
    if site.revoked:
        raise FleetError(
            f"{site.name} is revoked ({site.table.revoked}); for a new box:"
            f" haaro keys new {site.name} --replacement"
        )
    associations = keys.associations(site.name)
    if not associations:
        raise FleetError(f"no key for {site.name}; first: haaro keys new {site.name}")
    secrets = {
        "version": 1,
        "mobile_home": [
            {key: record[key] for key in ("spi", "algorithm", "key")} for record in associations
        ],
        "peers": [
            {"home_address": address, "krm": [krm.hex() for krm in krms]}
            for address, krms in keys.rows(fleet, site)
        ],
    }
    secrets.update(uplink_secrets.sections(keys, site))
    console = keys.console(site)
    if console is not None:
        secrets["console"] = console[1]
    return [
        (ROUTER, _json(_with_update_keys(router_document(fleet, site), keys)), PUBLIC),
        (ROUTER_SECRETS, _json(secrets), PRIVATE),
    ]


def openwrt_files(fleet: Fleet, keys: Keys, site: Site) -> list[File]:
    """Return what goes to an OpenWrt box, by the paths there: /etc/config/haaro and the secrets.

    Raises FleetError as `router_files`, and when UCI cannot hold a value.
    """
    from haaro_host.fleet import uci_cli

    (_, router, _), (_, secrets, _) = router_files(fleet, keys, site)
    section = uci_cli.section_of(site.name)
    text = f"# Made by `haaro fleet export openwrt` from {fleet.path.name}.\n\n"
    text += uci_cli.section_text(json.loads(router), section, f"site.{site.name}")
    return [
        ("etc/config/haaro", text.encode(), PUBLIC),
        (f"etc/haaro/{section}/{ROUTER_SECRETS}", secrets, PRIVATE),
    ]


def _with_update_keys(document: dict[str, Any], keys: Keys) -> dict[str, Any]:
    update = document.get("update")
    if not isinstance(update, dict) or "keys" in update:
        return document
    publics = [record["public"] for record in keys.ota()]
    if not publics:
        raise FleetError(
            "router.update is set and no key signs updates yet; first: haaro ota key new"
        )
    return {**document, "update": {**update, "keys": publics}}


def _json(document: dict[str, Any]) -> bytes:
    # A date of TOML is a text to the router, as it was to the check.
    return (json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def _table(header: str, entries: dict[str, Any]) -> str:
    lines = [f"{key} = {tomlkit.item(value).as_string()}" for key, value in entries.items()]
    return "\n".join([header, *lines]) + "\n"
