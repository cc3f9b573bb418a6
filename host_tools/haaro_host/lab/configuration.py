"""Writes the configuration of the home agent and the routers, with fresh random keys.

Files with keys are 0600. Nothing here is kept between two `lab up`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from haaro_host.lab import plan
from haaro_host.lab.plan import DEFAULT_LAYOUT, Layout
from haaro_host.lab.processes import write_atomically

SPI = 256
ALGORITHM = "hmac-sha256"
LIFETIME_S = 300
_KEY_OCTETS = 32
_PRIVATE = 0o600
_IMPLICIT = ("B",)


class Files:
    """Where everything of one lab lives under its run directory."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.ha_config = run / "ha" / "ha.toml"
        self.ha_secrets = run / "ha" / "ha.secrets.toml"
        self.ha_state = run / "ha" / "state.sqlite"
        self.ha_socket = run / "ha.sock"

    def router_config(self, node: str) -> Path:
        """`router.json` of a router."""
        return self.run / node / "router.json"

    def router_secrets(self, node: str) -> Path:
        """Its keys."""
        return self.run / node / "router.secrets.json"

    def socket(self, node: str) -> Path:
        """Local socket of a router or of the home agent."""
        return self.ha_socket if node == "ha" else self.run / f"{node}.sock"


def write(files: Files, layout: Layout = DEFAULT_LAYOUT) -> None:
    """Write the whole configuration. The home agent knows every office, also one with no router."""
    keys = {office.name: os.urandom(_KEY_OCTETS).hex() for office in plan.OFFICES}
    write_atomically(files.ha_config, home_agent_toml(files, layout))
    write_atomically(files.ha_secrets, home_agent_secrets_toml(keys), _PRIVATE)
    for office in plan.OFFICES:
        config = json.dumps(router_json(files, office, layout), indent=2) + "\n"
        write_atomically(files.router_config(office.node), config)
        secret = json.dumps(router_secrets_json(keys[office.name]), indent=2) + "\n"
        write_atomically(files.router_secrets(office.node), secret, _PRIVATE)


def home_agent_toml(files: Files, layout: Layout = DEFAULT_LAYOUT) -> str:
    """`ha.toml`. B's prefix is implicit (RFC 5177 3.2), so that both modes run."""
    head = {
        "address": plan.HOME_AGENT,
        "state": str(files.ha_state),
        "secrets": str(files.ha_secrets),
        "socket": str(files.ha_socket),
        "interface": "haaro-ha0",
        "home_addresses": [plan.HOME_ADDRESSES],
        "home_networks": [plan.HOME_NETWORK],
        "forward_outside": False,
        "advertisement_octets": 1200,
        "dataplane": layout.ha_dataplane,
    }
    tables = [_table("[home_agent]", head)]
    for office in plan.OFFICES:
        entry = {
            "name": office.name,
            "home_address": office.home_address,
            "prefixes": [office.lan_net],
            "realm": office.realm,
            "priority": office.priority,
            "implicit": office.name in _IMPLICIT,
        }
        tables.append(_table("[[router]]", entry))
    return "\n".join(tables)


def home_agent_secrets_toml(keys: dict[str, str]) -> str:
    """`ha.secrets.toml`: one key a router."""
    return "\n".join(
        _table(
            "[[router]]",
            {
                "name": office.name,
                "home_address": office.home_address,
                "spi": SPI,
                "algorithm": ALGORITHM,
                "key": keys[office.name],
            },
        )
        for office in plan.OFFICES
    )


def router_json(
    files: Files, office: plan.Office, layout: Layout = DEFAULT_LAYOUT
) -> dict[str, Any]:
    """`router.json` of one office."""
    return {
        "version": 1,
        "name": office.name,
        "home_address": office.home_address,
        "home_agent": plan.HOME_AGENT,
        "networks": [office.lan_net],
        "explicit": office.name not in _IMPLICIT,
        "lifetime": LIFETIME_S,
        "uplinks": layout.uplinks.get(office.node, [plan.WAN_UPLINK]),
        "tunnel_interface": "haaro0",
        "socket": str(files.socket(office.node)),
        "secrets": files.router_secrets(office.node).name,
        "route_optimization": {
            "enabled": True,
            "advertise": True,
            "outbound_only": False,
            "cache_capacity": 64,
        },
        "keepalive": {"ha_s": 25, "direct_ms": 1000, "misses": 3},
        "log": "info",
        "dataplane": layout.dataplane,
        "fast_lan": layout.fast_lan,
        "encapsulation": layout.encapsulation,
    }


def router_secrets_json(key: str) -> dict[str, Any]:
    """`router.secrets.json`: the key shared with the home agent; peers prove themselves by RR."""
    return {
        "version": 1,
        "mobile_home": [{"spi": SPI, "algorithm": ALGORITHM, "key": key}],
        "peers": [],
    }


def _table(header: str, entries: dict[str, Any]) -> str:
    # A JSON scalar or array of strings is valid TOML, so no writer is needed.
    lines = [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
    return "\n".join([header, *lines]) + "\n"
