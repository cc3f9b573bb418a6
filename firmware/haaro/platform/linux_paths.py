"""What the kernel's routing says to who must do without it: next hops, and what a LAN reaches.

Asks by netlink, changes nothing. Called by dataplane/kernel.py, whose programs send packets past
the kernel's routing.
"""

import struct

from haaro.compat import const
from haaro.platform import netlink
from haaro.platform.netlink import attribute, attributes, name, number

_GET_LINK = const(18)
_GET_ADDRESS = const(22)
_GET_ROUTE = const(26)
_IFLA_NAME = const(3)
_IFLA_MTU = const(4)
_IFLA_LINKINFO = const(18)
_INFO_KIND = const(1)
_RTA_DESTINATION = const(1)
_RTA_SOURCE = const(2)
_RTA_OIF = const(4)
_RTA_GATEWAY = const(5)
_MAIN = const(254)
_UNICAST = const(1)
_ETHERNET = const(1)
_ROUTE_OCTETS = const(512)


class LinuxPaths:
    """Questions to the kernel's routing."""

    def __init__(self) -> None:
        self._netlink = netlink.Netlink()
        # Asked for each tunnel of a change: a heap in pieces has room for this.
        self._routes = netlink.Netlink(0, 0, _ROUTE_OCTETS)

    def ethernet(self, interface: str) -> tuple:
        """Return (index, mtu, is a veth) of an Ethernet interface, zeros if it is none."""
        try:
            answer = self._netlink.request(
                _GET_LINK, 0, struct.pack("@BBHiII", 0, 0, 0, 0, 0, 0) + name(_IFLA_NAME, interface)
            )
        except OSError:
            return 0, 0, False
        body = answer[0][1]
        if struct.unpack_from("@H", body, 2)[0] != _ETHERNET:
            return 0, 0, False
        found = attributes(body, 16)
        mtu = struct.unpack("@I", found[_IFLA_MTU])[0]
        kind = attributes(found.get(_IFLA_LINKINFO, b""), 0).get(_INFO_KIND, b"")
        return struct.unpack_from("@i", body, 4)[0], mtu, kind.rstrip(b"\0") == b"veth"

    def next_hop(self, interface: int, local: bytes, remote: bytes) -> bytes:
        """Return the address to send to on the interface's link for `remote`; b"" if none."""
        body = struct.pack("@BBBBBBBBI", 2, 32, 32, 0, 0, 0, 0, 0, 0)
        body += attribute(_RTA_DESTINATION, remote) + attribute(_RTA_SOURCE, local)
        body += number(_RTA_OIF, interface)
        try:
            answer = self._routes.request(_GET_ROUTE, 0, body)[0][1]
        except OSError:
            return b""
        if answer[7] != _UNICAST:
            return b""
        found = attributes(answer, 12)
        if struct.unpack("@I", found.get(_RTA_OIF, bytes(4)))[0] != interface:
            return b""
        return bytes(found.get(_RTA_GATEWAY, remote))

    def local_prefixes(self) -> list:
        """Return the (prefix4, length) of the main table but its default routes."""
        found = []
        for _, body in self._netlink.dump(_GET_ROUTE, struct.pack("@BBBBBBBBI", 2, *bytes(8))):
            if body[0] == 2 and body[1] and body[4] == _MAIN:
                prefix = attributes(body, 12).get(_RTA_DESTINATION)
                if prefix:
                    found.append((bytes(prefix), body[1]))
        return found

    def connected(self, interface: int) -> list:
        """Return the (address4, length) of an interface."""
        found = []
        for _, body in self._netlink.dump(_GET_ADDRESS, struct.pack("@BBBBI", 2, 0, 0, 0, 0)):
            if body[0] == 2 and struct.unpack_from("@I", body, 4)[0] == interface:
                # IFA_LOCAL, or IFA_ADDRESS where both ends have the same.
                values = attributes(body, 8)
                found.append((bytes(values.get(2) or values[1]), body[1]))
        return found

    def close(self) -> None:
        """Close the netlink sockets."""
        self._netlink.close()
        self._routes.close()
