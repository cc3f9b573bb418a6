"""The sockets of a Linux router, each filtered before it is bound so that no stray gets in.

Owns socket options and creation order; knows nothing of tunnels or messages. Used by the data
plane (a pair of receive sockets per CPU, one send socket per tunnel), by the LAN attachment and
by signalling. The two sockets of a pair (dataplane/userspace.py) agree in order only for packets
handled one after the other, so each pair takes the packets of one CPU.
"""

import socket
import struct
import sys

from haaro.compat import const
from haaro.dataplane.base import LAN_RECORD, MAX_PACKET, UPLINK_RECORD
from haaro.dataplane.path_mtu import RECORD
from haaro.platform import bpf, ethtool

_AF_PACKET = const(17)
_ETH_P_IP = const(0x0008)  # network order
_SOL_SOCKET = const(1)
_SO_REUSEADDR = const(2)
_SO_SNDBUF = const(7)
_SO_RCVBUF = const(8)
_SO_PRIORITY = const(12)
_SO_BINDTODEVICE = const(25)
_SO_SNDBUFFORCE = const(32)
_SO_RCVBUFFORCE = const(33)
_IP_TOS = const(1)
_IP_MTU_DISCOVER = const(10)
_IP_PMTUDISC_PROBE = const(3)
_SOL_PACKET = const(263)
_PACKET_VNET_HDR = const(15)
_PACKET_QDISC_BYPASS = const(20)
_LONGEST = const(0xFFFF)
_UDP_SEGMENT = const(103)
_ICMP = const(1)
_UDP = const(17)
_PORT = const(434)
# Receive queue of whole packets; records are charged as much, so theirs is twice as long.
_QUEUE_OCTETS = const(8 << 20)
# Linux's own limit for who is not privileged, where it cannot be read.
_DEFAULT_LIMIT = const(212992)
_SEND_OCTETS = const(4 << 20)
# Signalling and keepalives: enough for a burst from every peer, not for what a flood leaves.
_CONTROL_OCTETS = const(1 << 20)
_CS6 = const(0xC0)  # DSCP 48, network control (RFC 4594 3.1)
_PRIORITY_CONTROL = const(6)  # TC_PRIO_INTERACTIVE: first band of Linux's default queue
_MAX_PAIRS = const(8)


def cpus() -> int:
    """Return how many CPUs may handle packets."""
    try:
        with open("/sys/devices/system/cpu/possible") as file:
            return int(file.read().strip().split("-")[-1]) + 1
    except (OSError, ValueError):
        return _MAX_PAIRS


def lan_pairs(index: int, superframes: bool = False) -> list:
    """Return [(lengths, packets)] of the interface with this index; raises OSError.

    superframes: what is read has a vnet header in front, 10 octets, and may be of any length.
    """
    address = _packet_address(index, _ETH_P_IP)
    pairs = _pairs(
        _AF_PACKET, _ETH_P_IP, bpf.lan, LAN_RECORD, None, address,
        _LONGEST if superframes else MAX_PACKET, superframes,
    )  # fmt: skip
    return pairs


def lan_sender(index: int):
    """Return a socket that sends frames and receives none."""
    sender = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(_packet_address(index, 0))
    _enlarge(sender, _SO_SNDBUFFORCE, _SO_SNDBUF, _SEND_OCTETS, _SEND_OCTETS)
    try:
        sender.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    except OSError:
        pass
    sender.setblocking(False)
    return sender


def takes_vnet() -> bool:
    """Return whether the kernel hands on superframes, with a vnet header."""
    try:
        one = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)
        try:
            one.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        finally:
            one.close()
    except OSError:
        return False
    return sys.byteorder == "little"


def vnet_sender(sender) -> bool:
    """Have each frame that `sender` sends begin with a vnet header; raises OSError.

    Returns whether UDP superframes are taken, too (Linux 6.2): one is sent that everybody drops.
    """
    sender.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    frame = bytearray(24 + 28 + 16)
    # Kind UDP, segments of 8 octets, checksum from 34 on; to no address of this link.
    frame[:10] = b"\x01\x05\x2a\0\x08\0\x22\0\x06\0"
    frame[10:26] = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x01\x08\0\x45\0"
    frame[26:28] = b"\0\x2c"
    frame[32:34] = b"\x01\x11"
    frame[48:50] = b"\0\x18"
    try:
        return bool(sender.write(frame))
    except OSError:
        return False


def packets(index: int, octets: int, control: bool | None = None):
    """Return a socket that receives frames with IPv4 packets, of which `octets` may wait.

    control: True: only those marked as ours (CS6); False: only the others; None: all.
    """
    receiver = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)
    if control is not None:
        bpf.attach(receiver, bpf.marked(_CS6, not control))
    receiver.bind(_packet_address(index, _ETH_P_IP))
    receiver.setsockopt(_SOL_SOCKET, _SO_RCVBUF, octets)
    receiver.setblocking(False)
    return receiver


def tunnel_pairs(interface: str, address: bytes, home_address: bytes) -> list:
    """Return [(lengths, packets)] for tunnelled data to `address` from this interface."""

    def program(snap, largest, cpu, count):
        return bpf.tunnel(snap, largest, cpu, count, home_address)

    return _pairs(socket.AF_INET, _UDP, program, UPLINK_RECORD, interface, inet(address, _PORT))


def tunnel(interface: str, local: bytes, remote: bytes, port: int):
    """Return the socket that sends into one tunnel, and receives nothing.

    DF is always set, and what ICMP told the kernel does not count: dataplane/path_mtu.py decides
    what fits, so no outer packet is ever cut.
    """
    sender = datagram(interface, local)
    sender.setsockopt(0, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
    sender.connect(inet(remote, port))
    return sender


def datagram(interface: str, local: bytes):
    """Return a UDP socket bound to `local` port 434 that sends, and receives nothing.

    It is there in time to keep the kernel from answering "port unreachable".
    """
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bpf.attach(sender, bpf.DROP_ALL)
    sender.setsockopt(_SOL_SOCKET, _SO_REUSEADDR, 1)
    _bind_to(sender, interface)
    _enlarge(sender, _SO_SNDBUFFORCE, _SO_SNDBUF, _SEND_OCTETS, _SEND_OCTETS)
    sender.bind(inet(local, _PORT))
    sender.setblocking(False)
    return sender


def echo(interface: str, local: bytes):
    """Return a socket that sends ICMP from `local` out of `interface`, and receives what comes.

    It receives whole packets, all ICMP of that interface.
    """
    both = socket.socket(socket.AF_INET, socket.SOCK_RAW, _ICMP)
    _bind_to(both, interface)
    both.bind(inet(local, 0))
    both.setblocking(False)
    return both


def mark(sender, tos: int) -> None:
    """Have what `sender` sends from now on carry this TOS, behind control packets all the same."""
    sender.setsockopt(0, _IP_TOS, tos)
    # The TOS sets it too: a host must not choose the band that keepalives leave by.
    sender.setsockopt(_SOL_SOCKET, _SO_PRIORITY, 0)


def takes_runs(interface: str, on: bool = False) -> int:
    """Return 1 if packets of one size may leave there by one call (UDP_SEGMENT), else 0.

    The kernel must cut them before the link: a veth, or a virtual machine's, would hand them on as
    one that the raw sockets of the other end could not read. 2: that was changed now; `on` takes
    it back.
    """
    try:
        return 1 + ethtool.features_off(interface, ("tx-udp-segmentation",), on)
    except OSError:
        return 0


def segment(sender, octets: int) -> None:
    """Have the kernel cut what `sender` sends into datagrams of `octets`, 0 = not; OSError."""
    sender.setsockopt(_UDP, _UDP_SEGMENT, octets)


def control(interface: str, local: bytes):
    """Return a `datagram` socket for signalling and keepalives: marked, and ahead of all data."""
    sender = datagram(interface, local)
    sender.setsockopt(0, _IP_TOS, _CS6)
    # After the TOS, which sets the priority too, and to another one.
    sender.setsockopt(_SOL_SOCKET, _SO_PRIORITY, _PRIORITY_CONTROL)
    return sender


def signalling(interface: str, address: bytes, home_address: bytes):
    """Return the raw socket that receives all that is not tunnelled data on port 434."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, _UDP)
    bpf.attach(receiver, bpf.signalling(MAX_PACKET, home_address))
    _bind_to(receiver, interface)
    _enlarge(receiver, _SO_RCVBUFFORCE, _SO_RCVBUF, _CONTROL_OCTETS, _limit("rmem_max"))
    receiver.bind(inet(address, _PORT))
    receiver.setblocking(False)
    return receiver


def icmp_errors():
    """Return a socket that yields records of "fragmentation needed" about tunnel packets."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, _ICMP)
    bpf.attach(receiver, bpf.too_big(RECORD))
    receiver.setblocking(False)
    return receiver


def drops(sockets: list) -> int:
    """Return what full queues of these receive sockets have cost, packets; raises OSError."""
    from haaro.platform import linux_drops

    return linux_drops.drops(sockets)


def raw_pairs(protocol: int, interface: str, address: bytes) -> list:
    """As `tunnel_pairs`, for tunnels that are this IP protocol."""
    from haaro.platform import linux_encapsulations

    return linux_encapsulations.pairs(protocol, interface, address)


def raw_sender(protocol: int, interface: str, local: bytes, remote: bytes, whole: bool = False):
    """As `tunnel`, for one that is this IP protocol; whole: with the outer header."""
    from haaro.platform import linux_encapsulations

    return linux_encapsulations.sender(protocol, interface, local, remote, whole)


def inet(address: bytes, port: int) -> bytes:
    """Return a struct sockaddr_in."""
    return struct.pack("@H", socket.AF_INET) + struct.pack(">H4s8s", port, address, b"")


def _packet_address(index, protocol):
    return struct.pack("@HHiHBB8s", _AF_PACKET, protocol, index, 0, 0, 0, b"")


def _pairs(family, protocol, program, record, interface, address, largest=MAX_PACKET, vnet=False):
    pairs = []
    count = min(cpus(), _MAX_PAIRS)
    limit = _limit("rmem_max")
    # Lengths first: the kernel serves the newest socket first.
    for cpu in range(count):
        both = []
        for _ in range(2):
            one = socket.socket(family, socket.SOCK_RAW, protocol if interface else 0)
            bpf.attach(one, bpf.DROP_ALL)
            if interface:
                _bind_to(one, interface)
            if vnet:
                one.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            one.bind(address)
            one.setblocking(False)
            both.append(one)
        lengths, packets = both
        _enlarge(lengths, _SO_RCVBUFFORCE, _SO_RCVBUF, 2 * _QUEUE_OCTETS, limit)
        _enlarge(packets, _SO_RCVBUFFORCE, _SO_RCVBUF, _QUEUE_OCTETS, limit // 2)
        bpf.attach(packets, program(0, largest, cpu, count))
        bpf.attach(lengths, program(record, largest, cpu, count))
        pairs.append((lengths, packets))
    return pairs


def _bind_to(one, interface):
    one.setsockopt(_SOL_SOCKET, _SO_BINDTODEVICE, interface.encode() + b"\0")


def _limit(name):
    try:
        with open("/proc/sys/net/core/" + name) as file:
            return int(file.read())
    except (OSError, ValueError):
        return _DEFAULT_LIMIT


def _enlarge(one, force, plain, octets, limit):
    """Ask for a queue of `octets`; without the privilege, for one within `limit`."""
    try:
        one.setsockopt(_SOL_SOCKET, force, octets)
    except OSError:
        one.setsockopt(_SOL_SOCKET, plain, min(octets, limit))
