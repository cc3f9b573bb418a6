"""Wrong combinations of outer, inner and next header: each forwards nothing and has its counter."""

from plane_rig import AGENT, HOME, LOCAL, Rig, inner, outer, reseal

from haaro.wire import ipv4
from haaro.wire.ipv4 import address

PEER_B = address("203.0.113.10")
PEER_C = address("203.0.113.20")
HOME_B = address("192.0.2.130")
HOME_C = address("192.0.2.131")


def made():
    """HA tunnel 0, direct tunnel 1 to B with 10.2.0.0/24, direct tunnel 2 to C with 10.3.0.0/24."""
    rig = Rig(ttl_step=1)
    plane = rig.plane
    plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)
    plane.set_tunnel(1, 0, LOCAL, PEER_B, 434, 1468, HOME_B)
    plane.set_tunnel(2, 0, LOCAL, PEER_C, 4340, 1468, HOME_C)
    sources = [
        (address("10.2.0.0"), 24, 1),
        (HOME_B, 32, 1),
        (address("10.3.0.0"), 24, 2),
        (HOME_C, 32, 2),
    ]
    routes = [(bytes(4), 0, 0, -1), (address("10.66.0.0"), 16, -1, -1)]
    routes.append((address("10.67.0.0"), 16, 9, -1))
    plane.swap(routes + [row + (-1,) for row in sources], sources)
    return rig


def changed(packet, *edits, mend=True):
    """Return the packet with (offset, value) written and its header checksum mended."""
    packet = bytearray(packet)
    for at, value in edits:
        packet[at] = value
    if mend:
        reseal(packet)
    return bytes(packet)


GOOD_OUT = inner("10.1.0.10", "10.2.0.10")
GOOD_IN_HA = inner("10.0.0.10", "10.1.0.10")
GOOD_IN_B = inner("10.2.0.10", "10.1.0.10")

# (packet from the LAN, the counter it bumps)
OUTBOUND = (
    (inner("10.1.1.10", "10.2.0.10"), "out_foreign_source"),
    (inner("10.0.255.255", "10.2.0.10"), "out_foreign_source"),
    (inner("10.2.0.10", "10.2.0.11"), "out_foreign_source"),
    (inner("0.0.0.0", "10.2.0.10"), "out_foreign_source"),
    (inner("255.255.255.255", "10.2.0.10"), "out_foreign_source"),
    (inner("127.0.0.1", "10.2.0.10"), "out_foreign_source"),
    (inner("198.51.100.10", "10.2.0.10"), "out_foreign_source"),
    (inner("192.0.2.1", "10.2.0.10"), "out_foreign_source"),
    (inner("192.0.2.128", "10.2.0.10"), "out_foreign_source"),
    (inner("192.0.2.130", "10.2.0.10"), "out_foreign_source"),
    (inner("203.0.113.10", "10.2.0.10"), "out_foreign_source"),
    (inner("10.1.0.10", "224.0.0.1"), "out_not_unicast"),
    (inner("10.1.0.10", "239.255.255.255"), "out_not_unicast"),
    (inner("10.1.0.10", "255.255.255.255"), "out_not_unicast"),
    (inner("10.1.0.10", "240.0.0.1"), "out_not_unicast"),
    (inner("10.1.0.10", "127.0.0.1"), "out_not_unicast"),
    (inner("10.1.0.10", "0.0.0.1"), "out_not_unicast"),
    (inner("10.1.0.10", "10.1.0.11"), "out_own_destination"),
    (inner("10.1.0.10", "10.1.0.255"), "out_own_destination"),
    (inner("10.1.0.10", "192.0.2.129"), "out_own_destination"),
    (inner("192.0.2.129", "192.0.2.129"), "out_own_destination"),
    (inner("10.1.0.10", "192.0.2.1"), "out_tunnel_end_destination"),
    (inner("10.1.0.10", "203.0.113.10"), "out_tunnel_end_destination"),
    (inner("10.1.0.10", "203.0.113.20"), "out_tunnel_end_destination"),
    (inner("10.1.0.10", "198.51.100.10"), "out_tunnel_end_destination"),
    (inner("192.0.2.129", "203.0.113.10"), "out_tunnel_end_destination"),
    (inner("10.1.0.10", "10.66.7.8"), "out_no_route"),
    (inner("10.1.0.10", "10.67.7.8"), "out_tunnel_down"),
    (inner("10.1.0.10", "10.2.0.10", ttl=0), "out_ttl_exceeded"),
    (inner("10.1.0.10", "10.2.0.10", 1469, df=True), "out_too_big"),
    (changed(GOOD_OUT, (0, 0x55)), "out_bad_header"),
    (changed(GOOD_OUT, (0, 0x65)), "out_bad_header"),
    (changed(GOOD_OUT, (0, 0x44)), "out_bad_header"),
    (changed(GOOD_OUT, (0, 0x40), mend=False), "out_bad_header"),
    (changed(GOOD_OUT, (0, 0x46), (3, 22)), "out_bad_header"),
    (changed(GOOD_OUT, (8, 63), mend=False), "out_bad_checksum"),
    (changed(GOOD_OUT, (19, 11), mend=False), "out_bad_checksum"),
    (changed(GOOD_OUT, (10, 0), (11, 0), mend=False), "out_bad_checksum"),
)

# (inner packet, outer source, outer source port, the counter it bumps)
INBOUND = (
    (GOOD_IN_HA, "192.0.2.2", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_HA, "192.0.2.129", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_HA, "192.0.2.130", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_HA, "198.51.100.10", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_HA, "1.2.0.192", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_HA, "192.0.2.1", 433, "in_home_agent_port"),
    (GOOD_IN_HA, "192.0.2.1", 4340, "in_home_agent_port"),
    (GOOD_IN_HA, "192.0.2.1", 0xB201, "in_home_agent_port"),
    (GOOD_IN_B, "203.0.113.10", 435, "in_unknown_tunnel_end"),
    (GOOD_IN_B, "203.0.113.20", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_B, "203.0.113.11", 434, "in_unknown_tunnel_end"),
    (GOOD_IN_B, "203.0.113.20", 4340, "in_unconfirmed_source"),
    (inner("10.3.0.10", "10.1.0.10"), "203.0.113.10", 434, "in_unconfirmed_source"),
    (inner("10.0.0.10", "10.1.0.10"), "203.0.113.10", 434, "in_unconfirmed_source"),
    (inner("10.2.1.10", "10.1.0.10"), "203.0.113.10", 434, "in_unconfirmed_source"),
    (inner("192.0.2.131", "10.1.0.10"), "203.0.113.10", 434, "in_unconfirmed_source"),
    (inner("8.8.8.8", "10.1.0.10"), "203.0.113.10", 434, "in_unconfirmed_source"),
    (inner("192.0.2.131", "192.0.2.129"), "203.0.113.10", 434, "in_unconfirmed_source"),
    (
        ipv4.build_udp(HOME_C, HOME, 434, 434, b"\x1a\0"),
        "203.0.113.10",
        434,
        "in_unconfirmed_source",
    ),
    (
        ipv4.build_icmp_echo(HOME_C, HOME, False, 1, 1),
        "203.0.113.10",
        434,
        "in_unconfirmed_source",
    ),
    (inner("10.1.0.11", "10.1.0.10"), "192.0.2.1", 434, "in_own_source"),
    (inner("192.0.2.129", "10.1.0.10"), "192.0.2.1", 434, "in_own_source"),
    (inner("10.1.0.11", "10.1.0.10"), "203.0.113.10", 434, "in_own_source"),
    (inner("192.0.2.129", "192.0.2.129"), "203.0.113.10", 434, "in_own_source"),
    (inner("203.0.113.10", "10.1.0.10"), "192.0.2.1", 434, "in_tunnel_end_source"),
    (inner("203.0.113.20", "10.1.0.10"), "192.0.2.1", 434, "in_tunnel_end_source"),
    (inner("198.51.100.10", "10.1.0.10"), "192.0.2.1", 434, "in_tunnel_end_source"),
    (inner("203.0.113.10", "10.1.0.10"), "203.0.113.10", 434, "in_tunnel_end_source"),
    (inner("192.0.2.1", "10.1.0.10"), "203.0.113.10", 434, "in_tunnel_end_source"),
    (inner("10.0.0.10", "10.2.0.10"), "192.0.2.1", 434, "in_foreign_destination"),
    (inner("10.0.0.10", "10.1.1.10"), "192.0.2.1", 434, "in_foreign_destination"),
    (inner("10.0.0.10", "192.0.2.130"), "192.0.2.1", 434, "in_foreign_destination"),
    (inner("10.0.0.10", "8.8.8.8"), "192.0.2.1", 434, "in_foreign_destination"),
    (inner("10.2.0.10", "10.3.0.10"), "203.0.113.10", 434, "in_foreign_destination"),
    (inner("10.2.0.10", "192.0.2.131"), "203.0.113.10", 434, "in_foreign_destination"),
    (inner("10.0.0.10", "203.0.113.10"), "192.0.2.1", 434, "in_tunnel_end_destination"),
    (inner("10.0.0.10", "198.51.100.10"), "192.0.2.1", 434, "in_tunnel_end_destination"),
    (inner("10.0.0.10", "192.0.2.1"), "192.0.2.1", 434, "in_tunnel_end_destination"),
    (inner("10.2.0.10", "192.0.2.1"), "203.0.113.10", 434, "in_tunnel_end_destination"),
    (inner("224.0.0.1", "10.1.0.10"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("255.255.255.255", "10.1.0.10"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("127.0.0.1", "10.1.0.10"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("0.0.0.0", "10.1.0.10"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("10.0.0.10", "224.0.0.5"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("10.0.0.10", "255.255.255.255"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("10.0.0.10", "127.0.0.1"), "192.0.2.1", 434, "in_not_unicast"),
    (inner("10.0.0.10", "10.1.0.10", ttl=0), "192.0.2.1", 434, "in_ttl_exceeded"),
    (inner("10.0.0.10", "10.1.0.10", ttl=1), "192.0.2.1", 434, "in_ttl_exceeded"),
    (changed(GOOD_IN_HA, (0, 0x44)), "192.0.2.1", 434, "in_bad_header"),
    (changed(GOOD_IN_HA, (0, 0x65)), "192.0.2.1", 434, "in_bad_header"),
    (changed(GOOD_IN_HA, (0, 0x4F), (3, 59)), "192.0.2.1", 434, "in_bad_header"),
    (changed(GOOD_IN_HA, (15, 11), mend=False), "192.0.2.1", 434, "in_bad_checksum"),
    (changed(GOOD_IN_B, (8, 1), mend=False), "203.0.113.10", 434, "in_bad_checksum"),
)


def test_what_is_right_is_forwarded():
    """The mirror of the refusals: the packets they are made from pass."""
    rig = made()
    rig.from_lan(GOOD_OUT)
    rig.from_tunnel(GOOD_IN_HA)
    rig.from_tunnel(GOOD_IN_B, PEER_B)
    rig.from_tunnel(inner("10.3.0.10", "10.1.0.10"), PEER_C, 4340)
    rig.from_tunnel(inner("192.0.2.1", "10.1.0.10"))
    rig.turn()
    assert len(rig.to_tunnels()) == 1
    assert len(rig.to_lan()) == 4


def test_what_is_wrong_outbound_is_dropped_under_its_name():
    """RFC 5177 10, RFC 2003 3.2: sources not ours, recursive destinations, broken headers."""
    rig = made()
    for i, (packet, name) in enumerate(OUTBOUND):
        before = rig.plane.counters()
        rig.from_lan(packet)
        rig.turn()
        assert rig.to_tunnels() == [], (i, name)
        assert rig.changed(before) == {name: 1}, (i, name, rig.changed(before))
    assert not rig.plane.attention


def test_what_is_wrong_inbound_is_dropped_under_its_name():
    """RFC 3519 4.3, RFC 6521 6.1: outer ends exact, inner source confirmed, destination ours."""
    rig = made()
    for i, (packet, source, port, name) in enumerate(INBOUND):
        before = rig.plane.counters()
        received = rig.plane.user_rx(0), rig.plane.user_rx(1), rig.plane.user_rx(2)
        rig.from_tunnel(packet, address(source), port)
        rig.turn()
        assert rig.to_lan() == [], (i, name)
        assert rig.changed(before) == {name: 1}, (i, name, rig.changed(before))
        now = rig.plane.user_rx(0), rig.plane.user_rx(1), rig.plane.user_rx(2)
        assert now == received, (i, name)
    assert not rig.plane.attention
    assert len(OUTBOUND) + len(INBOUND) >= 60


def test_a_datagram_of_another_uplink_is_of_no_tunnel():
    rig = made()
    plane = rig.plane
    before = plane.counters()
    plane._batch[:96] = outer(GOOD_IN_B, PEER_B)
    plane._in(0, 1, 1)
    assert rig.changed(before) == {"in_unknown_tunnel_end": 1}
    plane._batch[:96] = outer(GOOD_IN_B, PEER_B)
    plane._in(0, 1, 0)
    assert rig.changed(before) == {"in_unknown_tunnel_end": 1, "in_forwarded": 1}
