"""The LAN as a VLAN of an interface of Linux: `eth0.10`, made and removed by the router.

The kernel tags and untags, and keeps the LAN as on every other interface. Imported only if `lan`
asks for it.
"""

import struct

from haaro.compat import const
from haaro.platform import netlink
from haaro.platform.netlink import attribute, name, nested, number

_NEW_LINK = const(16)
_DEL_LINK = const(17)
_NEW_ADDRESS = const(20)
_IFLA_LINK = const(5)
_IFLA_NAME = const(3)
_IFLA_LINKINFO = const(18)
_IFLA_ALIAS = const(20)
_INFO_KIND = const(1)
_INFO_DATA = const(2)
_VLAN_ID = const(1)
_IFA_ADDRESS = const(1)
_IFA_LOCAL = const(2)
_AF_INET = const(2)
_UP = const(1)
_EOPNOTSUPP = const(95)
_ALIAS = b"haaro"


class LinuxVlan:
    """lan: the section as shell/config_lan.py gives it. Raises OSError, ValueError with a remedy.

    An interface of that name that somebody else has made is used as it is, and stays.
    """

    def __init__(self, routing, lan: dict, connection=None) -> None:
        self._netlink = connection or netlink.Netlink(0, 0, 512)
        self.interface = "%s.%d" % (lan["interface"], lan["vlan"])
        self.index, _, found = routing.link(self.interface)
        if not self.index:
            self._make(routing, lan)
            self._ours = True
        else:
            # Left by a router that was killed?
            self._ours = found.get(_IFLA_ALIAS, b"").rstrip(b"\0") == _ALIAS
        address, plen = lan["address"]
        body = struct.pack("@BBBBI", _AF_INET, plen, 0, 0, self.index)
        body += attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
        self._netlink.request(_NEW_ADDRESS, netlink.CREATE | netlink.REPLACE, body)
        self._link(self.index, _UP)

    def _make(self, routing, lan):
        parent = routing.link(lan["interface"])[0]
        if not parent:
            raise ValueError("lan.interface: %s: there is no such interface" % lan["interface"])
        try:
            self._netlink.request(
                _NEW_LINK,
                netlink.CREATE | netlink.EXCLUSIVE,
                vlan_body(parent, self.interface, lan["vlan"]),
            )
        except OSError as error:
            if error.errno != _EOPNOTSUPP:
                raise
            raise ValueError(
                "lan.vlan: %d: this kernel has no 802.1Q: load its module 8021q, or make %s by"
                " other means" % (lan["vlan"], self.interface)
            ) from None
        self._link(parent, _UP)
        self.index = routing.link(self.interface)[0]
        self._link(self.index, 0, attribute(_IFLA_ALIAS, _ALIAS + b"\0"))

    def close(self) -> None:
        """Remove what was made."""
        if self._ours:
            self._netlink.request(_DEL_LINK, 0, _header(self.index, 0))
        self._netlink.close()

    def _link(self, index, flags, more=b""):
        self._netlink.request(_NEW_LINK, 0, _header(index, flags) + more)


def _header(index, flags):
    return struct.pack("@BBHiII", 0, 0, 0, index, flags, flags)


def vlan_body(parent: int, interface: str, vlan: int) -> bytes:
    """Return the body of RTM_NEWLINK (linux/if_link.h) for VLAN `vlan` of interface `parent`."""
    return (
        _header(0, 0)
        + number(_IFLA_LINK, parent)
        + name(_IFLA_NAME, interface)
        + nested(
            _IFLA_LINKINFO,
            attribute(_INFO_KIND, b"vlan"),
            nested(_INFO_DATA, attribute(_VLAN_ID, struct.pack("@H", vlan))),
        )
    )
