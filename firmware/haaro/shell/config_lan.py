"""Reads `lan` of router.json: the office's port, where it is ours to bring up (docs/lan.md).

Owns the schema of that section. Leaves the heap with config.py, which calls it.
"""

from haaro.shell.config_values import (
    REQUIRED,
    ConfigError,
    an_address,
    anything,
    beside,
    check,
    choice,
    list_of,
    number,
    shown_value,
    take,
    text_of,
)
from haaro.wire import ipv4

# Beside router.json: who has which address.
_LEASES = "leases"
# 20 octets of heap each (lan/leases.py).
_LARGEST_POOL = 200
# Of an interface of Linux.
_NAME = 15


def load(path: str, lan: object, networks: list, uplinks: list) -> dict:
    """Return the section, checked: {"driver", "address": (4 octets, length), "vlan", "interface",
    "dhcp": options of lan/dhcp.py or None}. networks: [(prefix, length)], uplinks: those of
    config_uplinks. Raises ConfigError.
    """
    linux = isinstance(lan, dict) and lan.get("driver") == "linux_vlan"
    found = take(path, "lan.", lan, _LINUX_VLAN if linux else _W5500)
    address, plen = found["address"]
    if not any(ipv4.contains(net, length, address) and plen >= length for net, length in networks):
        listed = ", ".join("%s/%d" % (ipv4.text(net), length) for net, length in networks)
        raise ConfigError(
            path,
            "lan.address",
            "%s/%d" % (ipv4.text(address), plen),
            "must lie inside one of networks (%s)" % (listed or "there are none"),
        )
    if linux:
        _check_name(path, found)
        return found
    for i, uplink in enumerate(uplinks):
        if uplink["driver"] == "ethernet" and uplink["chip"] == "w5500":
            _check_chip(path, "uplinks[%d].driver" % i)
    if found["dhcp"] is not None:
        found["dhcp"] = _dhcp(path, found["dhcp"], address, plen)
    return found


def _check_chip(path, where):
    """Refuse an uplink at the LAN port's W5500, or at its bus: the port's stack moves the uplink's
    frames in interrupts, also while we hold the bus.
    """
    from haaro.platform.pins import read_pins

    try:
        pins = read_pins(beside(path, "pins.csv"))
    except ValueError as error:
        raise ConfigError(path, "lan.driver", "w5500", str(error)) from None
    # Without the file this is no board, or one that will say which pins it lacks.
    why = "" if "UPLINK_CS" in pins or not pins else "pins.csv has one W5500, and lan has it"
    lans = {pin: name for name, pin in pins.items() if name[:6] == "W5500_"}
    for name, pin in pins.items():
        if name[:7] == "UPLINK_" and pin in lans:
            why = "pins.csv gives %s and %s the same GPIO%d" % (name, lans[pin], pin)
    if why:
        remedy = "take lan or this uplink away, or give UPLINK_CS and so on a second W5500's pins"
        raise ConfigError(path, where, "ethernet", "%s; %s" % (why, remedy))


def _check_name(path, found):
    made = "%s.%d" % (found["interface"], found["vlan"])
    if len(made) > _NAME:
        allowed = "is too long for an interface (%d characters); rename the parent" % _NAME
        raise ConfigError(path, "lan.interface", made, allowed)


def _dhcp(path, dhcp, address, plen):
    found = take(path, "lan.dhcp.", dhcp, _DHCP)
    for key in ("first", "last"):
        _host(path, "lan.dhcp." + key, found[key], address, plen)
    count = int.from_bytes(found["last"], "big") - int.from_bytes(found["first"], "big") + 1
    if not 0 < count <= _LARGEST_POOL:
        value = "%s to %s" % (ipv4.text(found["first"]), ipv4.text(found["last"]))
        allowed = "must be 1 to %d addresses, first to last" % _LARGEST_POOL
        raise ConfigError(path, "lan.dhcp", value, allowed)
    found["reservations"] = _reservations(path, found["reservations"], address, plen)
    found["file"] = beside(path, _LEASES)
    return found


def _reservations(path, table, address, plen):
    """Return {Ethernet address: address} from {"02:00:00:00:00:01": "10.1.0.7"}."""
    where = "lan.dhcp.reservations"
    if not isinstance(table, dict) or len(table) > _LARGEST_POOL:
        allowed = 'must be like {"02:00:00:00:00:01": "10.1.0.7"}, at most %d' % _LARGEST_POOL
        raise ConfigError(path, where, shown_value(table), allowed)
    found: dict = {}
    for mac, value in table.items():
        key = "%s.%s" % (where, mac)
        octets = check(path, where, mac, _mac, shown_value)
        host = check(path, key, value, an_address, shown_value)
        _host(path, key, host, address, plen)
        if octets in found or host in found.values() or host == address:
            raise ConfigError(path, key, value, "is given twice, or is the router's own")
        found[octets] = host
    return found


def _host(path, where, host, address, plen):
    bits = 32 - plen
    value = int.from_bytes(host, "big") & ((1 << bits) - 1)
    if not ipv4.contains(address, plen, host) or not 0 < value < (1 << bits) - 1:
        allowed = "must be a host of %s/%d" % (ipv4.text(ipv4.mask(address, plen)), plen)
        raise ConfigError(path, where, ipv4.text(host), allowed)


def _mac(value: object) -> bytes:
    parts = value.split(":") if isinstance(value, str) else []
    octets = b""
    try:
        octets = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        pass
    if len(parts) != 6 or len(octets) != 6 or octets[0] & 1:
        raise ValueError("must be an Ethernet address such as 02:00:00:00:00:01")
    return octets


def _an_interface(value: object) -> tuple:
    """The router's address in its LAN with the length of the prefix."""
    remedy = "must be the router's address with its network's length, such as 10.1.0.1/24"
    if not isinstance(value, str) or value.count("/") != 1:
        raise ValueError(remedy)
    text, _, length = value.partition("/")
    try:
        address, plen = ipv4.address(text), int(length)
    except ValueError:
        raise ValueError(remedy) from None
    if not 8 <= plen <= 30:
        raise ValueError("must have a length of 8 to 30")
    host = int.from_bytes(address, "big") & ((1 << (32 - plen)) - 1)
    if not 0 < host < (1 << (32 - plen)) - 1:
        raise ValueError("must be a host's address, not that of the network or of all hosts")
    return address, plen


_W5500 = {
    "driver": (choice("w5500", "linux_vlan"), REQUIRED),
    "address": (_an_interface, REQUIRED),
    # None: no tags.
    "vlan": (number(1, 4094), None),
    "dhcp": (anything, None),
}
_LINUX_VLAN = {
    "driver": (choice("w5500", "linux_vlan"), REQUIRED),
    "address": (_an_interface, REQUIRED),
    "vlan": (number(1, 4094), REQUIRED),
    "interface": (text_of(_NAME), REQUIRED),
}
_DHCP = {
    "first": (an_address, REQUIRED),
    "last": (an_address, REQUIRED),
    "lease_s": (number(120, 604800), 43200),
    "dns": (list_of(an_address, 0, 3), []),
    # None: not said, hosts take 1500.
    "mtu": (number(576, 1500), None),
    "reservations": (anything, {}),
}
