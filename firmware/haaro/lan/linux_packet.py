"""The LAN attachment of Linux: our end of a veth pair, whose kernel end carries the routes.

The kernel keeps the LAN, DHCP, the firewall and local sockets, lowers the TTL and reassembles;
we see each packet it routes into the tunnels, and give it each packet that came out of one.
"""

from haaro.platform import linux_sockets


class LinuxPacketPort:
    """Frames of the interface `index`; `kernel_mac` is the address of the pair's other end."""

    ttl_step = 0

    def __init__(self, index: int, own_mac: bytes, kernel_mac: bytes) -> None:
        self.ethernet = kernel_mac + own_mac + b"\x08\x00"
        self.pairs = linux_sockets.lan_pairs(index)
        self._sender = linux_sockets.lan_sender(index)
        self.write = self._sender.write

    def close(self) -> None:
        """Close the sending socket; the pairs are the plane's."""
        self._sender.close()
