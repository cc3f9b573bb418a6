"""Uplinks that the system configures itself: interfaces, watched by netlink.

Owns the answer to "is this interface usable, with which address and gateway". Never changes
anything. An event only says that it is time to look; one look at everything follows, so a lost
event costs nothing.
"""

import struct

from haaro.compat import const
from haaro.platform import netlink
from haaro.platform.netlink import attributes

_IFLA_MTU = const(4)
_GET_ADDRESS = const(22)
_GET_ROUTE = const(26)
_UP_AND_RUNNING = const(0x41)
_IFA_SECONDARY = const(0x01)
_MAIN = const(254)
_NO_METRIC = const(0)
_DOWN = (False, None, None, 0)


class LinuxNetdev:
    """Watches `interfaces`; the index of an uplink is its place in the list.

    routing: a platform.linux_routing.LinuxRouting, asked for links.
    """

    def __init__(self, interfaces: list, routing) -> None:
        self._routing = routing
        self._interfaces = interfaces
        self._known: list = [_DOWN] * len(interfaces)
        self._indexes = [0] * len(interfaces)
        self._changes: list = []
        self._requests = netlink.Netlink()
        self._events = netlink.Netlink(
            0, netlink.GROUP_LINK | netlink.GROUP_ADDRESS | netlink.GROUP_ROUTE
        )
        self.socket = self._events.socket

    def handle(self) -> None:
        """Read the events that are queued; look if there were any."""
        if self._events.drain():
            self.scan()

    def scan(self) -> None:
        """Look at links, addresses and routes; queue a change for each uplink that differs."""
        addresses = {}
        for _, body in self._requests.dump(_GET_ADDRESS, struct.pack("@BBBBI", 2, 0, 0, 0, 0)):
            if body[0] != 2 or body[3] != 0 or body[2] & _IFA_SECONDARY:
                continue
            index = struct.unpack_from("@I", body, 4)[0]
            found = attributes(body, 8)
            if index not in addresses:
                addresses[index] = found.get(2) or found.get(1)
        gateways = self._gateways()
        for i, interface in enumerate(self._interfaces):
            index, flags, found = self._routing.link(interface)
            address = addresses.get(index)
            state: tuple = _DOWN
            if address and flags & _UP_AND_RUNNING == _UP_AND_RUNNING:
                mtu = struct.unpack("@I", found[_IFLA_MTU])[0]
                state = (True, bytes(address), gateways.get(index), mtu)
            if self._known[i][0] and index != self._indexes[i]:
                # The interface was made anew: sockets on the old one are deaf.
                self._changes.append((i,) + _DOWN)
                self._known[i] = _DOWN
            self._indexes[i] = index
            if state != self._known[i]:
                self._known[i] = state
                self._changes.append((i,) + state)

    def _gateways(self):
        """Return {interface index: gateway} of the main table's best default routes."""
        best: dict = {}
        for _, body in self._requests.dump(_GET_ROUTE, struct.pack("@BBBBBBBBI", 2, *bytes(8))):
            if body[1] != 0 or body[4] != _MAIN or body[0] != 2:
                continue
            found = attributes(body, 12)
            if 4 not in found or 5 not in found:
                continue
            index = struct.unpack("@I", found[4])[0]
            metric = struct.unpack("@I", found[6])[0] if 6 in found else _NO_METRIC
            if index not in best or metric < best[index][0]:
                best[index] = (metric, bytes(found[5]))
        return {index: entry[1] for index, entry in best.items()}

    def next_change(self) -> tuple | None:
        """Return (index, up, address, gateway, mtu) of the next change."""
        return self._changes.pop(0) if self._changes else None

    def close(self) -> None:
        """Close the netlink sockets."""
        self._events.close()
        self._requests.close()
