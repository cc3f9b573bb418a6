"""Reads router.json and its secrets file into Settings; refuses anything it does not understand.

Owns the schema of the device's two files. Never opens a socket. Who called `load` calls `unload`
then, so that this module leaves the heap. Every error names the file, the key, the value and what
is allowed; the value of a secret is never shown.
"""

import os
import sys

from haaro.core.settings import Settings
from haaro.shell.config_values import (
    REQUIRED,
    ConfigError,
    a_network,
    an_address,
    anything,
    beside,
    check,
    choice,
    hidden,
    key_octets,
    krm_octets,
    list_of,
    number,
    read,
    realm,
    shown_value,
    take,
    text_of,
)
from haaro.wire import ipv4

_ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha256")


def load(path: str) -> tuple:
    """Return (Settings, config dict) from the router.json at `path` and the secrets file it names.

    The dict holds what the shell needs beside the core's Settings: "uplinks", "tunnel_interface",
    "socket", "log", "dataplane", "fast_lan". Raises ConfigError.
    """
    top = take(path, "", read(path), _ROUTER)
    optimization = take(path, "route_optimization.", top["route_optimization"], _OPTIMIZATION)
    keepalive = take(path, "keepalive.", top["keepalive"], _KEEPALIVE)
    uplinks = [
        take(path, "uplinks[%d]." % i, uplink, _UPLINK) for i, uplink in enumerate(top["uplinks"])
    ]
    for key in ("name", "interface"):
        seen = [uplink[key] for uplink in uplinks]
        for value in seen:
            if seen.count(value) > 1:
                raise ConfigError(path, "uplinks", value, "each uplink needs its own " + key)
    networks = top["networks"]
    for i, network in enumerate(networks):
        _disjoint(path, "networks[%d]" % i, network, networks[:i])
    if top["home_address"] == top["home_agent"]:
        raise ConfigError(
            path, "home_address", ipv4.text(top["home_address"]), "must differ from home_agent"
        )
    policy = take(path, "policy.", top["policy"], _POLICY)
    peers = _static_peers(path, top["peers"], networks, optimization)
    secrets_path = beside(path, top["secrets"])
    associations, static_krm = _secrets(secrets_path)
    settings = Settings()
    settings.name = top["name"]
    settings.home_address = top["home_address"]
    settings.home_agent = top["home_agent"]
    settings.networks = networks
    settings.explicit = top["explicit"]
    settings.lifetime = top["lifetime"]
    settings.spi, settings.algorithm, settings.key = associations[0]
    if len(associations) > 1:
        settings.other_association = associations[1]
    settings.static_krm = static_krm
    settings.static_peers = peers
    settings.realm = top["realm"]
    _take_optimization(path, settings, optimization)
    settings.ha_keepalive_ms = keepalive["ha_s"] * 1000
    settings.direct_keepalive_ms = keepalive["direct_ms"]
    settings.keepalive_misses = keepalive["misses"]
    settings.uplinks = uplinks
    settings.return_ms = policy["return_s"] * 1000
    settings.hold_down_ms = policy["hold_down_s"] * 1000
    settings.loss_percent = policy["loss_percent"]
    settings.latency_ms = policy["latency_ms"]
    settings.peer_uplinks = _peer_uplinks(path, policy["peer_uplinks"], uplinks)
    return settings, {
        "uplinks": uplinks,
        "tunnel_interface": top["tunnel_interface"],
        "socket": top["socket"],
        "log": top["log"],
        "dataplane": top["dataplane"],
        "fast_lan": top["fast_lan"],
    }


def _peer_uplinks(path: str, table: object, uplinks: list) -> dict:
    """Return {home address: index of the uplink} from {"192.0.2.131": "lte"}."""
    where = "policy.peer_uplinks"
    if not isinstance(table, dict):
        raise ConfigError(path, where, shown_value(table), 'must be like {"192.0.2.131": "lte"}')
    names = [uplink["name"] for uplink in uplinks]
    found = {}
    for peer, name in table.items():
        address = check(path, where, peer, an_address, shown_value)
        if name not in names:
            allowed = "must be the name of an uplink: " + ", ".join(names)
            raise ConfigError(path, "%s.%s" % (where, peer), shown_value(name), allowed)
        found[address] = names.index(name)
    return found


def _take_optimization(path: str, settings: Settings, optimization: dict) -> None:
    settings.route_optimization = optimization["enabled"]
    settings.advertise = optimization["advertise"]
    settings.outbound_only = optimization["outbound_only"]
    settings.cache_capacity = optimization["cache_capacity"]
    settings.separate_realms = optimization["overlap"] == "separate"
    known = len(set(settings.static_peers) | set(settings.static_krm))
    if known > settings.cache_capacity:
        where = "route_optimization.cache_capacity"
        allowed = "must have room for the %d configured peers" % known
        raise ConfigError(path, where, settings.cache_capacity, allowed)


def _disjoint(path: str, where: str, network: tuple, taken: list) -> None:
    net, plen = network
    for other, other_plen in taken:
        shorter = min(plen, other_plen)
        if ipv4.mask(net, shorter) == ipv4.mask(other, shorter):
            raise ConfigError(
                path,
                where,
                "%s/%d" % (ipv4.text(net), plen),
                "overlaps %s/%d; prefixes must be disjoint" % (ipv4.text(other), other_plen),
            )


def _static_peers(path: str, rows: list, networks: list, optimization: dict) -> dict:
    """Return {home address: [(prefix, plen, realm)]} of the routers that are always known."""
    found = {}
    taken = list(networks)
    for i, row in enumerate(rows):
        where = "peers[%d]." % i
        peer = take(path, where, row, _STATIC_PEER)
        if peer["home_address"] in found:
            value = ipv4.text(peer["home_address"])
            raise ConfigError(path, where + "home_address", value, "each peer once")
        for network in peer["networks"] if optimization["overlap"] == "error" else ():
            _disjoint(path, where + "networks", network, taken)
        taken += peer["networks"]
        found[peer["home_address"]] = [(net, plen, peer["realm"]) for net, plen in peer["networks"]]
    return found


def unload() -> None:
    """Let go of this module and its helper; the next import makes them anew."""
    import haaro.shell

    for name in ("config", "config_values"):
        del sys.modules["haaro.shell." + name]
        delattr(haaro.shell, name)


def socket_path(path: str) -> str:
    """Return where the router configured by the file at `path` listens for status and stop."""
    return take(path, "", read(path), _ROUTER)["socket"]


def _secrets(path: str) -> tuple:
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
    static_krm = {}
    for i, row in enumerate(top["peers"]):
        where = "peers[%d]." % i
        peer = take(path, where, row, _PEER, hidden)
        static_krm[peer["home_address"]] = [
            check(path, where + "krm[%d]" % k, text, krm_octets, hidden)
            for k, text in enumerate(peer["krm"])
        ]
    return [(row["spi"], row["algorithm"], row["key"]) for row in associations], static_krm


_BOOL = choice(True, False)
_ROUTER = {
    "version": (choice(1), REQUIRED),
    "name": (text_of(32), REQUIRED),
    "home_address": (an_address, REQUIRED),
    "home_agent": (an_address, REQUIRED),
    "networks": (list_of(a_network, 0, 32), REQUIRED),
    "realm": (realm, ""),
    "peers": (list_of(anything, 0, 64), []),
    "explicit": (_BOOL, True),
    "lifetime": (number(30, 65534), 300),
    "uplinks": (list_of(anything, 1, 8), REQUIRED),
    "tunnel_interface": (text_of(13), "haaro0"),
    "socket": (text_of(100), "/run/haaro/router.sock"),
    "secrets": (text_of(255), "router.secrets.json"),
    "route_optimization": (anything, {}),
    "keepalive": (anything, {}),
    "policy": (anything, {}),
    "log": (choice("info", "warning"), "info"),
    "dataplane": (choice("auto", "kernel", "userspace"), "auto"),
    "fast_lan": (list_of(text_of(15), 0, 8), []),
}
_UPLINK = {
    "name": (text_of(16), REQUIRED),
    "driver": (choice("linux_netdev"), REQUIRED),
    "interface": (text_of(15), REQUIRED),
    # None: the place in the list.
    "priority": (number(0, 255), None),
    "cost": (number(0, 1000000), 0),
    "metered": (_BOOL, False),
    "budget_kb_hour": (number(50, 1000000), 200),
}
_POLICY = {
    "return_s": (number(1, 3600), 30),
    "hold_down_s": (number(1, 300), 10),
    "loss_percent": (number(5, 100), 60),
    "latency_ms": (number(50, 60000), 1500),
    "peer_uplinks": (anything, {}),
}
_OPTIMIZATION = {
    "enabled": (_BOOL, True),
    "advertise": (_BOOL, True),
    "outbound_only": (_BOOL, False),
    "cache_capacity": (number(1, 1024), 64),
    "overlap": (choice("error", "separate"), "error"),
}
_KEEPALIVE = {
    # RFC 3519 4.10: never under 10 s toward the home agent; RFC 6521 9: at most 5 a second.
    "ha_s": (number(10, 110), 25),
    "direct_ms": (number(200, 60000), 1000),
    "misses": (number(2, 10), 3),
}
_STATIC_PEER = {
    "home_address": (an_address, REQUIRED),
    "networks": (list_of(a_network, 0, 32), []),
    "realm": (realm, ""),
}
_SECRETS = {
    "version": (choice(1), REQUIRED),
    # The one in use, then, while the key is rotated, the other one that is live.
    "mobile_home": (list_of(anything, 1, 2), REQUIRED),
    "peers": (list_of(anything, 0, 64), []),
}
_MOBILE_HOME = {
    # RFC 5944 3.5.1: SPIs 0 to 255 are reserved.
    "spi": (number(256, 0xFFFFFFFF), REQUIRED),
    "algorithm": (choice(*_ALGORITHMS), REQUIRED),
    "key": (key_octets, REQUIRED),
}
_PEER = {"home_address": (an_address, REQUIRED), "krm": (list_of(anything, 1, 2), REQUIRED)}
