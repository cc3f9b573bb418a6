"""Runs of packets by one call on real sockets: what is on the wire, and the link as it was."""

import pytest

from tests.shell.namespaces import Sniffer, config, needs_namespaces, nodes, run
from tests.shell.test_dataplane import HEADER, nothing_lost

pytestmark = needs_namespaces

BURST = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.2.0.10", 9))
s.setsockopt(socket.SOL_SOCKET, 32, 1 << 24)  # SO_SNDBUFFORCE
for size in (36, 1440, 1, 700) * 10:
    for i in range(20):
        s.send(bytes([i]) * size)
"""


def segmentation(net) -> str:
    features = run(*net.inside("r1", "ethtool", "-k", "wan"))
    return next(line for line in features.splitlines() if "tx-udp-segmentation" in line)


@pytest.mark.parametrize("plane_net", ["userspace"], indirect=True)
def test_runs_are_cut_before_the_wire_and_the_link_is_left_as_it_was(plane_net):
    net = plane_net
    assert ": on" in segmentation(net)
    with nodes(net, ("r1", config(1))) as (one,), Sniffer(net, "r2", "wan") as sniffer:
        assert ": off" in segmentation(net)
        net.python("h1", BURST)
        status = one.until(forwarded_out(800))
        nothing_lost(status)

        def tunnelled(seen):
            return [p for p in seen if p[9] == 17 and p[28:32] == HEADER and p[41] == 17]

        seen = tunnelled(sniffer.until(lambda all_: len(tunnelled(all_)) >= 800))
        sizes = {36: 200, 1440: 200, 1: 200, 700: 200}
        for packet in seen:
            data = packet[60:]
            assert data == data[:1] * len(data)
            sizes[len(data)] -= 1
        assert set(sizes.values()) == {0}
        one.stop()
    assert ": on" in segmentation(net)


def test_the_kernel_plane_leaves_the_link_alone(kernel_net):
    with nodes(kernel_net, ("r1", config(1))) as (one,):
        assert one.ask("status")["plane"] == "kernel"
        # Without the checksums, which that plane leaves to the kernel, it cannot be on.
        assert "requested on" in segmentation(kernel_net)


def forwarded_out(count: int):
    return lambda status: status["counters"]["out_forwarded"] >= count
