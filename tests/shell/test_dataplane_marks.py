"""DSCP and ECN on the wire, on both planes (RFC 6040)."""

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from tests.shell.namespaces import Sniffer, config, needs_namespaces, nodes, run
from tests.shell.test_dataplane import HEADER, udp

pytestmark = needs_namespaces

RAW = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for line in sys.stdin:
    s.sendto(bytes.fromhex(line), (sys.argv[1], 0))
"""


def marked(packet: bytes, tos: int) -> bytes:
    changed = bytearray(packet)
    changed[1] = tos
    changed[10:12] = b"\0\0"
    changed[10:12] = ipv4.checksum(changed, 0, 20).to_bytes(2, "big")
    return bytes(changed)


def test_congestion_marks_pass_the_tunnel(plane_net):
    """RFC 6040 4.2: the whole table of outer and inner ECN fields, DSCP untouched."""
    net = plane_net
    expected = {}  # (outer, inner): what the host gets
    for outer in range(4):
        for inside in range(4):
            expected[outer, inside] = (
                3 if outer == 3 else 1 if (outer, inside) == (1, 2) else inside
            )
    del expected[3, 0]  # marked on the way although it does not know of marks: dropped
    datagrams = []
    for outer in range(4):
        for inside in range(4):
            packet = marked(udp(60 + outer * 4 + inside), 0xB8 | inside)
            ends = address("10.99.0.2"), address("10.99.0.1")
            datagram = ipv4.build_udp(*ends, 434, 434, HEADER + packet)
            datagrams.append(marked(datagram, outer))
    with nodes(net, ("r1", config(1))) as (one,), Sniffer(net, "h1", "lan") as sniffer:
        net.feed("r2", RAW, datagrams, "10.99.0.1")
        packets = sniffer.until(lambda all_: sum(p[9] == 17 for p in all_) >= 15)
        got = {}
        for packet in packets:
            if packet[9] == 17:
                case = len(packet) - 60
                assert packet[1] & 0xFC == 0xB8 and ipv4.checksum(packet, 0, 20) == 0
                got[case >> 2, case & 3] = packet[1] & 3
        assert got == expected
        status = one.until(lambda status: status["counters"]["in_congestion_unmarked"] == 1)
        assert status["counters"]["in_forwarded"] == 15


def test_the_outer_header_has_dscp_and_ecn_of_the_inner(plane_net):
    """RFC 6040 4.1: each TOS, in runs and in turn; what a host marks is no control packet."""
    net = plane_net
    toses = [0, 0xB8, 0xB9, 0xB9, 2, 0xC0, 3, 0, 0, 0x28]
    packets = [
        marked(udp(60 + i, "10.1.0.10", "10.2.0.10"), tos) for i, tos in enumerate(toses * 3)
    ]
    with nodes(net, ("r1", config(1))), Sniffer(net, "r2", "wan") as sniffer:
        # The neighbour's answer first: what waits for it is sent in another order.
        run(*net.inside("r1", "ping", "-c", "1", "-W", "2", "10.99.0.2"))
        net.feed("h1", RAW, packets, "10.2.0.10")

        def tunnelled(seen):
            return [p for p in seen if p[9] == 17 and p[28:32] == HEADER and p[41] == 17]

        seen = tunnelled(sniffer.until(lambda all_: len(tunnelled(all_)) >= len(packets)))
        assert sorted((len(p) - 32, p[1]) for p in seen) == [
            (len(p), p[1]) for p in sorted(packets, key=len)
        ]
        assert all(p[1] == p[33] for p in seen)
