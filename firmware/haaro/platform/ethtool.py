"""Turns off offloads of a network interface, by the kernel's ethtool netlink family.

With them a veth would hand us frames of 64 KB without checksums.
"""

import struct

from haaro.compat import const
from haaro.platform import netlink

_CONTROL = const(0x10)  # GENL_ID_CTRL
_GET_FAMILY = const(3)
_FAMILY_ID = const(1)
_FAMILY_NAME = const(2)
_FEATURES_SET = const(12)
_HEADER = const(1)
_HEADER_INDEX = const(1)
_HEADER_NAME = const(2)
_WANTED = const(3)
_BITS = const(3)
_BIT = const(1)
_BIT_NAME = const(2)
_BIT_VALUE = const(3)

OFFLOADS = (
    "tx-checksum-ip-generic",
    "tx-scatter-gather",
    "tx-scatter-gather-fraglist",
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-generic-segmentation",
    # What hosts in containers leave to the link: other checksums, tunnels of their own.
    "tx-checksum-sctp",
    "tx-sctp-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gso-list",
    "rx-gro",
)
# The same in kernels that know it (Linux 6.17): CWR is of each segment then, not of the first.
NEWER = ("tx-tcp-accecn-segmentation",)


# What a tunnel's packets leave to the link: cutting them, and the inner packet's checksum. A veth
# does neither, it passes on to its other end that it was left.
TUNNEL_OFFLOADS = (
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-checksum-ip-generic",
)


# The same where superframes are taken: of TCP over IPv4, without CWR and with identifications that
# grow (dataplane/leaves_superframes.py); checksums are ours then, too.
_LEFT_ON = ("tx-checksum-ip-generic", "tx-scatter-gather", "tx-tcp-segmentation")
SUPERFRAMES_IN = tuple([name for name in OFFLOADS if name not in _LEFT_ON])
# And for our end, that sends what we have joined.
SUPERFRAMES_OUT = tuple([name for name in SUPERFRAMES_IN if name != "tx-udp-segmentation"])


def features_off(index: int | str, names: tuple = OFFLOADS, on: bool = False) -> bool:
    """Turn the features off for the interface with this index or name, or on; raises OSError.

    Returns whether any was different before.
    """
    generic = netlink.Netlink(netlink.GENERIC)
    try:
        body = _generic(_GET_FAMILY) + netlink.name(_FAMILY_NAME, "ethtool")
        answer = generic.request(_CONTROL, 0, body)
        family = netlink.attributes(answer[0][1], 4)[_FAMILY_ID]
        value = netlink.attribute(_BIT_VALUE, b"") if on else b""
        if isinstance(index, str):
            interface = netlink.name(_HEADER_NAME, index)
        else:
            interface = netlink.number(_HEADER_INDEX, index)
        bits = [netlink.nested(_BIT, netlink.name(_BIT_NAME, name), value) for name in names]
        # The answer names what has changed.
        answer = generic.request(
            struct.unpack("@H", family)[0],
            0,
            _generic(_FEATURES_SET)
            + netlink.nested(_HEADER, interface)
            + netlink.nested(_WANTED, netlink.nested(_BITS, *bits)),
        )
        return any(name.encode() in body for _, body in answer for name in names)
    finally:
        generic.close()


def _generic(command):
    return struct.pack("@BBH", command, 1, 0)
