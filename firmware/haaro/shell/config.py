"""Reads router.json and its secrets file into Settings; refuses anything it does not understand.

Owns the schema of router.json. Never opens a socket. Who called `load` calls `shell.unload` then,
so that this module leaves the heap. Every error names the file, the key, the value and what is
allowed.
"""

import os

from haaro.core.settings import Settings
from haaro.shell import config_uplinks, secrets
from haaro.shell.config_values import (
    REQUIRED,
    ConfigError,
    a_network,
    an_address,
    anything,
    beside,
    check,
    choice,
    lan_interfaces,
    list_of,
    number,
    public_key,
    read,
    realm,
    shown_value,
    take,
    text_of,
    update_url,
)
from haaro.wire import ipv4


def load(path: str, staged: bool = False) -> tuple:
    """Return (Settings, config dict) from the router.json at `path` and the secrets file it names;
    with `staged` from the ones that shell/staging.py holds beside them, where there are any.

    The dict holds what the shell needs beside the core's Settings: "uplinks", "tunnel_interface",
    "socket", "log", "dataplane", "fast_lan", "mss_clamp", "internet", "lan_ipv6", "secrets",
    "console", "update" and "lan" (dicts or None). Raises ConfigError.
    """
    if staged:
        path = _staged(path)
    top = take(path, "", read(path), _ROUTER)
    optimization = take(path, "route_optimization.", top["route_optimization"], _OPTIMIZATION)
    keepalive = take(path, "keepalive.", top["keepalive"], _KEEPALIVE)
    secrets_path = beside(path, top["secrets"])
    secrets_now = _staged(secrets_path) if staged else secrets_path
    uplinks = config_uplinks.load(
        path, top["uplinks"], top["fast_lan"], lambda: secrets.wifi(secrets_now)
    )
    networks = top["networks"]
    for i, network in enumerate(networks):
        _disjoint(path, "networks[%d]" % i, network, networks[:i])
    if top["home_address"] == top["home_agent"]:
        raise ConfigError(
            path, "home_address", ipv4.text(top["home_address"]), "must differ from home_agent"
        )
    policy = take(path, "policy.", top["policy"], _POLICY)
    peers = _static_peers(path, top["peers"], networks, optimization)
    keys = secrets.load(secrets_now)
    sections = _sections(path, top, uplinks)
    settings = Settings()
    settings.name = top["name"]
    settings.home_address = top["home_address"]
    settings.home_agent = top["home_agent"]
    settings.networks = networks
    settings.home_prefixes = _inside(top["internet"], top["organisation"])
    settings.explicit = top["explicit"]
    settings.encapsulation = top["encapsulation"]
    settings.lifetime = top["lifetime"]
    settings.take_keys(*keys)
    settings.static_peers = peers
    settings.realm = top["realm"]
    _take_optimization(path, settings, optimization)
    settings.ha_keepalive_ms = keepalive["ha_s"] * 1000
    settings.direct_keepalive_ms = keepalive["direct_ms"]
    settings.keepalive_misses = keepalive["misses"]
    settings.uplinks = uplinks
    _take_policy(settings, policy)
    settings.peer_uplinks = _peer_uplinks(path, policy["peer_uplinks"], uplinks)
    options = {key: top[key] for key in _OPTIONS}
    options["uplinks"], options["secrets"] = uplinks, secrets_path
    options.update(sections)
    return settings, options


def _sections(path: str, top: dict, uplinks: list) -> dict:
    """Return what may be left away as a whole: {"console", "update", "lan": dict or None}."""
    found = {"console": top["console"], "update": top["update"], "lan": top["lan"]}
    for key, spec in (("console", _CONSOLE), ("update", _UPDATE)):
        if found[key] is not None:
            found[key] = take(path, key + ".", found[key], spec)
    if found["lan"] is not None:
        from haaro.shell import config_lan

        found["lan"] = config_lan.load(path, found["lan"], top["networks"], uplinks)
    return found


def _staged(path: str) -> str:
    try:
        os.stat(path + ".new")
        return path + ".new"
    except OSError:
        return path


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


def _take_policy(settings: Settings, policy: dict) -> None:
    settings.return_ms = policy["return_s"] * 1000
    settings.hold_down_ms = policy["hold_down_s"] * 1000
    settings.loss_percent = policy["loss_percent"]
    settings.latency_ms = policy["latency_ms"]


def _take_optimization(path: str, settings: Settings, optimization: dict) -> None:
    settings.route_optimization = optimization["enabled"]
    settings.advertise = optimization["advertise"]
    settings.outbound_only = optimization["outbound_only"]
    settings.cache_capacity = optimization["cache_capacity"]
    settings.cache_prefixes = optimization["cache_prefixes"]
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


def _inside(internet: str, organisation: list) -> list:
    """Return what goes to the home agent before anything is learnt: all, or what is not public."""
    if internet == "ha":
        return [(b"\x00\x00\x00\x00", 0)]
    private = [a_network(text) for text in _PRIVATE]
    return private + [network for network in organisation if network not in private]


def socket_path(path: str) -> str:
    """Return where the router configured by the file at `path` listens for status and stop."""
    return take(path, "", read(path), _ROUTER)["socket"]


# RFC 1918, RFC 6598 and RFC 3927: nobody answers from there on the internet.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
# What the shell takes as it stands.
_OPTIONS = (
    "tunnel_interface",
    "socket",
    "log",
    "dataplane",
    "fast_lan",
    "mss_clamp",
    "internet",
    "lan_ipv6",
)
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
    "fast_lan": (lan_interfaces, None),
    "mss_clamp": (_BOOL, True),
    "encapsulation": (choice("udp", "ipip", "gre", "minimal"), "udp"),
    "internet": (choice("ha", "local", "block"), "ha"),
    "organisation": (list_of(a_network, 0, 32), []),
    "lan_ipv6": (choice("block", "local"), "block"),
    # None: the system has the LAN (shell/config_lan.py).
    "lan": (anything, None),
    # None: no console.
    "console": (anything, None),
    # None: no program is taken from anybody.
    "update": (anything, None),
}
_UPDATE = {
    # "": nobody is asked; what the console brings is taken.
    "url": (update_url, ""),
    "interval_s": (number(5, 604800), 3600),
    "rate_kbit": (number(16, 100000), 256),
    "keys": (list_of(public_key, 1, 2), REQUIRED),
}
_CONSOLE = {
    # A tty, or "stdin": the stream of the REPL.
    "port": (text_of(100), "stdin"),
    "speed": (choice(0, 9600, 57600, 115200, 230400, 460800, 921600), 0),
    "profile": (choice("locked", "bench"), "locked"),
    # Wi-Fi credentials by Improv, without a password.
    "improv": (choice(True, False), False),
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
    "cache_prefixes": (number(1, 32768), 256),
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
