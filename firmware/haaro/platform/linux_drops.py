"""What the kernel dropped because a receive queue was full, by its own count.

Owns where that is told: /proc/net/raw for raw sockets, and for AF_PACKET the packet diagnosis of
netlink (linux/packet_diag.h), since /proc/net/packet has no such column. Imported when somebody
asks for it first: it is nothing that forwarding needs.
"""

import os
import struct

from haaro.compat import const
from haaro.platform.netlink import Netlink, attributes

_AF_PACKET = const(17)
_SOCK_DIAG = const(4)
_BY_FAMILY = const(20)
_DUMP = const(0x300)
_SHOW_MEMINFO = const(0x10)
_MEMINFO = const(6)
_DROPS = const(32)  # octets into SK_MEMINFO: the ninth word


def drops(sockets: list) -> int:
    """Return the packets dropped at these sockets since they were made; raises OSError.

    Each is raw or AF_PACKET. The kernel counts in 32 bits.
    """
    found = {os.stat("/proc/self/fd/%d" % one.fileno())[1]: -1 for one in sockets}
    with open("/proc/net/raw") as table:
        for line in table:
            words = line.split()
            if words[-1].isdigit() and int(words[-4]) in found:
                found[int(words[-4])] = int(words[-1])
    if -1 in found.values():
        _packet_sockets(found)
    return sum(found.values())


def _packet_sockets(found):
    netlink = Netlink(_SOCK_DIAG)
    try:
        request = struct.pack("@BBHIIII", _AF_PACKET, 0, 0, 0, _SHOW_MEMINFO, 0, 0)
        for _, body in netlink.request(_BY_FAMILY, _DUMP, request):
            inode = struct.unpack_from("@I", body, 4)[0]
            if inode in found:
                found[inode] = struct.unpack_from("@I", attributes(body, 16)[_MEMINFO], _DROPS)[0]
    finally:
        netlink.close()
    if -1 in found.values():
        raise OSError("the kernel does not tell")
