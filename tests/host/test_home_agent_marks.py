"""DSCP and ECN through the home agent's fast path, on loopback sockets (RFC 6040)."""

import os
import select
import socket
from collections import Counter

import pytest

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent.bindings import UDP
from haaro_host.home_agent.plane import Plane

HERE = address("127.0.0.1")
EF = 0xB8


class End:
    """A router's binding with a tunnel end on the loopback."""

    previous = None
    encapsulation = UDP

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self.socket.settimeout(5)
        self.source, self.source_port = HERE, self.socket.getsockname()[1]
        self.rx_packets = self.tx_packets = 0

    def end(self):
        return UDP, self.source, self.source_port

    def receive(self):
        """Return (outer TOS, inner packet) of the next datagram."""
        data, ancillary, _, _ = self.socket.recvmsg(2048, 64)
        assert data[:4] == TUNNEL_HEADER
        return ancillary[0][2][0], data[4:]


class Agent:
    """What the plane asks of the core: everything goes to `target`."""

    generation = 1

    def __init__(self, origin, target) -> None:
        self.bindings = {1: origin, 2: target}
        self.target = target
        self.counters = Counter()

    def is_shared_end(self, source, port):
        return False

    def flow(self, packet, binding):
        return "tunnel", self.target

    def tunnel_mtu(self, binding):
        return 1468


@pytest.fixture
def setup():
    a, b = End(), End()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setblocking(False)
    inside, outside = os.pipe()
    os.set_blocking(inside, False)
    agent = Agent(a, b)
    plane = Plane(agent, udp, inside, lambda *_: None, lambda *_: None)
    plane.refresh()
    a.socket.connect(udp.getsockname())
    yield a, b, udp, plane, agent, outside
    for one in (a.socket, b.socket, udp):
        one.close()
    os.close(inside)
    os.close(outside)


def packet(tos: int, last: int = 10) -> bytes:
    whole = bytearray(ipv4.build_udp(address("10.1.0.10"), address(f"10.2.0.{last}"), 1, 2, b"x"))
    whole[1] = tos
    whole[10:12] = b"\0\0"
    whole[10:12] = ipv4.checksum(whole, 0, 20).to_bytes(2, "big")
    return bytes(whole)


def pushed(a, udp, plane, outer, inner):
    a.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer)
    a.socket.send(TUNNEL_HEADER + inner)
    assert select.select([udp], [], [], 5)[0]
    plane.on_udp()


def test_from_tunnel_to_tunnel_by_the_table(setup):
    """RFC 6040 4.2, then 4.1: each pair of fields; the outer TOS is that of what leaves."""
    a, b, udp, plane, agent, _ = setup
    for last in range(1, 25):
        pushed(a, udp, plane, 0, packet(0, last))  # the slow path's: it makes the flow known
        for outer in range(4):
            for inside in range(4):
                pushed(a, udp, plane, outer, packet(EF | inside, last))
                if (outer, inside) == (3, 0):
                    continue
                wanted = 3 if outer == 3 else 1 if (outer, inside) == (1, 2) else inside
                tos, inner = b.receive()
                assert (tos, inner[1]) == (EF | wanted, EF | wanted), (outer, inside)
                assert ipv4.checksum(inner, 0, 20) == 0 and inner[8] == 63
    assert agent.counters == {"congestion_unmarked": 24}
    assert b.tx_packets == 24 * 15


def test_from_outside_into_a_tunnel(setup):
    """RFC 6040 4.1; and what the slow path sends afterwards is not marked."""
    _, b, udp, plane, _, outside = setup
    os.write(outside, packet(0))
    plane.on_tun()
    for tos in (0, EF, 3, 2, 2, 0x28, 0):
        os.write(outside, packet(tos))
        plane.on_tun()
        assert b.receive() == (tos, packet(tos))
        assert udp.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 0
