"""The LAN attachment of Linux: our end of a veth pair, whose kernel end carries the routes.

The kernel keeps the LAN, DHCP, the firewall and local sockets, lowers the TTL and reassembles;
we see each packet it routes into the tunnels, and give it each packet that came out of one.
"""

from haaro.dataplane.chosen import leaves
from haaro.platform import ethtool, linux_sockets


def prepare_pair(indexes: tuple, plain: bool) -> int:
    """Set the offloads of the kernel's and of our end; return `ahead` of the port, 0 = plain loops.

    plain: few packets will come. Without machine code the kernel cuts and sums faster than we.
    """
    ahead = 0
    if leaves.FAST and not plain:
        ahead = 24 if linux_sockets.takes_vnet() else 14
    names = (ethtool.OFFLOADS, ethtool.OFFLOADS)
    if ahead == 24:
        names = (ethtool.SUPERFRAMES_IN, ethtool.SUPERFRAMES_OUT)
    for index, off in zip(indexes, names):
        ethtool.features_off(index, off)
        try:
            ethtool.features_off(index, ethtool.NEWER)
        except OSError:
            pass
    return ahead


class LinuxPacketPort:
    """Frames of the interface `index`; `kernel_mac` is the address of the pair's other end."""

    ttl_step = 0

    def __init__(self, index: int, own_mac: bytes, kernel_mac: bytes, ahead: int = 0) -> None:
        superframes = ahead == 24
        self.ethernet = kernel_mac + own_mac + b"\x08\x00"
        self.ahead = ahead
        self.pairs = linux_sockets.lan_pairs(index, superframes)
        self._sender = linux_sockets.lan_sender(index)
        self.joins_udp = superframes and linux_sockets.vnet_sender(self._sender)
        self.write = self._sender.write

    def close(self) -> None:
        """Close the sending socket; the pairs are the plane's."""
        self._sender.close()
