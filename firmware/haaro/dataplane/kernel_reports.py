"""What the kernel plane's programs tell: frames of one ethertype over the veth pair.

Owns their socket and the newest counters. A request comes back with the sums of all CPUs behind it;
a copy of a packet on a wanted route has the hint in its source address. So neither costs a call of
`bpftool`. Called by dataplane/kernel.py.
"""

import socket
import struct

from haaro.compat import const

GLOBALS = 32  # counters before those of the tunnels

_ETHERTYPE = const(0x88B5)
_AF_PACKET = const(17)
_HINT_MARK = const(2)
_REQUEST = const(16)  # Ethernet header, block, zero
_BLOCK = const(32)  # counters in a report
_REPORT = const(16 + 32 * 8)


class Reports:
    """Listens on our end of the pair, the interface `index`.

    anew: the counters began with this process; else what the first report says was before it.
    """

    def __init__(self, index: int, anew: bool) -> None:
        self._anew = anew
        self._blocks: dict = {}
        self._before: dict = {}
        self.socket = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)
        protocol = struct.unpack("@H", struct.pack(">H", _ETHERTYPE))[0]
        self.socket.bind(struct.pack("@HHiHBB8s", _AF_PACKET, protocol, index, 0, 0, 0, b""))
        self.socket.setblocking(False)

    def ask(self, write, first: int, count: int) -> None:
        """Send requests for the blocks that hold `count` counters from `first` on; raises OSError.

        write: of the LAN attachment.
        """
        request = bytearray(_REPORT)
        request[12] = _ETHERTYPE >> 8
        request[13] = _ETHERTYPE & 255
        for block in range(first // _BLOCK, (first + count - 1) // _BLOCK + 1):
            request[14] = block
            write(request, 0, _REPORT)

    def receive(self) -> list:
        """Take in what has come; return the hints among it."""
        hints = []
        try:
            while True:
                report = self.socket.recv(_REPORT)
                if report[6] == _HINT_MARK:
                    hints.append(report[7] << 8 | report[8])
                elif len(report) == _REPORT:
                    block = report[14]
                    if block not in self._blocks:
                        self._before[block] = bytes(_REPORT) if self._anew else report
                    self._blocks[block] = report
        except OSError:
            return hints

    def count(self, index: int) -> int:
        """Return a counter since this process began, as last reported."""
        block = self._blocks.get(index // _BLOCK)
        if not block:
            return 0
        at = _REQUEST + index % _BLOCK * 8
        before = self._before[index // _BLOCK]
        return struct.unpack_from("@Q", block, at)[0] - struct.unpack_from("@Q", before, at)[0]
