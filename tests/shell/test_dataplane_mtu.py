"""Path MTU and MSS on the wire, on both planes."""

import subprocess
import sys

import pytest

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from tests.shell.namespaces import Sniffer, config, needs_namespaces, nodes, run
from tests.shell.test_dataplane import HEADER, udp
from tests.shell.test_dataplane_marks import RAW

pytestmark = needs_namespaces


def too_big(mtu: int, remote: str, port: int, kind: int = 0x0304, proto: int = 17) -> bytes:
    """Return "fragmentation needed" from a router of the path, about a packet of r1's tunnel."""
    quoted = bytearray(
        ipv4.build_udp(address("10.99.0.1"), address(remote), 434, port, bytes(1472))[:28]
    )
    quoted[9] = proto
    error = bytearray(kind.to_bytes(2, "big") + bytes(4) + mtu.to_bytes(2, "big") + quoted)
    error[2:4] = ipv4.checksum(error, 0, len(error)).to_bytes(2, "big")
    header = bytearray(20)
    ends = address("10.99.0.2"), address("10.99.0.1")
    ipv4.build_ipv4_into(header, 0, 1, *ends, len(error))
    return bytes(header + error)


def biggest(net, host: str = "10.2.0.10") -> str:
    command = ["ping", "-c", "1", "-W", "2", "-s", "1472", "-M", "do", host]
    return run(*net.inside("h1", *command), check=False)


def test_the_path_lowers_the_tunnel_and_a_forger_does_not(plane_net):
    """D4 of the threats, RFC 2003 5: only what quotes a live tunnel; no outer packet is cut."""
    net = plane_net
    forged = [
        too_big(1300, "10.99.0.3", 434),
        too_big(1300, "10.99.0.2", 435),
        too_big(1500, "10.99.0.2", 434),
        too_big(1300, "10.99.0.2", 434, kind=0x0301),
        too_big(1300, "10.99.0.2", 434, kind=0x0B00),
        too_big(1300, "10.99.0.2", 434, proto=6),
        too_big(1300, "10.99.0.2", 434)[:50],
    ]
    with nodes(net, ("r1", config(1))) as (one,), Sniffer(net, "r2", "wan") as sniffer:
        net.feed("r2", RAW, forged, "10.99.0.1")
        assert "mtu = 1468" in biggest(net)
        assert one.ask("status")["mtu"][0] == 1468
        net.feed("r2", RAW, [too_big(1300, "10.99.0.2", 434)], "10.99.0.1")
        assert one.until(lambda status: status["mtu"][0] < 1468)["mtu"][0] == 1268
        assert "mtu = 1268" in biggest(net, "10.2.0.11")
        whole, cut = udp(1268, "10.1.0.10", "10.2.0.12"), udp(1269, "10.1.0.10", "10.2.0.12")
        net.feed("h1", RAW, [whole, cut], "10.2.0.12")

        def tunnelled(seen):
            return [p for p in seen if p[9] == 17 and p[28:32] == HEADER]

        seen = tunnelled(sniffer.until(lambda all_: len(tunnelled(all_)) >= 3))
        assert sorted(len(p) for p in seen) == [53, 1300, 1300]
        # DF is set outside, whatever it is inside.
        assert all(p[6:8] == b"\x40\0" for p in seen)


CONNECT = """
import socket, sys
s = socket.create_connection((sys.argv[1], 7000), 5)
s.sendall(b"x" * 100000); s.shutdown(1)
print(len(s.recv(10)))
"""
ANSWER = """
import socket
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("10.2.0.10", 7000)); s.listen()
print("ready", flush=True)
c, _ = s.accept()
while c.recv(65536):
    pass
c.sendall(b"done")
"""


@pytest.mark.parametrize("on", [True, False])
def test_a_tcp_connection_begins_with_an_mss_that_fits(plane_net, on):
    """RFC 6691 2: in both directions, and the receivers take the mended checksum."""
    net = plane_net
    with nodes(net, *((f"r{i}", config(i, mss_clamp=on)) for i in (1, 2))):
        server = subprocess.Popen(
            net.inside("h2", sys.executable, "-c", ANSWER), stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout.readline() == "ready\n"
            with Sniffer(net, "h2", "lan") as there, Sniffer(net, "h1", "lan") as back:
                assert net.python("h1", CONNECT, "10.2.0.10").strip() == "4"
                for sniffer in (there, back):
                    syns = sniffer.until(lambda all_: any(p[9] == 6 and p[33] & 2 for p in all_))
                    syn = next(p for p in syns if p[9] == 6 and p[33] & 2)
                    assert syn[40:42] == b"\2\4"
                    assert int.from_bytes(syn[42:44], "big") == (1428 if on else 1460)
            assert server.wait(10) == 0
        finally:
            server.kill()
            server.wait()
