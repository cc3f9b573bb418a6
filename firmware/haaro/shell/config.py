"""Reads router.json and its secrets file into Settings; refuses anything it does not understand.

Owns the schema of the device's two files. Never opens a socket. Who called `load` calls `unload`
then, so that this module leaves the heap. Every error names the file, the key, the value and what
is allowed; the value of a secret is never shown.
"""

import json
import os
import sys

from haaro.core.settings import Settings
from haaro.wire import ipv4

_REQUIRED = object()
_ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha256")
_MIN_KEY_OCTETS = 16
_KRM_OCTETS = 20


class ConfigError(ValueError):
    """A file of the configuration cannot be used; the text is meant for the operator."""

    def __init__(self, path: str, key: str, value: object, allowed: str) -> None:
        super().__init__("%s: %s: %s: %s" % (path, key, value, allowed))


def _shown(value: object) -> str:
    return repr(value)[:60]


def _hidden(value: object) -> str:
    """Stand in for a value of the secrets file: a key in the wrong place must not be printed."""
    if isinstance(value, int):
        return str(value)
    return "<not shown, %d characters>" % len(str(value))


def load(path: str) -> tuple:
    """Return (Settings, config dict) from the router.json at `path` and the secrets file it names.

    The dict holds what the shell needs beside the core's Settings: "uplinks", "tunnel_interface",
    "socket", "log", "dataplane", "fast_lan". Raises ConfigError.
    """
    top = _take(path, "", _read(path), _ROUTER)
    optimization = _take(path, "route_optimization.", top["route_optimization"], _OPTIMIZATION)
    keepalive = _take(path, "keepalive.", top["keepalive"], _KEEPALIVE)
    uplinks = [
        _take(path, "uplinks[%d]." % i, uplink, _UPLINK) for i, uplink in enumerate(top["uplinks"])
    ]
    for key in ("name", "interface"):
        seen = [uplink[key] for uplink in uplinks]
        for value in seen:
            if seen.count(value) > 1:
                raise ConfigError(path, "uplinks", value, "each uplink needs its own " + key)
    networks = top["networks"]
    for i, (net, plen) in enumerate(networks):
        for other, other_plen in networks[:i]:
            shorter = min(plen, other_plen)
            if ipv4.mask(net, shorter) == ipv4.mask(other, shorter):
                raise ConfigError(
                    path,
                    "networks[%d]" % i,
                    "%s/%d" % (ipv4.text(net), plen),
                    "overlaps %s/%d; prefixes must be disjoint" % (ipv4.text(other), other_plen),
                )
    if top["home_address"] == top["home_agent"]:
        raise ConfigError(
            path, "home_address", ipv4.text(top["home_address"]), "must differ from home_agent"
        )
    policy = _take(path, "policy.", top["policy"], _POLICY)
    secrets_path = _beside(path, top["secrets"])
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
    settings.route_optimization = optimization["enabled"]
    settings.advertise = optimization["advertise"]
    settings.outbound_only = optimization["outbound_only"]
    settings.cache_capacity = optimization["cache_capacity"]
    settings.ha_keepalive_ms = keepalive["ha_s"] * 1000
    settings.direct_keepalive_ms = keepalive["direct_ms"]
    settings.keepalive_misses = keepalive["misses"]
    settings.static_krm = static_krm
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
        raise ConfigError(path, where, _shown(table), 'must be like {"192.0.2.131": "lte"}')
    names = [uplink["name"] for uplink in uplinks]
    found = {}
    for peer, name in table.items():
        address = _check(path, where, peer, _address, _shown)
        if name not in names:
            allowed = "must be the name of an uplink: " + ", ".join(names)
            raise ConfigError(path, "%s.%s" % (where, peer), _shown(name), allowed)
        found[address] = names.index(name)
    return found


def unload() -> None:
    """Let go of this module; the next import makes it anew."""
    import haaro.shell

    del sys.modules["haaro.shell.config"]
    del haaro.shell.config


def socket_path(path: str) -> str:
    """Return where the router configured by the file at `path` listens for status and stop."""
    return _take(path, "", _read(path), _ROUTER)["socket"]


def _secrets(path: str) -> tuple:
    try:
        mode = os.stat(path)[0]
    except OSError as error:
        raise ConfigError(path, "(file)", error, "secrets file cannot be read") from None
    if mode & 0o077:
        allowed = "others may read it; run: chmod 600 " + path
        raise ConfigError(path, "(mode)", "%03o" % (mode & 0o777), allowed)
    top = _take(path, "", _read(path), _SECRETS, _hidden)
    associations = [
        _take(path, "mobile_home[%d]." % i, row, _MOBILE_HOME, _hidden)
        for i, row in enumerate(top["mobile_home"])
    ]
    if associations[0]["spi"] == associations[-1]["spi"] and len(associations) > 1:
        raise ConfigError(path, "mobile_home[1].spi", associations[1]["spi"], "needs its own SPI")
    static_krm = {}
    for i, row in enumerate(top["peers"]):
        where = "peers[%d]." % i
        peer = _take(path, where, row, _PEER, _hidden)
        static_krm[peer["home_address"]] = [
            _check(path, where + "krm[%d]" % k, text, _krm, _hidden)
            for k, text in enumerate(peer["krm"])
        ]
    return [(row["spi"], row["algorithm"], row["key"]) for row in associations], static_krm


def _read(path: str) -> object:
    try:
        with open(path) as file:
            return json.load(file)
    except OSError as error:
        raise ConfigError(path, "(file)", error, "cannot be read") from None
    except ValueError:
        raise ConfigError(path, "(file)", "syntax", "is not valid JSON") from None


def _beside(path: str, name: str) -> str:
    if name.startswith("/") or "/" not in path:
        return name
    return path[: path.rfind("/") + 1] + name


def _take(path: str, where: str, table: object, spec: dict, shown: object = _shown) -> dict:
    """Return every key of `spec` from `table`, checked; a default fills what may be absent."""
    if not isinstance(table, dict):
        name = where[:-1] or "(top level)"
        raise ConfigError(path, name, shown(table), "must be an object { ... }")  # type: ignore[operator]
    allowed = "allowed here: " + ", ".join(sorted(spec))
    for key in table:
        if key not in spec:
            raise ConfigError(path, where + key, "unknown key", allowed)
    taken = {}
    for key, (check, default) in spec.items():
        if key in table:
            taken[key] = _check(path, where + key, table[key], check, shown)
        elif default is _REQUIRED:
            raise ConfigError(path, where + key, "missing", "this key is required")
        else:
            taken[key] = default
    return taken


def _check(path: str, where: str, value: object, check: object, shown: object) -> object:
    try:
        return check(value)  # type: ignore[operator]
    except ValueError as error:
        raise ConfigError(path, where, shown(value), str(error)) from None  # type: ignore[operator]


def _number(low: int, high: int) -> object:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError("must be a whole number from %d to %d" % (low, high))
        return value

    return check


def _choice(*allowed: object) -> object:
    def check(value: object) -> object:
        # 1 == True in Python: a number where true or false belongs is a mistake, not a synonym.
        if not any(value == item and isinstance(value, type(item)) for item in allowed):
            raise ValueError("must be one of: " + ", ".join(json.dumps(item) for item in allowed))
        return value

    return check


def _list_of(check: object, least: int, most: int) -> object:
    def check_list(value: object) -> list:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError("must be a list of %d to %d entries" % (least, most))
        checked = []
        for i, item in enumerate(value):
            try:
                checked.append(check(item))  # type: ignore[operator]
            except ValueError as error:
                raise ValueError("entry %d %s" % (i, error)) from None
        return checked

    return check_list


def _text(limit: int) -> object:
    def check(value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= limit:
            raise ValueError("must be a text of 1 to %d characters" % limit)
        return value

    return check


def _any(value: object) -> object:
    return value


def _address(value: object) -> bytes:
    try:
        return _unicast(ipv4.address(value))  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        raise ValueError("must be an IPv4 unicast address such as 192.0.2.1") from None


def _unicast(address: bytes) -> bytes:
    if address[0] in (0, 127) or address[0] >= 224:
        raise ValueError("not unicast")
    return address


def _network(value: object) -> tuple:
    try:
        net, plen = ipv4.prefix(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError("must be an IPv4 prefix such as 10.1.0.0/24 (%s)" % error) from None
    if not plen:
        raise ValueError("0.0.0.0/0 cannot be a mobile network; length must be 1 to 32")
    return net, plen


def _hex(value: object, least: int, most: int, what: str) -> bytes:
    try:
        octets = bytes.fromhex(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError("%s must be hexadecimal digits" % what) from None
    if not least <= len(octets) <= most:
        raise ValueError(
            "%s must be %d to %d octets, this is %d" % (what, least, most, len(octets))
        )
    return octets


def _key(value: object) -> bytes:
    return _hex(value, _MIN_KEY_OCTETS, 64, "key")


def _krm(value: object) -> bytes:
    return _hex(value, _KRM_OCTETS, _KRM_OCTETS, "krm")


_BOOL = _choice(True, False)
_ROUTER = {
    "version": (_choice(1), _REQUIRED),
    "name": (_text(32), _REQUIRED),
    "home_address": (_address, _REQUIRED),
    "home_agent": (_address, _REQUIRED),
    "networks": (_list_of(_network, 0, 32), _REQUIRED),
    "explicit": (_BOOL, True),
    "lifetime": (_number(30, 65534), 300),
    "uplinks": (_list_of(_any, 1, 8), _REQUIRED),
    "tunnel_interface": (_text(13), "haaro0"),
    "socket": (_text(100), "/run/haaro/router.sock"),
    "secrets": (_text(255), "router.secrets.json"),
    "route_optimization": (_any, {}),
    "keepalive": (_any, {}),
    "policy": (_any, {}),
    "log": (_choice("info", "warning"), "info"),
    "dataplane": (_choice("auto", "kernel", "userspace"), "auto"),
    "fast_lan": (_list_of(_text(15), 0, 8), []),
}
_UPLINK = {
    "name": (_text(16), _REQUIRED),
    "driver": (_choice("linux_netdev"), _REQUIRED),
    "interface": (_text(15), _REQUIRED),
    # None: the place in the list.
    "priority": (_number(0, 255), None),
    "cost": (_number(0, 1000000), 0),
    "metered": (_BOOL, False),
    "budget_kb_hour": (_number(50, 1000000), 200),
}
_POLICY = {
    "return_s": (_number(1, 3600), 30),
    "hold_down_s": (_number(1, 300), 10),
    "loss_percent": (_number(5, 100), 60),
    "latency_ms": (_number(50, 60000), 1500),
    "peer_uplinks": (_any, {}),
}
_OPTIMIZATION = {
    "enabled": (_BOOL, True),
    "advertise": (_BOOL, True),
    "outbound_only": (_BOOL, False),
    "cache_capacity": (_number(1, 1024), 64),
}
_KEEPALIVE = {
    # RFC 3519 4.10: never under 10 s toward the home agent; RFC 6521 9: at most 5 a second.
    "ha_s": (_number(10, 110), 25),
    "direct_ms": (_number(200, 60000), 1000),
    "misses": (_number(2, 10), 3),
}
_SECRETS = {
    "version": (_choice(1), _REQUIRED),
    # The one in use, then, while the key is rotated, the other one that is live.
    "mobile_home": (_list_of(_any, 1, 2), _REQUIRED),
    "peers": (_list_of(_any, 0, 64), []),
}
_MOBILE_HOME = {
    # RFC 5944 3.5.1: SPIs 0 to 255 are reserved.
    "spi": (_number(256, 0xFFFFFFFF), _REQUIRED),
    "algorithm": (_choice(*_ALGORITHMS), _REQUIRED),
    "key": (_key, _REQUIRED),
}
_PEER = {"home_address": (_address, _REQUIRED), "krm": (_list_of(_any, 1, 2), _REQUIRED)}
