"""Tunnels of the home agent that are in no UDP: what is granted, what passes and what does not."""

import pytest

from haaro.wire import encapsulation, extensions, ipv4, registration
from haaro.wire.ipv4 import address
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent.core import RAW_PORT, Transmit
from tests.host.home_agent_helpers import COA_A, COA_B, HA, HOA_A, HOA_B, World

HOST_A, HOST_B = address("10.1.0.10"), address("10.2.0.10")
D, T = registration.FLAG_D, registration.FLAG_T
FLAGS = {"ipip": D | T, "gre": D | T | registration.FLAG_G, "minimal": D | T | registration.FLAG_M}
PROTOCOL = {"ipip": 4, "gre": 47, "minimal": 55}
WRAP = {
    "ipip": encapsulation.encapsulate_ipip,
    "gre": encapsulation.encapsulate_gre,
    "minimal": encapsulation.encapsulate_minimal,
}
every_kind = pytest.mark.parametrize("kind", FLAGS)


def udp(src, dst, ttl=64, octets=4, tos=0, flags=0):
    packet = bytearray(ipv4.build_udp(src, dst, 1000, 2000, bytes(range(octets)), ttl))
    packet[1], packet[6] = tos, flags
    packet[10:12] = bytes(2)
    packet[10:12] = ipv4.checksum(packet, 0, 20).to_bytes(2, "big")
    return bytes(packet)


def tunnelled(kind, **config):
    """Return a home agent with A in this encapsulation, UDP on offer, and B in UDP."""
    world = World(lambda d: d["home_agent"].update(config))
    reply = world.register(networks=["10.1.0.0/24"], flags=FLAGS[kind], udp=(False, 4, False))
    assert reply.code == 0
    assert reply.find(extensions.UdpTunnelReply).code == 64
    world.register(hoa=HOA_B, coa=COA_B, networks=["10.2.0.0/24"])
    world.ha.counters.clear()
    return world


def arrives(world, packet):
    """What the home agent sends when this outer packet arrives."""
    world.ha.receive_encapsulated(world.now, packet)
    return world.drain()


@every_kind
def test_what_the_flags_ask_for_is_granted_and_carries_packets_both_ways(kind):
    """RFC 5944 3.3, RFC 3519 4.6: UDP was offered, not forced, and there is no NAT."""
    world = tunnelled(kind)
    assert world.ha.bindings[HOA_A].encapsulation == kind
    whole = WRAP[kind](HA, COA_A, udp(HOST_B, HOST_A, ttl=63))
    assert whole[9] == PROTOCOL[kind]
    assert world.tunnel(udp(HOST_B, HOST_A), COA_B) == [Transmit(COA_A, RAW_PORT, whole)]
    sent = arrives(world, WRAP[kind](COA_A, HA, udp(HOST_A, HOST_B)))
    assert sent == [Transmit(COA_B, 434, TUNNEL_HEADER + udp(HOST_A, HOST_B, ttl=63))]


@every_kind
def test_an_encapsulation_that_is_not_allowed_is_refused_with_139(kind):
    """RFC 5944 3.8.3.1: the code that a router can do something about."""
    allowed = [name for name in ("udp", *FLAGS) if name != kind]
    world = World(lambda d: d["home_agent"].update(encapsulations=allowed))
    for offer in (None, (False, 4, False)):
        assert world.register(flags=FLAGS[kind], udp=offer).code == 139
        world.advance(1)
    assert world.ha.bindings == {}
    assert world.register().code == 0


def test_two_encapsulations_at_once_are_refused():
    flags = FLAGS["gre"] | FLAGS["minimal"]
    assert World().register(flags=flags, udp=None).code == 139


def test_udp_that_is_not_allowed_is_prohibited_behind_a_nat_too():
    """RFC 3519 4.6: code 129 for NAT traversal and for forced UDP that are switched off."""
    world = World(lambda d: d["home_agent"].update(encapsulations=["ipip"]))
    assert world.register().code == 129
    world.advance(1)
    nat = address("203.0.113.99")
    assert world.register(udp=(False, 4, False), src=nat, sport=61000).code == 129
    world.advance(1)
    assert world.register(udp=(False, 4, False)).code == 0


@every_kind
def test_behind_a_nat_it_is_udp_where_udp_was_offered_and_nothing_where_not(kind):
    """RFC 3519 4.6.1."""
    world = World()
    nat = address("203.0.113.99")
    assert world.register(flags=FLAGS[kind], udp=None, src=nat).code == 129
    world.advance(1)
    reply = world.register(flags=FLAGS[kind], udp=(False, 4, False), src=nat, sport=61000)
    assert reply.code == 0 and reply.find(extensions.UdpTunnelReply).will_tunnel
    assert world.ha.bindings[HOA_A].encapsulation == "udp"


@every_kind
def test_only_the_agreed_encapsulation_from_the_agreed_end_is_taken(kind):
    """Threats D2: no other address, no other protocol, and none from a router that has UDP."""
    world = tunnelled(kind)
    packet = udp(HOST_A, HOST_B)
    assert arrives(world, WRAP[kind](COA_B, HA, udp(HOST_B, HOST_A))) == []
    assert arrives(world, WRAP[kind](address("203.0.113.200"), HA, packet)) == []
    refused = 2
    for other, wrap in WRAP.items():
        # What minimal encapsulation cannot carry comes as IP in IP.
        if other != kind and (kind, other) != ("minimal", "ipip"):
            assert arrives(world, wrap(COA_A, HA, packet)) == []
            refused += 1
    assert world.ha.counters == {"unknown_tunnel_end": refused}
    assert world.tunnel(packet, COA_A) == []
    assert arrives(world, WRAP[kind](COA_A, HA, udp(HOST_B, HOST_A))) == []
    assert world.ha.counters["inner_source"] == 1


@every_kind
def test_a_packet_that_does_not_fit_is_cut_to_the_mtu_of_the_tunnel_or_reported(kind):
    """RFC 2003 5.1, RFC 2004 3: the pieces leave in an encapsulation that takes them."""
    world = tunnelled(kind)
    sent = world.tunnel(long_packet(), COA_B)
    assert len(sent) == 2
    data = b""
    for transmit in sent:
        assert transmit.dport == RAW_PORT and len(transmit.payload) <= 1500
        assert transmit.payload[9] == (4 if kind == "minimal" else PROTOCOL[kind])
        data += encapsulation.decapsulate(transmit.payload)[20:]
    assert data == long_packet()[20:]
    (report,) = world.tunnel(long_packet(flags=0x40), COA_B)
    inner = report.payload[4:]
    mtu = 1500 - {"ipip": 20, "gre": 24, "minimal": 20}[kind]
    assert inner[20:22] == b"\x03\x04" and int.from_bytes(inner[26:28], "big") == mtu


def long_packet(flags=0):
    packet = bytearray(ipv4.build_udp(HOST_B, HOST_A, 1000, 2000, bytes(1472)))
    packet[6] = flags
    packet[10:12] = bytes(2)
    packet[10:12] = ipv4.checksum(packet, 0, 20).to_bytes(2, "big")
    return bytes(packet)


def marked(packet, tos):
    packet = bytearray(packet)
    packet[1] = tos
    packet[10:12] = bytes(2)
    packet[10:12] = ipv4.checksum(packet, 0, 20).to_bytes(2, "big")
    return bytes(packet)


@every_kind
@pytest.mark.parametrize("inside", range(4))
@pytest.mark.parametrize("outside", range(4))
def test_marks_go_out_and_congestion_comes_in(kind, inside, outside):
    """RFC 6040 4.1 and the table of 4.2; in minimal encapsulation there is one field only."""
    world = tunnelled(kind)
    (out,) = world.tunnel(udp(HOST_B, HOST_A, tos=0x28 | inside), COA_B)
    assert out.payload[1] == 0x28 | inside
    packet = udp(HOST_A, HOST_B, tos=0x28 | inside)
    sent = arrives(world, marked(WRAP[kind](COA_A, HA, packet), 0x40 | outside))
    if kind == "minimal":
        assert sent[0].payload[5] == 0x40 | outside
        return
    if outside == 3:
        expected = 3 if inside else None
    elif outside == 1:
        expected = 1 if inside == 2 else inside
    else:
        expected = inside
    if expected is None:
        assert sent == [] and world.ha.counters == {"congestion_unmarked": 1}
        return
    (only,) = sent
    inner = only.payload[4:]
    assert inner[1] == 0x28 | expected and ipv4.checksum(inner, 0, 20) == 0


def test_the_keepalive_is_answered_in_the_same_encapsulation():
    """RFC 3519 4.9, for a tunnel in no UDP."""
    for kind in FLAGS:
        world = tunnelled(kind)
        echo = ipv4.build_icmp_echo(HOA_A, HA, False, 1, 2, b"token")
        (answer,) = arrives(world, WRAP[kind](COA_A, HA, echo))
        assert (answer.dst, answer.dport) == (COA_A, RAW_PORT)
        assert answer.payload[9] == PROTOCOL[kind] and answer.payload[1] == 0xC0
        inner = encapsulation.decapsulate(answer.payload)
        assert ipv4.parse_icmp_echo(inner, ipv4.parse_ipv4(inner)) == (True, 1, 2, b"token")


def test_what_is_no_such_packet_is_counted_by_its_fault():
    world = tunnelled("gre")
    good = encapsulation.encapsulate_gre(COA_A, HA, udp(HOST_A, HOST_B), with_checksum=True)
    assert len(arrives(world, good)) == 1
    for at, value, reason in (
        (20, 0xA0, "gre_version"),  # a key, as RFC 1701 had it
        (21, 0x01, "gre_version"),
        (22, 0x86, "gre_protocol"),
        (40, 0xFF, "gre_checksum"),
    ):
        bad = bytearray(good)
        bad[at] = value
        assert arrives(world, bytes(bad)) == []
        assert world.ha.counters.pop(reason) == 1
        # A stranger's is not even looked into.
        bad[12:16] = COA_B
        assert arrives(world, bytes(bad)) == []
        assert world.ha.counters.pop("unknown_tunnel_end") == 1
