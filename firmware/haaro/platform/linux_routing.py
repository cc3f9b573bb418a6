"""Links, addresses, rules and routes of a Linux router, by netlink.

Owns the numbers: table 434 for what goes into the tunnels, table 4340 + n for what carries the
care-of address of uplink n, rules of priority 4340 and up, and the mark (protocol 43) by which
a later start finds what an earlier one left. Called by platform/linux.py only.

Rules, in order. For our home address and mobile networks as source: the main table without its
default route and without what leaves by an uplink (told by the uplinks' interface group), then
table 434; with local break-out, for the networks, table 435 instead, which has what belongs to the
organisation, and the tables of the uplinks; else dropped. For all other sources the main table
without its default route; for a care-of address, the table of its uplink. One more rule drops
IPv6 that came in by any interface: Mobile IPv4 does not carry it.
"""

import struct

from haaro.compat import const
from haaro.platform import netlink
from haaro.platform.netlink import attribute, attributes, name, nested, number

_NEW_LINK = const(16)
_DEL_LINK = const(17)
_GET_LINK = const(18)
_NEW_ADDRESS = const(20)
_NEW_ROUTE = const(24)
_DEL_ROUTE = const(25)
_GET_ROUTE = const(26)
_NEW_RULE = const(32)
_DEL_RULE = const(33)
_GET_RULE = const(34)

_AF_INET = const(2)
_AF_INET6 = const(10)
_UP = const(1)
_NOARP = const(0x80)

_IFLA_ADDRESS = const(1)
_IFLA_NAME = const(3)
_IFLA_MTU = const(4)
_IFLA_LINKINFO = const(18)
_IFLA_ALIAS = const(20)
_IFLA_GROUP = const(27)
_IFLA_EXT_MASK = const(29)
_SKIP_STATS = const(8)
_IFLA_TX_QUEUES = const(31)
_IFLA_RX_QUEUES = const(32)
_INFO_KIND = const(1)
_INFO_DATA = const(2)
_VETH_PEER = const(1)

_IFA_ADDRESS = const(1)
_IFA_LOCAL = const(2)

_RTA_DST = const(1)
_RTA_OIF = const(4)
_RTA_GATEWAY = const(5)
_RTA_PRIORITY = const(6)
_RTA_TABLE = const(15)

_FRA_SOURCE = const(2)
_FRA_IIFNAME = const(3)
_FRA_PRIORITY = const(6)
_FRA_SUPPRESS_GROUP = const(13)
_FRA_SUPPRESS_PREFIX_LENGTH = const(14)
_FRA_TABLE = const(15)
_FRA_PROTOCOL = const(21)

_MAIN = const(254)
_TUNNELS = const(434)
_INSIDE = const(435)
_UPLINKS = const(4340)
_PRIORITY_MAIN = const(4340)
_PRIORITY_HOME = const(4341)
_PRIORITY_LOCAL = const(4345)
_PRIORITY_GUARD = const(4360)
_PRIORITY_OTHERS = const(4361)
_PRIORITY_UPLINKS = const(4370)
_GROUP = const(4340)
_BLACKHOLE = const(6)
_INVERT = const(2)
_LAST_RESORT = const(1000)  # metric of the route that drops while the pair is gone
_PROTOCOL = const(43)
_ALIAS = "haaro"
_ENOENT = const(2)
_ESRCH = const(3)
_EEXIST = const(17)
_ENODEV = const(19)
_NO_IPV6 = (95, 97)  # EOPNOTSUPP, EAFNOSUPPORT


class LinuxRouting:
    """The router's part of the kernel's network configuration; every call raises OSError."""

    def __init__(self) -> None:
        self._netlink = netlink.Netlink()
        self._local: list = []
        # Rank of each uplink among those that local break-out may use.
        self.ranks: list = []

    def clear(
        self,
        interface: str,
        guarded: list | None = None,
        block_ipv6: bool = False,
        local: bool = False,
    ) -> list:
        """Remove all that an earlier run left: rules, routes and the pair `interface`.

        What carries a source in `guarded`, (prefix4, length), is dropped from now on when no
        tunnel takes it: between two runs, too, it must not leave by the uplink. So is IPv6, if it
        is blocked. Returns the prefixes that an earlier run kept inside; local: they stay there.
        Raises OSError(EEXIST), and changes nothing, if a link of that name is not ours.
        """
        index, _, found = self.link(interface)
        if index and found.get(_IFLA_ALIAS, b"").rstrip(b"\0") != _ALIAS.encode():
            raise OSError(_EEXIST, "%s exists and is not haaro's" % interface)
        guarded = guarded or []
        for source, plen in guarded:
            self._add_rule(_PRIORITY_GUARD, 0, source, b"", plen, _BLACKHOLE)
        self._block_ipv6(block_ipv6)
        rules = [body for _, body in self._netlink.dump(_GET_RULE, _rule(0, 0))]
        # Last first: the rule that lets something out goes before the one that keeps some of it in.
        for body in reversed(rules):
            found = attributes(body, 12)
            if (
                body[7] == _BLACKHOLE
                and (found.get(_FRA_SOURCE), body[2]) in guarded
                and found.get(_FRA_PRIORITY) == struct.pack("@I", _PRIORITY_GUARD)
            ):
                continue
            if found.get(_FRA_PROTOCOL) == bytes((_PROTOCOL,)):
                self._forgiving(_DEL_RULE, body)
        kept = []
        for _, body in self._netlink.dump(_GET_ROUTE, _route(0, 0)):
            if body[5] != _PROTOCOL:
                continue
            if body[7] == _BLACKHOLE:
                kept.append((bytes(attributes(body, 12)[_RTA_DST]), body[1]))
                if local:
                    continue
            self._forgiving(_DEL_ROUTE, body)
        for _, body in self._netlink.dump(
            _GET_LINK, _link(0) + number(_IFLA_EXT_MASK, _SKIP_STATS)
        ):
            if attributes(body, 16).get(_IFLA_GROUP) == struct.pack("@I", _GROUP):
                self._group(struct.unpack_from("@i", body, 4)[0], 0)
        if index:
            self._netlink.request(_DEL_LINK, 0, _link(index))
        return kept

    def link(self, interface: str) -> tuple:
        """Return (index, flags, attributes) of a link, (0, 0, {}) if there is none."""
        try:
            answer = self._netlink.request(_GET_LINK, 0, _link(0) + name(_IFLA_NAME, interface))
        except OSError as error:
            if error.errno != _ENODEV:
                raise
            return 0, 0, {}
        body = answer[0][1]
        return struct.unpack_from("@iI", body, 4) + (attributes(body, 16),)

    def make_pair(self, kernel_end: str, our_end: str, macs: tuple, mtu: int) -> tuple:
        """Create the veth pair, both ends down; return the two indexes."""
        queues = number(_IFLA_TX_QUEUES, 1) + number(_IFLA_RX_QUEUES, 1) + number(_IFLA_MTU, mtu)
        peer = _link(0) + name(_IFLA_NAME, our_end) + attribute(_IFLA_ADDRESS, macs[1]) + queues
        self._netlink.request(
            _NEW_LINK,
            netlink.CREATE | netlink.EXCLUSIVE,
            _link(0)
            + name(_IFLA_NAME, kernel_end)
            + attribute(_IFLA_ADDRESS, macs[0])
            + queues
            + nested(
                _IFLA_LINKINFO,
                name(_INFO_KIND, "veth"),
                nested(_INFO_DATA, attribute(_VETH_PEER, peer)),
            ),
        )
        indexes = self.link(kernel_end)[0], self.link(our_end)[0]
        for index in indexes:
            self._netlink.request(_NEW_LINK, 0, _link(index) + name(_IFLA_ALIAS, _ALIAS))
        return indexes

    def find_pair(self, kernel_end: str, our_end: str) -> tuple | None:
        """Return the two indexes of the pair an earlier run left, None if it is not there."""
        found = []
        for end in (kernel_end, our_end):
            index, _, attributes_ = self.link(end)
            if not index or attributes_.get(_IFLA_ALIAS, b"").rstrip(b"\0") != _ALIAS.encode():
                return None
            found.append(index)
        return tuple(found)

    def up(self, index: int) -> None:
        """Bring a link up, without ARP."""
        flags = _UP | _NOARP
        self._netlink.request(_NEW_LINK, 0, _link(index, flags, flags))

    def mark_uplinks(self, interfaces: list) -> None:
        """Let no packet of ours leave by these but in a tunnel, whatever routes they have."""
        for interface in interfaces:
            index = self.link(interface)[0]
            if index:
                self._group(index, _GROUP)

    def keep_inside(self, index: int, prefix: bytes, plen: int) -> None:
        """With local break-out: `prefix` goes to the pair's kernel end `index`, or nowhere."""
        table = number(_RTA_TABLE, _INSIDE) + attribute(_RTA_DST, prefix)
        flags = netlink.CREATE | netlink.REPLACE
        for scope, kind, last in (
            (0, _BLACKHOLE, number(_RTA_PRIORITY, _LAST_RESORT)),
            (253, 1, number(_RTA_OIF, index)),
        ):
            body = struct.pack("@BBBBBBBBI", _AF_INET, plen, 0, 0, 0, _PROTOCOL, scope, kind, 0)
            self._netlink.request(_NEW_ROUTE, flags, body + table + last)

    def add_home(
        self, index: int, home_address: bytes, networks: list, local: bool = False
    ) -> None:
        """Give the pair's kernel end our home address, and route what carries our sources to it.

        local: of what the networks send, only what is kept inside; the rest leaves by the uplinks.
        """
        self._netlink.request(
            _NEW_ADDRESS,
            netlink.CREATE | netlink.REPLACE,
            struct.pack("@BBBBI", _AF_INET, 32, 0, 0, index)
            + attribute(_IFA_LOCAL, home_address)
            + attribute(_IFA_ADDRESS, home_address),
        )
        self._add_route(_TUNNELS, index, None)
        no_default = number(_FRA_SUPPRESS_PREFIX_LENGTH, 0)
        no_uplink = no_default + number(_FRA_SUPPRESS_GROUP, _GROUP)
        inside = _INSIDE if local else _TUNNELS
        for prefix, plen in [(home_address, 32)] + networks:
            self._add_rule(_PRIORITY_MAIN, _MAIN, prefix, no_uplink, plen)
        self._add_rule(_PRIORITY_HOME, _TUNNELS, home_address)
        for prefix, plen in networks:
            self._add_rule(_PRIORITY_HOME, inside, prefix, b"", plen)
        self._add_rule(_PRIORITY_OTHERS, _MAIN, b"", no_default)
        self._local = networks if local else []

    def set_uplink(self, uplink: int, interface: str, address: bytes, gateway) -> None:
        """What carries this care-of address leaves by this interface, replacing what was set."""
        self.drop_uplink(uplink)
        index = self.link(interface)[0]
        self._group(index, _GROUP)
        self._add_route(_UPLINKS + uplink, index, gateway)
        self._add_rule(_PRIORITY_UPLINKS + uplink, _UPLINKS + uplink, address)
        for prefix, plen in self._local:
            priority = _PRIORITY_LOCAL + self.ranks[uplink]
            self._add_rule(priority, _UPLINKS + uplink, prefix, b"", plen)

    def drop_uplink(self, uplink: int) -> None:
        """Remove rule and route of an uplink, if they are there."""
        for prefix, plen in self._local:
            body = _rule(plen, 1) + attribute(_FRA_SOURCE, prefix)
            body += number(_FRA_PRIORITY, _PRIORITY_LOCAL + self.ranks[uplink])
            self._forgiving(_DEL_RULE, body)
        priority = number(_FRA_PRIORITY, _PRIORITY_UPLINKS + uplink)
        self._forgiving(_DEL_RULE, _rule(0, 1) + priority)
        self._forgiving(_DEL_ROUTE, _route(0, 1) + number(_RTA_TABLE, _UPLINKS + uplink))

    def close(self) -> None:
        """Close the netlink socket; nothing is removed."""
        self._netlink.close()

    def _add_route(self, table, index, gateway):
        body = _route(0 if gateway else 253, 1) + number(_RTA_TABLE, table)
        body += number(_RTA_OIF, index)
        if gateway:
            body += attribute(_RTA_GATEWAY, gateway)
        try:
            self._netlink.request(_NEW_ROUTE, netlink.CREATE | netlink.REPLACE, body)
        except OSError:
            if not gateway:
                raise
            # The gateway is outside the address's prefix (point to point, /32 from a cloud).
            body = struct.pack("@BBBBBBBBI", _AF_INET, 0, 0, 0, 0, _PROTOCOL, 0, 1, 4) + body[12:]
            self._netlink.request(_NEW_ROUTE, netlink.CREATE | netlink.REPLACE, body)

    def _add_rule(self, priority, table, source, more=b"", plen=32, action=1):
        body = _rule(plen if source else 0, action)
        if source:
            body += attribute(_FRA_SOURCE, source)
        body += number(_FRA_PRIORITY, priority)
        if table:
            body += number(_FRA_TABLE, table)
        body += attribute(_FRA_PROTOCOL, bytes((_PROTOCOL,))) + more
        try:
            self._netlink.request(_NEW_RULE, netlink.CREATE | netlink.EXCLUSIVE, body)
        except OSError as error:
            # Left by an earlier run.
            if error.errno != _EEXIST:
                raise

    def _group(self, index, group):
        self._netlink.request(_NEW_LINK, 0, _link(index) + number(_IFLA_GROUP, group))

    def _block_ipv6(self, block):
        # "not lo": what came in by an interface, and is not for this box, which rule 0 takes.
        body = struct.pack("@BBBBBBBBI", _AF_INET6, 0, 0, 0, 0, 0, 0, _BLACKHOLE, _INVERT)
        body += name(_FRA_IIFNAME, "lo") + number(_FRA_PRIORITY, _PRIORITY_GUARD)
        body += attribute(_FRA_PROTOCOL, bytes((_PROTOCOL,)))
        try:
            if block:
                self._netlink.request(_NEW_RULE, netlink.CREATE | netlink.EXCLUSIVE, body)
            else:
                self._netlink.request(_DEL_RULE, 0, body)
        except OSError as error:
            if error.errno not in (_EEXIST, _ENOENT) + _NO_IPV6:
                raise

    def _forgiving(self, kind, body):
        try:
            self._netlink.request(kind, 0, body)
        except OSError as error:
            if error.errno not in (_ENOENT, _ESRCH):
                raise


def _link(index, flags=0, change=0):
    return struct.pack("@BBHiII", 0, 0, 0, index, flags, change)


def _rule(source_length, action):
    return struct.pack("@BBBBBBBBI", _AF_INET, 0, source_length, 0, 0, 0, 0, action, 0)


def _route(scope, kind):
    return struct.pack("@BBBBBBBBI", _AF_INET, 0, 0, 0, 0, _PROTOCOL if kind else 0, scope, kind, 0)
