"""Linux raw sockets for tunnels in no UDP; imported by linux_sockets when there is one.

While a receive socket of a protocol is bound to the care-of address, the kernel answers what comes
by it with no "protocol unreachable".
"""

import socket

from haaro.compat import const
from haaro.dataplane.other_encapsulations import RECORD
from haaro.platform import bpf, linux_sockets

_IP_HDRINCL = const(3)
_IP_MTU_DISCOVER = const(10)
_IP_PMTUDISC_PROBE = const(3)
_SO_SNDBUF = const(7)
_SO_SNDBUFFORCE = const(32)
_SEND_OCTETS = const(4 << 20)
# Outer header and the least that is inside: what is shorter is dropped here.
_LEAST = const(28)
# Outer octets; a GRE header with a checksum has 8.
_LARGEST = const(1528)


def pairs(protocol: int, interface: str, address: bytes) -> list:
    """Return [(lengths, packets)] of an IP protocol to `address` from this interface."""

    def program(snap, largest, cpu, count):
        return bpf.raw(snap, _LEAST, _LARGEST, cpu, count)

    where = linux_sockets.inet(address, 0)
    return linux_sockets._pairs(socket.AF_INET, protocol, program, RECORD, interface, where)


def sender(protocol: int, interface: str, local: bytes, remote: bytes, whole: bool):
    """Return a socket that sends to one address, and receives nothing.

    The outer header is the kernel's, with DF as in linux_sockets.tunnel, but for `whole`: then it
    is in what is written, and the kernel makes only its length, identification and checksum.
    """
    one = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    bpf.attach(one, bpf.DROP_ALL)
    if whole:
        one.setsockopt(0, _IP_HDRINCL, 1)
    else:
        one.setsockopt(0, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
    linux_sockets._bind_to(one, interface)
    force, plain, octets = _SO_SNDBUFFORCE, _SO_SNDBUF, _SEND_OCTETS
    linux_sockets._enlarge(one, force, plain, octets, octets)
    one.bind(linux_sockets.inet(local, 0))
    one.setblocking(False)
    one.connect(linux_sockets.inet(remote, 0))
    return one
