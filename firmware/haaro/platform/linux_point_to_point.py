"""A raw IPv4 link of ours as an interface of Linux: what is routed there, we read, and back.

MicroPython cannot open a tun device (that takes an ioctl). A veth pair does as well: the kernel's
end has the address, so the data plane, signalling and routes use it as any interface; our end is
AF_PACKET. Its carrier is our end's state. Imported only for uplinks that need it.
"""

import gc
import struct

from haaro.compat import const
from haaro.platform import ethtool, linux_sockets, netlink
from haaro.platform.netlink import attribute, number

_NEW_LINK = const(16)
_DEL_LINK = const(17)
_NEW_ADDRESS = const(20)
_DEL_ADDRESS = const(21)
_IFLA_MTU = const(4)
_IFA_ADDRESS = const(1)
_IFA_LOCAL = const(2)
_AF_INET = const(2)
_UP = const(1)
_MTU = const(1500)
_ETHERNET = const(14)
_ANSWER_OCTETS = const(512)
# Signalling and keepalives that may wait: what the kernel accounts for some dozens.
_URGENT_OCTETS = const(65536)


class PointToPoint:
    """One link called `interface`; `queue` octets may wait for a slow line.

    routing: a platform.linux_routing.LinuxRouting. ident: number of the uplink, for the addresses.
    Raises OSError.
    """

    def __init__(self, routing, interface: str, ident: int, queue: int) -> None:
        self._routing = routing
        self._queue = queue
        self._netlink = netlink.Netlink(0, 0, _ANSWER_OCTETS)
        ours = interface + "p"
        macs = (
            b"\x02\x6a\x00\x00\x00" + bytes((ident,)),
            b"\x02\x6b\x00\x00\x00" + bytes((ident,)),
        )
        left = routing.find_pair(interface, ours)
        if left:
            # Of a router that was killed.
            self._remove(left[0])
        self._kernel, self._ours = routing.make_pair(interface, ours, macs, _MTU)
        for index in (self._kernel, self._ours):
            ethtool.features_off(index)
        self._header = macs[0] + macs[1] + b"\x08\x00"
        self._sender = None
        self._address: bytes | None = None
        # Readable when there is a packet, control packets apart: on a slow line one must not wait
        # behind a queue of data. None while the link is down.
        self.socket = None
        self.urgent = None
        self.lost = 0  # packets that there was no memory for

    def up(self, address: bytes, mtu: int) -> None:
        """Give the kernel's end this address and carrier."""
        self.down()
        for index in (self._kernel, self._ours):
            self._netlink.request(
                _NEW_LINK, 0, struct.pack("@BBHiII", 0, 0, 0, index, 0, 0) + number(_IFLA_MTU, mtu)
            )
        self._address = address
        self._netlink.request(
            _NEW_ADDRESS, netlink.CREATE | netlink.REPLACE, self._address_body(address)
        )
        for index in (self._kernel, self._ours):
            self._routing.up(index)
        self._sender = linux_sockets.lan_sender(self._ours)
        self.urgent = linux_sockets.packets(self._ours, _URGENT_OCTETS, True)
        self.socket = linux_sockets.packets(self._ours, self._queue, False)

    def down(self) -> None:
        """Take address and carrier away; what waits is forgotten."""
        if self.socket is None:
            return
        self.socket.close()
        self.urgent.close()
        self._sender.close()
        self.socket = self.urgent = None
        self._netlink.request(_NEW_LINK, 0, struct.pack("@BBHiII", 0, 0, 0, self._ours, 0, _UP))
        self._netlink.request(_DEL_ADDRESS, 0, self._address_body(self._address))

    def read(self) -> bytes | None:
        """Return the next IPv4 packet that the kernel sends here, control packets first."""
        return self._next(self.urgent) or self._next(self.socket)

    def _next(self, receiver):
        try:
            frame = receiver.recv(_ETHERNET + _MTU)
        except OSError:
            return None
        except MemoryError:
            self.lost += 1
            gc.collect()
            return None
        return frame[_ETHERNET:] if frame else None

    def write(self, buffer: bytearray, start: int, end: int) -> None:
        """Give the kernel the packet in `buffer[start:end]`; the 14 octets before it are lost."""
        start -= _ETHERNET
        buffer[start : start + _ETHERNET] = self._header
        if self._sender.write(buffer, start, end - start) is None:
            self.lost += 1

    def close(self) -> None:
        """Remove the link."""
        self.down()
        self._remove(self._kernel)
        self._netlink.close()

    def _remove(self, index):
        self._netlink.request(_DEL_LINK, 0, struct.pack("@BBHiII", 0, 0, 0, index, 0, 0))

    def _address_body(self, address):
        return (
            struct.pack("@BBBBI", _AF_INET, 32, 0, 0, self._kernel)
            + attribute(_IFA_LOCAL, address)
            + attribute(_IFA_ADDRESS, address)
        )
