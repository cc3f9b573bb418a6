"""Who besides the routing table has a say in what this box forwards, and which links are its LAN's.

The kernel plane passes by the kernel's forwarding only where nobody has. Asks by netlink and /proc,
changes nothing; whatever cannot be asked counts as somebody. Called by dataplane/kernel.py.
"""

import struct

from haaro.compat import const
from haaro.platform import netlink

_GET_LINK = const(18)
_GET_ADDRESS = const(22)
_GET_RULE = const(34)
_IFLA_NAME = const(3)
_IFA_LOCAL = const(2)

# Of linux_breakout.py, which is imported only where it is wanted.
_BREAKOUT = "haaro_local"

_NETFILTER = const(12)
_GET_CHAIN = const(10 << 8 | 4)  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN
_CHAIN_TABLE = const(1)
_CHAIN_HOOK = const(4)

_XFRM = const(6)
_GET_POLICIES = const(0x25)  # XFRM_MSG_GETSPDINFO
_SPD_INFO = const(1)

_FRA_IIF = const(3)
_FRA_PRIORITY = const(6)
_FRA_PROTOCOL = const(21)
_FRA_OIF = const(17)
_INVERTED = const(2)
_LOCAL = const(255)
_OURS = const(43)
# Of the rule that sends what our networks send to the tunnels: those behind it are not asked.
_TUNNELS = const(4341)

_FORWARDING = "/proc/sys/net/ipv4/conf/%s/forwarding"
_IPTABLES = "/proc/net/ip_tables_names"

# No such protocol, no such subsystem: it is not in this kernel.
_ABSENT = (22, 93, 94, 95, 97)
_NO_FILE = const(2)
_MOST = const(8)


def lans(networks: list, excluded: list) -> list:
    """Return the names of the interfaces that have an address in one of the networks."""
    routes = netlink.Netlink()
    found: list = []
    try:
        for _, body in routes.dump(_GET_ADDRESS, struct.pack("@BBBBI", 2, 0, 0, 0, 0)):
            address = netlink.attributes(body, 8).get(_IFA_LOCAL)
            if address and any(_inside(address, net, plen) for net, plen in networks):
                ask = struct.pack("@BBHiII", 0, 0, 0, struct.unpack_from("@i", body, 4)[0], 0, 0)
                link = routes.request(_GET_LINK, 0, ask)[0][1]
                interface = netlink.attributes(link, 16)[_IFLA_NAME][:-1].decode()
                if interface not in excluded and interface not in found:
                    found.append(interface)
    except OSError:
        pass  # it went meanwhile: there is an event for that
    finally:
        routes.close()
    return found[:_MOST]


def whose_say(interfaces: list) -> str:
    """Return "" or who may drop, change or turn away what comes from these LAN interfaces."""
    try:
        for interface in interfaces:
            if _read(_FORWARDING % interface) != "1":
                return "forwarding is off on " + interface
        if _read(_IPTABLES):
            return "iptables has tables"
        return _nftables() or _policies() or _rules(interfaces)
    except OSError as error:
        return "the kernel does not tell: %s" % error


def _nftables():
    """Any base chain but those of the break-out, whose rules are for what leaves in the clear."""
    body = struct.pack(">BBH", 0, 0, 0)
    for _, chain in _ask(_NETFILTER, _GET_CHAIN, netlink.ROOT_AND_MATCH, body):
        found = netlink.attributes(chain, 4)
        table = bytes(found.get(_CHAIN_TABLE, b"")).rstrip(b"\0").decode()
        if _CHAIN_HOOK in found and table != _BREAKOUT:
            return "nftables has chains in table " + table
    return ""


def _policies():
    for _, body in _ask(_XFRM, _GET_POLICIES, 0, struct.pack("@I", 0)):
        info = netlink.attributes(body, 4).get(_SPD_INFO)
        if not info or any(struct.unpack_from("@3I", info, 0)):
            return "there are IPsec policies"
    return ""


def _rules(interfaces):
    for _, body in _ask(0, _GET_RULE, netlink.ROOT_AND_MATCH, struct.pack("@12B", 2, *bytes(11))):
        found = netlink.attributes(body, 12)
        priority = struct.unpack("@I", found.get(_FRA_PRIORITY, bytes(4)))[0]
        ours = found.get(_FRA_PROTOCOL) == bytes((_OURS,))
        if ours or body[4] == _LOCAL or priority > _TUNNELS or _FRA_OIF in found:
            continue
        interface = found.get(_FRA_IIF)
        inverted = struct.unpack_from("@I", body, 8)[0] & _INVERTED
        if not interface or inverted or bytes(interface[:-1]).decode() in interfaces:
            return "there is a routing rule of priority %d" % priority
    return ""


def _ask(protocol, kind, flags, body):
    try:
        asked = netlink.Netlink(protocol)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise
    try:
        return asked.request(kind, flags, body)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise
    finally:
        asked.close()


def _inside(address, net, plen):
    shift = 32 - plen
    return int.from_bytes(address, "big") >> shift == int.from_bytes(net, "big") >> shift


def _read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError as error:
        if error.errno == _NO_FILE:
            return ""
        raise
