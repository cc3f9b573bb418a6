"""What an uplink of router.json may say, by driver. Called by config; leaves the heap with it."""

from haaro.shell.config_values import (
    REQUIRED,
    ConfigError,
    an_address,
    anything,
    check,
    choice,
    list_of,
    number,
    quotable,
    shown_value,
    take,
    text_of,
)
from haaro.wire import ipv4


def load(path: str, rows: list, lans: list, passwords) -> list:
    """Return the uplinks of `rows`, checked, each with every key of its driver.

    lans: interfaces that cannot be an uplink. passwords() -> {ssid: password}, asked for only if
    there is Wi-Fi. Raises ConfigError.
    """
    uplinks = []
    for i, row in enumerate(rows):
        where = "uplinks[%d]." % i
        driver = "linux_netdev"
        if isinstance(row, dict) and "driver" in row:
            # Before the keys, of which it decides.
            check(path, where + "driver", row["driver"], _ANY["driver"][0], shown_value)
            driver = row["driver"]
        uplink = take(path, where, row, _DRIVERS[driver])
        if driver in ("wifi", "ethernet"):
            # The port names the interface; until it has, and in the status, it is called so.
            uplink["interface"] = uplink["name"]
            _check_address(path, where, uplink)
        if driver == "wifi":
            _wifi(path, where, uplink, passwords())
        if driver == "cellular":
            _check_data(path, where, uplink)
        uplinks.append(uplink)
    for key in ("name", "port", "interface"):
        seen = [uplink[key] for uplink in uplinks if key in uplink]
        for value in seen:
            if seen.count(value) > 1:
                raise ConfigError(path, "uplinks", value, "each uplink needs its own " + key)
    for driver in ("wifi", "ethernet"):
        if sum([uplink["driver"] == driver for uplink in uplinks]) > 1:
            raise ConfigError(path, "uplinks", driver, "a board has one: one uplink of this driver")
    for interface in lans or ():
        if interface in seen:
            raise ConfigError(path, "fast_lan", interface, "an uplink's interface cannot be a LAN")
    return uplinks


def _wifi(path, where, uplink, passwords):
    networks = []
    for i, row in enumerate(uplink["networks"]):
        here = "%snetworks[%d]." % (where, i)
        network = take(path, here, row, _NETWORK)
        ssid = network["ssid"]
        if network["open"] == (ssid in passwords):
            allowed = "has a password in the secrets file: take away open or the password"
            if not network["open"]:
                allowed = (
                    'has no password: add {"ssid": ..., "password": ...} to "wifi" of the secrets'
                    ' file, or "open": true here'
                )
            raise ConfigError(path, here + "ssid", repr(ssid), allowed)
        networks.append(network)
    uplink["networks"] = networks


def _check_data(path, where, uplink):
    if uplink["data"] == "sockets" and uplink["profile"] not in _SOCKETS:
        given = '"sockets" with profile "%s"' % uplink["profile"]
        allowed = 'needs a profile that has them (%s), or "ppp"' % ", ".join(_SOCKETS)
        raise ConfigError(path, where + "data", given, allowed)


def _check_address(path, where, uplink):
    interface = uplink["address"]
    gateway = uplink["gateway"]
    if (interface is None) != (gateway is None):
        missing = "gateway" if gateway is None else "address"
        allowed = "address and gateway belong together; none of them: DHCP"
        raise ConfigError(path, where + missing, "missing", allowed)
    if interface is None:
        return
    address, plen = interface
    if gateway == address or ipv4.mask(gateway, plen) != ipv4.mask(address, plen):
        allowed = "must be another address of %s/%d" % (ipv4.text(address), plen)
        raise ConfigError(path, where + "gateway", ipv4.text(gateway), allowed)


def _an_interface(value: object) -> tuple:
    """Return (address, prefix length) of a text such as 192.0.2.5/24."""
    try:
        address, _, plen = value.partition("/")  # type: ignore[attr-defined]
        return an_address(address), number(1, 30)(int(plen))  # type: ignore[operator]
    except (ValueError, AttributeError):
        raise ValueError("must be an address with its length, such as 192.0.2.5/24") from None


def _ssid(value: object) -> str:
    # IEEE 802.11 9.4.2.2: up to 32 octets.
    if not isinstance(value, str) or not 0 < len(value.encode()) <= 32:
        raise ValueError("must be a text of 1 to 32 octets")
    return value


def _a_mac(value: object) -> bytes:
    try:
        octets = bytes.fromhex(value.replace(":", ""))  # type: ignore[attr-defined]
    except (ValueError, TypeError, AttributeError):
        octets = b""
    if len(octets) != 6 or octets[0] & 1:
        raise ValueError("must be the MAC of an access point, such as 00:00:5e:00:53:01")
    return octets


_BOOL = choice(True, False)
_ANY = {
    "name": (text_of(16), REQUIRED),
    "driver": (choice("linux_netdev", "cellular", "wifi", "ethernet"), "linux_netdev"),
    # None: the place in the list.
    "priority": (number(0, 255), None),
    "cost": (number(0, 1000000), 0),
    "metered": (_BOOL, False),
    "budget_kb_hour": (number(50, 1000000), 200),
}
_NETDEV = dict(_ANY)
_NETDEV["interface"] = (text_of(15), REQUIRED)
# docs/cellular.md. Profiles whose sockets socket_profiles.py knows.
_SOCKETS = ("ec25", "bg96", "bg770")
_CELLULAR = dict(_ANY)
_CELLULAR.update(
    {
        # Ours: a name for an interface that is not there yet.
        "interface": (text_of(14), "modem0"),
        "port": (text_of(100), REQUIRED),
        "baud": (choice(9600, 57600, 115200, 230400, 460800, 921600), 115200),
        "apn": (quotable, ""),
        "user": (quotable, ""),
        "profile": (choice("generic", "sim7600", "ec25", "bg96", "bg770", "sara-r4"), "generic"),
        "roaming": (_BOOL, False),
        "mux": (_BOOL, True),
        "data": (choice("ppp", "sockets"), "ppp"),
        # Of a month, both ways; 0: none.
        "data_cap_mb": (number(0, 1000000), 0),
        "power_key": (text_of(255), None),
        "reset": (text_of(255), None),
    }
)
# None, None: DHCP.
_ADDRESS = {"address": (_an_interface, None), "gateway": (an_address, None)}
_WIFI = dict(_ANY)
_WIFI.update(_ADDRESS)
_WIFI.update(
    {
        # The first that is there is taken.
        "networks": (list_of(anything, 1, 8), REQUIRED),
        # Below, a stronger access point of the same network is looked for.
        "roam_dbm": (number(-95, -40), -75),
        "country": (text_of(2), ""),
    }
)
_NETWORK = {"ssid": (_ssid, REQUIRED), "bssid": (_a_mac, None), "open": (_BOOL, False)}
_ETHERNET = dict(_ANY)
_ETHERNET.update(_ADDRESS)
_ETHERNET.update(
    {
        "chip": (choice("w5500", "lan8720", "ip101", "rtl8201", "dp83848", "ksz8081"), "w5500"),
        "phy_address": (number(0, 31), 0),
    }
)
_DRIVERS = {"linux_netdev": _NETDEV, "cellular": _CELLULAR, "wifi": _WIFI, "ethernet": _ETHERNET}
