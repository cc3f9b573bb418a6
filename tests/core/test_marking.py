"""What the routers and the home agent send for themselves is marked, what users send is not."""

from haaro.wire import ipv4
from tests.core.helpers import Triangle


def test_every_own_packet_inside_a_tunnel_is_marked_cs6():
    """F15 of the threats: so that a queue which knows DSCP lets it pass the office's traffic."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.traffic(world.c, world.a, 3000)
    seen = {}
    for datagram in world.net.captured:
        if datagram.inner is not None:
            ip = ipv4.parse_ipv4(datagram.inner)
            # From a care-of address it was marked, as outer packet, by the shell's socket.
            if ip.src not in world.coas.values():
                seen.setdefault(datagram.kind, set()).add(ip.tos)
    assert seen.pop("user") == {0}
    assert {"keepalive", "hoti", "hot", "cot", "reply"} <= set(seen)
    assert all(marks == {0xC0} for marks in seen.values()), seen
