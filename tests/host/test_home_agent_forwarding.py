"""Inner packets through the home agent: who may send what where, keepalive, TTL, size."""

import random

import pytest

from haaro.wire import ipv4
from haaro.wire.encapsulation import encapsulate_ipip
from haaro.wire.ipv4 import address
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent.core import RAW_PORT, Transmit
from haaro_host.home_agent.fragments import fragment
from tests.host.home_agent_helpers import (
    COA_A,
    COA_B,
    COA_C,
    HA,
    HOA_A,
    HOA_B,
    HOA_C,
    World,
)

HOST_A, HOST_A1, HOST_B, HOST_C = (
    address(text) for text in ("10.1.0.10", "10.1.1.10", "10.2.0.10", "10.3.0.10")
)
HOME, INTERNET = address("10.0.0.10"), address("203.0.113.200")
CODE_HOST, CODE_PROHIBITED = 1, 13
CS6 = 0xC0


@pytest.fixture
def world():
    """Three registered routers: A with 10.1.0.0/24, B with 10.2.0.0/24, C with 10.3.0.0/24."""
    world = World()
    world.register_all()
    world.ha.counters.clear()
    return world


def udp(src, dst, sport=1000, dport=2000, payload=b"data", ttl=64):
    """Return an inner UDP packet."""
    return ipv4.build_udp(src, dst, sport, dport, payload, ttl)


def dropped(world, sent, counter):
    """Nothing was forwarded, and `counter` says why; an ICMP error may go back to the sender."""
    assert world.outside() == []
    assert world.ha.counters[counter] == 1, world.ha.counters
    for transmit in sent:
        ip = ipv4.parse_ipv4(transmit.payload[4:])
        assert ip.protocol == ipv4.PROTOCOL_ICMP and ip.src == HA


def icmp_error(transmit):
    """Return (destination, type, code, second word) of the tunnelled ICMP error."""
    assert transmit.payload[:4] == TUNNEL_HEADER
    packet = transmit.payload[4:]
    ip = ipv4.parse_ipv4(packet)
    assert ip.protocol == ipv4.PROTOCOL_ICMP and ipv4.checksum(packet, 20, len(packet) - 20) == 0
    return ip.dst, packet[20], packet[21], int.from_bytes(packet[24:28], "big")


# --- between tunnels ------------------------------------------------------------------------------


@pytest.mark.parametrize("src", [HOST_A, HOA_A])
@pytest.mark.parametrize(("dst", "end"), [(HOST_B, COA_B), (HOA_B, COA_B), (HOST_C, COA_C)])
def test_packets_pass_between_tunnels_with_one_less_ttl(world, src, dst, end):
    """RFC 5177 6.5, 7: from the router's networks or home address to another's tunnel."""
    sent = world.tunnel(udp(src, dst))
    expected = TUNNEL_HEADER + udp(src, dst, ttl=63)
    assert sent == [Transmit(end, 434, expected)]
    assert world.ha.bindings[HOA_A].rx_packets == 1


@pytest.mark.parametrize(
    "src", [HOST_B, HOA_B, HOST_A1, COA_A, HA, HOME, INTERNET, bytes(4), b"\xe0\0\0\1"]
)
def test_a_source_that_is_not_the_senders_is_dropped(world, src):
    """RFC 5177 10: MUST be topologically correct; 10.1.1.0/24 is configured but not registered."""
    sent = world.tunnel(udp(src, HOST_C))
    dropped(world, sent, "inner_source")
    assert sent == []


@pytest.mark.parametrize(
    ("src", "sport"), [(COA_B, 435), (COA_C, 61000), (INTERNET, 434), (COA_A, 433)]
)
def test_an_outer_end_that_is_not_exact_is_dropped(world, src, sport):
    """RFC 3519 4.3: outer address and port MUST match exactly; RFC 5177 10."""
    assert world.tunnel(udp(HOST_A, HOST_B), src, sport) == []
    assert world.ha.counters == {"unknown_tunnel_end": 1}


@pytest.mark.parametrize(
    ("source", "sport"), [(INTERNET, 434), (COA_A, 61000)], ids=["address", "port"]
)
def test_the_end_before_a_move_is_received_from_for_ten_seconds(world, source, sport):
    """What was on its way when the router moved, or its NAT did, is not lost; nothing goes back."""
    packet, answer = udp(HOST_A, HOST_B), udp(HOST_B, HOST_A)
    world.advance(1)
    assert world.register(src=source, sport=sport, networks=["10.1.0.0/24"]).code == 0
    for end in ((COA_A, 434), (source, sport)):
        assert len(world.tunnel(packet, *end)) == 1
    assert world.tunnel(udp(HOST_C, HOST_B)) == []  # another's inner source is still refused
    assert [t[:2] for t in world.tunnel(answer, COA_B)] == [(source, sport)]
    assert world.ha.bindings[HOA_A].rx_packets == 2
    world.advance(9)
    # A renewal changes nothing, and does not prolong it.
    assert world.register(src=source, sport=sport, networks=["10.1.0.0/24"]).code == 0
    assert len(world.tunnel(packet)) == 1
    assert world.ha.next_deadline() == world.now + 1000
    world.advance(1)
    world.ha.counters.clear()
    assert world.tunnel(packet) == [] and world.ha.counters == {"unknown_tunnel_end": 1}
    assert len(world.tunnel(packet, source, sport)) == 1


def test_an_end_left_behind_belongs_to_who_has_it_now(world):
    """A NAT gives A's old port to B: by inner source while both may use it, then B's alone."""
    world.advance(1)
    world.register(src=INTERNET, networks=["10.1.0.0/24"])
    world.advance(1)
    world.register(hoa=HOA_B, coa=COA_B, src=COA_A, networks=["10.2.0.0/24"])
    assert [t.dst for t in world.tunnel(udp(HOST_B, HOST_C))] == [COA_C]
    assert [t.dst for t in world.tunnel(udp(HOST_A, HOST_C))] == [COA_C]
    assert [t.dst for t in world.tunnel(udp(HOST_C, HOST_B), COA_C)] == [COA_A]
    world.advance(10)
    assert world.tunnel(udp(HOST_A, HOST_C)) == []
    assert len(world.tunnel(udp(HOST_B, HOST_C))) == 1
    # A deregistered router leaves no end behind either.
    world.advance(1)
    world.register(networks=["10.1.0.0/24"], src=COA_A, sport=900)
    world.advance(1)
    world.register(lifetime=0, src=COA_A, sport=900)
    world.ha.counters.clear()
    world.tunnel(udp(HOST_A, HOST_C), INTERNET)
    assert world.ha.counters == {"unknown_tunnel_end": 1}


def test_the_end_before_a_move_may_be_one_without_udp(world):
    """RFC 2003 before, RFC 3519 after: the router moved behind a NAT."""
    world.advance(1)
    assert world.register(networks=["10.1.0.0/24"], udp=None).code == 0
    assert world.ha.bindings[HOA_A].encapsulation == "ipip"
    world.advance(1)
    assert world.register(networks=["10.1.0.0/24"], src=INTERNET, sport=61000).code == 0
    world.ha.receive_encapsulated(world.now, encapsulate_ipip(COA_A, HA, udp(HOST_A, HOST_B)))
    assert [t.dst for t in world.drain()] == [COA_B]
    world.advance(10)
    world.ha.receive_encapsulated(world.now, encapsulate_ipip(COA_A, HA, udp(HOST_A, HOST_B)))
    assert world.drain() == []


def test_another_routers_tunnel_does_not_carry_this_source(world):
    """RFC 5177 10: the inner source must belong to the binding of that outer source."""
    dropped(world, world.tunnel(udp(HOST_A, HOST_C), COA_B), "inner_source")


@pytest.mark.parametrize("header", [b"\x04\x2f\0\0", b"\x04\x37\0\0", b"\x04\x00\0\0"])
def test_another_next_header_is_dropped(world, header):
    """RFC 3519 3.3: MUST match the mode of the binding."""
    assert world.send(header + udp(HOST_A, HOST_B)) == []
    assert world.ha.counters == {"next_header": 1}


def test_reserved_of_the_tunnel_header_is_ignored(world):
    """RFC 3519 3.3: MUST be ignored on reception."""
    assert len(world.send(b"\x04\x04\xff\xff" + udp(HOST_A, HOST_B))) == 1


def test_the_inner_length_must_agree_with_the_datagram(world):
    """Issue: checks the inner length; a longer or shorter datagram is malformed."""
    for packet in (udp(HOST_A, HOST_B) + b"x", udp(HOST_A, HOST_B)[:-1]):
        world.ha.counters.clear()
        dropped(world, world.tunnel(packet), "inner_length")
    for packet in (b"", b"E", b"\x60" + bytes(39), b"\x4f" + bytes(30), b"\x44" + bytes(30)):
        world.ha.counters.clear()
        dropped(world, world.tunnel(packet), "inner_malformed")


def test_version_and_shortest_header_are_checked(world):
    """RFC 791 3.1: version 4 only; a header without payload is a packet."""
    good = bytearray(20)
    ipv4.build_ipv4_into(good, 0, 253, HOST_A, HOST_B, 0)
    assert len(world.tunnel(bytes(good))) == 1
    for version in (0x55, 0x65, 0x05, 0x35, 0x44, 0x46, 0x4F):
        world.ha.counters.clear()
        dropped(world, world.tunnel(bytes([version]) + bytes(good[1:])), "inner_malformed")


def test_from_outside_only_mobile_destinations_are_taken(world):
    """RFC 5177 6.5: what is for nobody here is not forwarded, gateway or not."""
    assert world.from_outside(udp(HOME, INTERNET)) == []
    assert world.ha.counters == {"not_mobile": 1}
    open_world = World(
        lambda d: (
            d["home_agent"].update(forward_outside=True),
            d["router"][2].update(prefixes=["0.0.0.0/0"]),
        )
    )
    open_world.register_all()
    assert open_world.from_outside(udp(INTERNET, address("8.8.8.8"))) == []
    assert open_world.ha.counters["not_mobile"] == 1


def test_random_octets_through_a_tunnel_raise_nothing_and_reach_nobody(world):
    """Issue, Bad input: malformed datagrams raise nothing and bump a counter."""
    rng = random.Random(5944)
    for _ in range(2000):
        before = world.ha.counters.total()
        data = TUNNEL_HEADER + rng.randbytes(rng.randrange(60))
        assert world.send(data) == [] and world.outside() == []
        assert world.ha.counters.total() == before + 1


def test_ttl_ends_with_time_exceeded(world):
    """RFC 2003 3.1, RFC 792: no packet with TTL 1 is forwarded."""
    sent = world.tunnel(udp(HOST_A, HOST_B, ttl=1))
    dropped(world, sent, "ttl_expired")
    assert [icmp_error(t) for t in sent] == [(HOST_A, ipv4.TIME_EXCEEDED, 0, 0)]


def test_the_packet_never_goes_back_into_its_own_tunnel(world):
    """RFC 2003 3.2: loop protection."""
    for dst in (address("10.1.0.77"), HOA_A):
        world.ha.counters.clear()
        sent = world.tunnel(udp(HOST_A, dst))
        dropped(world, sent, "hairpin")
        assert sent == []


@pytest.mark.parametrize("forward_outside", [False, True])
def test_a_packet_to_a_tunnel_end_is_dropped(forward_outside):
    """RFC 2003 3.2, threats D3: the inner destination is the outer end of a tunnel."""
    world = World(lambda d: d["home_agent"].update(forward_outside=forward_outside))
    world.register_all()
    for dst in (COA_A, COA_B):
        world.ha.counters.clear()
        dropped(world, world.tunnel(udp(HOST_A, dst)), "tunnel_end")


@pytest.mark.parametrize("dst", [b"\xe0\0\0\5", b"\xff\xff\xff\xff", b"\x7f\0\0\1", bytes(4)])
def test_only_unicast_is_forwarded(world, dst):
    """RFC 5944 4.3, 4.4: broadcast and multicast are not supported."""
    dropped(world, world.tunnel(udp(HOST_A, dst)), "inner_destination")


def test_a_configured_network_that_is_not_registered_does_not_leak(world):
    """RFC 5177 6.7: forwarding stops; the sender hears host unreachable."""
    world.now += 1000
    world.register(hoa=HOA_B, coa=COA_B, lifetime=0)
    for dst in (HOST_B, HOA_B, address("192.0.2.222")):
        world.ha.counters.clear()
        sent = world.tunnel(udp(HOST_A, dst))
        dropped(world, sent, "no_binding")
        assert [icmp_error(t) for t in sent] == [(HOST_A, ipv4.UNREACHABLE, CODE_HOST, 0)]


def test_after_a_handover_only_the_new_end_counts(world):
    """RFC 5944 3.8.2.2, RFC 3519 4.3."""
    world.now += 1000
    world.register(coa=address("198.51.100.99"), networks=["10.1.0.0/24"])
    sent = world.tunnel(udp(HOST_B, HOST_A), COA_B)
    assert [t.dst for t in sent] == [address("198.51.100.99")]
    world.advance(10)
    assert world.tunnel(udp(HOST_A, HOST_B)) == []
    assert world.ha.counters["unknown_tunnel_end"] == 1


# --- keepalive ------------------------------------------------------------------------------------


def test_an_echo_to_the_home_agent_is_answered_in_the_tunnel(world):
    """RFC 3519 4.9, R6.1-i1: the keepalive."""
    sent = world.tunnel(ipv4.build_icmp_echo(HOA_A, HA, False, 7, 9, b"keep"))
    expected = TUNNEL_HEADER + ipv4.build_icmp_echo(HA, HOA_A, True, 7, 9, b"keep", CS6)
    assert sent == [Transmit(COA_A, 434, expected, True)] and sent[0].urgent
    assert world.ha.counters == {"echo_answered": 1}


def test_own_messages_are_marked_and_sent_ahead_and_users_packets_are_not(world):
    """F15 of the threats: keepalives, replies and what routers say to each other by us."""
    ping = ipv4.build_icmp_echo(HOST_A, HA, False, 7, 9, b"", 0x28)
    expected = TUNNEL_HEADER + ipv4.build_icmp_echo(HA, HOST_A, True, 7, 9, b"", 0x28)
    assert world.tunnel(ping) == [Transmit(COA_A, 434, expected)]
    world.now += 1000
    (reply,) = world.send(world.request(networks=["10.1.0.0/24"]))
    (hoti,) = world.tunnel(udp(HOA_A, HOA_B, 434, 434, b"\x18" + bytes(9)))
    (other,) = world.tunnel(udp(HOA_A, HOA_B, 22, 22))
    (user,) = world.tunnel(udp(HOST_A, HOST_B, 434, 434))
    urgent = [transmit.urgent for transmit in (reply, hoti, other, user)]
    assert urgent == [True, True, False, False]


def test_a_keepalive_from_elsewhere_changes_nothing(world):
    """Threats R8, RFC 3519 6.1.2: another source or port is never learnt."""
    echo = ipv4.build_icmp_echo(HOA_A, HA, False, 7, 9)
    for src, sport in ((COA_A, 61000), (INTERNET, 434)):
        assert world.tunnel(echo, src, sport) == []
    assert world.ha.bindings[HOA_A].source == COA_A
    assert world.ha.bindings[HOA_A].source_port == 434


def test_nothing_but_an_echo_is_taken_at_the_home_agents_own_address(world):
    """RFC 3519 4.7: signalling is never tunnelled."""
    for packet, counter in (
        (udp(HOA_A, HA, 434, 434, bytes(world.request())), "local_not_echo"),
        (ipv4.build_icmp_error(HOA_A, 3, 1, 0, udp(HA, HOA_A)), "local_not_echo"),
        (ipv4.build_icmp_echo(HOA_A, HA, False, 7, 9)[:-2], "inner_length"),
        (ipv4.build_icmp_echo(HOA_A, HA, False, 7, 9)[:-2] + b"zz", "local_icmp_checksum"),
    ):
        world.ha.counters.clear()
        dropped(world, world.tunnel(packet), counter)


# --- outside and home network ---------------------------------------------------------------------


def test_the_home_network_is_always_reached_both_ways(world):
    """Issue: forwards between tunnels and its own home network; the kernel takes the TTL."""
    packet = udp(HOST_A, HOME)
    assert world.tunnel(packet) == []
    assert world.outside() == [packet]
    back = udp(HOME, HOST_A)
    assert world.from_outside(back) == [Transmit(COA_A, 434, TUNNEL_HEADER + back)]


@pytest.mark.parametrize(("sport", "dport"), [(434, 434), (434, 50123), (50123, 434)])
def test_signalling_of_home_addresses_passes_to_the_outside(world, sport, dport):
    """Issue: CoT and replies out; without it return routability cannot finish (R3.2-i3)."""
    for dst in (INTERNET, COA_C):
        packet = udp(HOA_A, dst, sport, dport, b"\x1b" + bytes(19))
        assert world.tunnel(packet) == []
        assert world.outside() == [packet]


@pytest.mark.parametrize(("sport", "dport"), [(434, 434), (50123, 434), (434, 50123)])
def test_signalling_from_the_outside_reaches_home_addresses(world, sport, dport):
    """Issue: CoTI and Requests in, from any care-of address (R3.2-i2, R3.3.3-3)."""
    packet = udp(COA_B, HOA_A, sport, dport, b"\x19" + bytes(9))
    assert world.from_outside(packet) == [Transmit(COA_A, 434, TUNNEL_HEADER + packet, True)]


@pytest.mark.parametrize("octets", [b"\x20\0", b"\0\1", b"\1\0", b"\x1f\xff"])
def test_a_fragment_is_not_signalling(world, octets):
    """Issue: ports are seen in whole packets only, so nothing slips through as a later fragment."""
    packet = bytearray(udp(HOA_A, INTERNET, 434, 434, b"\x1b" + bytes(19)))
    packet[6:8] = octets
    dropped(world, world.tunnel(bytes(packet)), "outside_not_allowed")
    packet = bytearray(udp(INTERNET, HOA_A, 434, 434, b"\x19" + bytes(9)))
    packet[6:8] = octets
    assert world.from_outside(bytes(packet)) == []


def test_a_udp_packet_without_whole_ports_is_not_signalling(world):
    """Issue, Bad input: too short for a UDP header."""
    whole = udp(HOA_A, INTERNET, 434, 434)
    assert world.tunnel(udp(HOA_A, INTERNET, 434, 434, b"")) == []
    assert len(world.outside()) == 1
    for size in range(20, 28):
        world.ha.counters.clear()
        packet = bytearray(whole[:size])
        ipv4.build_ipv4_into(packet, 0, 17, HOA_A, INTERNET, size - 20)
        dropped(world, world.tunnel(bytes(packet)), "outside_not_allowed")


def test_a_tunnel_in_the_signalling_hole_is_dropped(world):
    """Threats D3: tunnel data inside a tunnel would carry anything past the rules."""
    nested = TUNNEL_HEADER + udp(HOST_A, HOST_B)
    dropped(world, world.tunnel(udp(HOA_A, COA_C, 434, 434, nested)), "nested_tunnel")
    world.ha.counters.clear()
    dropped(world, world.from_outside(udp(COA_B, HOA_A, 434, 434, nested)), "nested_tunnel")


@pytest.mark.parametrize(
    "packet",
    [
        udp(HOA_A, INTERNET),
        udp(HOST_A, INTERNET, 434, 434),
        ipv4.build_icmp_echo(HOA_A, INTERNET, False, 1, 1),
        udp(HOA_A, INTERNET, 434, 434)[:6] + b"\x20\0" + udp(HOA_A, INTERNET, 434, 434)[8:],
    ],
)
def test_other_traffic_does_not_go_outside_by_default(world, packet):
    """Issue: other traffic with the outside only if configured."""
    dropped(world, world.tunnel(packet), "outside_not_allowed")
    open_world = World(lambda d: d["home_agent"].update(forward_outside=True))
    open_world.register_all()
    assert open_world.tunnel(packet) == []
    assert open_world.outside() == [packet]


@pytest.mark.parametrize(
    "packet",
    [
        udp(INTERNET, HOA_A),
        udp(INTERNET, HOST_A),
        udp(INTERNET, HOST_A, 434, 434),
        ipv4.build_icmp_echo(INTERNET, HOA_A, False, 1, 1),
    ],
)
def test_other_traffic_does_not_come_in_by_default(world, packet):
    """Issue: other traffic with the outside only if configured."""
    assert world.from_outside(packet) == []
    assert world.ha.counters["outside_not_allowed"] == 1
    open_world = World(lambda d: d["home_agent"].update(forward_outside=True))
    open_world.register_all()
    assert [t.dst for t in open_world.from_outside(packet)] == [COA_A]


@pytest.mark.parametrize("src", [HOST_B, HOA_B, HOST_A, HOA_A, HOST_A1])
def test_mobile_sources_do_not_come_from_outside(world, src):
    """Threats D2: only the owner's tunnel may carry a mobile source."""
    dropped(world, world.from_outside(udp(src, HOA_A, 434, 434)), "outside_source")


def test_the_home_agents_own_packets_reach_the_routers(world):
    """The operator's ping from the home agent itself, there and back."""
    echo = ipv4.build_icmp_echo(HA, HOA_A, False, 1, 1)
    assert [t.dst for t in world.from_outside(echo)] == [COA_A]
    reply = ipv4.build_icmp_echo(HOA_A, HA, True, 1, 1)
    assert world.tunnel(reply) == []
    assert world.outside() == [reply]


def test_a_gateway_router_takes_what_is_for_nobody_else():
    """R3.1.1-i4, R3.3.2-i1: 0.0.0.0/0 by longest match, never for signalling or home."""
    world = World(lambda d: d["router"][2].update(prefixes=["0.0.0.0/0"]))
    world.register_all()
    assert [t.dst for t in world.tunnel(udp(HOST_A, INTERNET))] == [COA_C]
    assert [t.dst for t in world.tunnel(udp(HOST_A, HOST_B))] == [COA_B]
    assert world.tunnel(udp(HOST_A, HOME)) == [] and len(world.outside()) == 1
    assert world.tunnel(udp(HOA_A, COA_B, 434, 434)) == [] and len(world.outside()) == 1
    assert [t.dst for t in world.tunnel(udp(INTERNET, HOST_A), COA_C)] == [COA_A]
    assert world.tunnel(udp(COA_B, HOST_A), COA_C) != []
    world.ha.counters.clear()
    dropped(world, world.tunnel(udp(HOA_C, INTERNET), COA_C), "outside_not_allowed")


@pytest.mark.parametrize(
    "src", [HOST_B, HOA_B, HOME, HA, address("192.0.2.200"), b"\xe0\0\0\1", b"\x7f\0\0\1"]
)
def test_a_gateway_router_may_not_use_what_is_somebodys(src):
    """RFC 5177 10: 0.0.0.0/0 is no licence to send as another router or as home."""
    world = World(lambda d: d["router"][2].update(prefixes=["0.0.0.0/0"]))
    world.register_all()
    dropped(world, world.tunnel(udp(src, HOST_A), COA_C), "inner_source")


def test_nobody_can_push_another_router_out_of_its_tunnel_end(world):
    """RFC 5177 10, threats R8: B registers from A's address and port, A's packets still count."""
    world.now += 1000
    world.register(hoa=HOA_B, coa=COA_B, src=COA_A, networks=["10.2.0.0/24"])
    assert [t.dst for t in world.tunnel(udp(HOST_A, HOST_C))] == [COA_C]
    assert [t.dst for t in world.tunnel(udp(HOST_B, HOST_C))] == [COA_C]
    assert world.ha.is_shared_end(COA_A, 434)
    assert not world.ha.is_shared_end(COA_C, 434) and not world.ha.is_shared_end(COA_B, 434)
    for size in range(24):
        assert world.send((TUNNEL_HEADER + udp(HOST_A, HOST_C))[:size]) == []
    dropped(world, world.tunnel(udp(HOST_C, HOST_C)), "inner_source")
    echo = ipv4.build_icmp_echo(HOA_A, HA, False, 7, 9)
    assert [t.dst for t in world.tunnel(echo)] == [COA_A]


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("forward_outside", [False, True])
def test_a_cached_flow_goes_the_way_of_each_of_its_packets(forward_outside, gateway):
    """Issue: the fast path; what is cached holds for signalling and for all else alike."""

    def change(document):
        document["home_agent"]["forward_outside"] = forward_outside
        if gateway:
            document["router"][2]["prefixes"] = ["0.0.0.0/0"]

    world = World(change)
    world.register_all()
    places = [HOST_A, HOA_A, HOST_B, HOA_B, HOST_C, HOA_C, HOME, INTERNET, HA, COA_A, COA_B]
    cached = set()
    for binding in (None, *world.ha.bindings.values()):
        for src in places:
            for dst in places:
                kinds = [
                    udp(src, dst),
                    udp(src, dst, 434, 1),
                    udp(src, dst, 1, 434),
                    udp(src, dst, 434, 434, TUNNEL_HEADER),
                    ipv4.build_icmp_echo(src, dst, False, 1, 1),
                ]
                each = [world.ha.forward(world.now, packet, binding) for packet in kinds]
                for packet, decision in zip(kinds, each, strict=True):
                    flow = world.ha.flow(packet, binding)
                    if flow != ("each",):
                        assert each == [flow] * len(each)
                        cached.add((flow[0], binding and binding.home_address))
                    elif dst in (HOA_A, HOA_B, HOA_C):
                        continue  # signalling among it is marked
                    elif decision[0] == "tunnel" and binding and not gateway:
                        pytest.fail("traffic between tunnels is worth caching")
    assert ("tunnel", None) in cached and ("outside", HOA_A) in cached
    assert ("tunnel", HOA_A) in cached


# --- size -----------------------------------------------------------------------------------------


def test_a_packet_with_df_that_does_not_fit_is_reported(world):
    """RFC 1191 4, RFC 2003 5.1: fragmentation needed with the tunnel's size, 1468 octets."""
    packet = bytearray(1469)
    ipv4.build_ipv4_into(packet, 0, 17, HOST_A, HOST_B, 1449, df=True)
    sent = world.tunnel(bytes(packet))
    dropped(world, sent, "fragmentation_needed")
    assert [icmp_error(t) for t in sent] == [(HOST_A, ipv4.UNREACHABLE, 4, 1468)]
    packet = bytearray(1468)
    ipv4.build_ipv4_into(packet, 0, 17, HOST_A, HOST_B, 1448, df=True)
    assert len(world.tunnel(bytes(packet))[0].payload) == 1472


def test_a_packet_without_df_is_fragmented_before_encapsulation(world):
    """RFC 3519 4.8: each fragment gets its own UDP and tunnel header and fits."""
    payload = random.Random(1).randbytes(4000)
    packet = udp(HOST_A, HOST_B, payload=payload)
    sent = world.tunnel(packet)
    assert [len(t.payload) for t in sent] == [1472, 1472, 1136]
    pieces = [t.payload[4:] for t in sent]
    for piece in pieces:
        ipv4.parse_ipv4(piece)
    body = b"".join(piece[20:] for piece in pieces)
    assert body == packet[20:]
    offsets = [ipv4.parse_ipv4(piece).fragment_offset for piece in pieces]
    assert offsets == [0, 1448, 2896]
    assert [ipv4.parse_ipv4(piece).more_fragments for piece in pieces] == [True, True, False]


def test_a_fragment_can_be_fragmented_again():
    """RFC 791 3.2: offsets add up and the last piece keeps More Fragments; options are copied."""
    header = bytearray(28)
    body = bytes(range(256)) * 4
    ipv4.build_ipv4_into(header, 0, 17, HOST_A, HOST_B, 8 + len(body))
    header[0] = 0x47
    header[6:8] = (0x2000 | 100).to_bytes(2, "big")
    header[20:28] = b"\x01\x83\x03\x00" + b"\x07\x04\x04\x00"  # NOP, LSRR (copied), RR (not)
    header[10:12] = b"\0\0"
    header[10:12] = ipv4.checksum(header, 0, 28).to_bytes(2, "big")
    pieces = fragment(bytes(header) + body, 300)
    parsed = [ipv4.parse_ipv4(piece) for piece in pieces]
    assert all(
        len(piece) <= 300 and ip.more_fragments for piece, ip in zip(pieces, parsed, strict=True)
    )
    assert [ip.header_length for ip in parsed] == [28] + [24] * (len(pieces) - 1)
    assert pieces[1][20:24] == b"\x83\x03\x00\x00"
    assert parsed[0].fragment_offset == 800
    assert b"".join(p[ip.header_length :] for p, ip in zip(pieces, parsed, strict=True)) == body


def test_icmp_errors_are_never_about_icmp_errors_or_later_fragments_and_are_limited(world):
    """RFC 1812 4.3.2.7, 4.3.2.8."""
    error = ipv4.build_icmp_error(HOST_A, 3, 1, 0, udp(HOST_B, HOST_A))
    expired = error[:8] + b"\x01" + error[9:]
    assert world.tunnel(expired) == []
    for src in (bytes(4), b"\xe0\0\0\1", b"\xff\xff\xff\xff"):
        assert world.from_outside(udp(src, address("192.0.2.222"))) == []
        assert world.outside() == []
    assert world.from_outside(udp(INTERNET, address("192.0.2.222"))) == []
    assert [ipv4.parse_ipv4(packet).dst for packet in world.outside()] == [INTERNET]
    probe = ipv4.build_icmp_echo(HOST_A, HOST_B, False, 1, 1)
    assert len(world.tunnel(probe[:8] + b"\x01" + probe[9:])) == 1
    fragment_ = bytearray(udp(HOST_A, HOST_B, ttl=1))
    fragment_[7] = 5
    assert world.tunnel(bytes(fragment_)) == []
    sent = [world.tunnel(udp(HOST_A, HOST_B, ttl=1)) for _ in range(100)]
    assert sum(map(len, sent)) == 48
    assert world.ha.counters["icmp_error_limited"] == 52
    assert world.ha.bindings[HOA_A].rx_packets == 0


# --- IP in IP -------------------------------------------------------------------------------------


def test_a_router_without_udp_gets_ip_in_ip():
    """RFC 5944 4.1: MUST support IP in IP; RFC 5177 7: outer source is the care-of address."""
    world = World()
    world.register(networks=["10.1.0.0/24"], udp=None)
    world.register(hoa=HOA_B, coa=COA_B, networks=["10.2.0.0/24"])
    packet = udp(HOST_B, HOST_A)
    whole = encapsulate_ipip(HA, COA_A, udp(HOST_B, HOST_A, ttl=63))
    assert world.tunnel(packet, COA_B) == [Transmit(COA_A, RAW_PORT, whole)]
    world.ha.receive_encapsulated(world.now, encapsulate_ipip(COA_A, HA, udp(HOST_A, HOST_B)))
    assert world.drain() == [Transmit(COA_B, 434, TUNNEL_HEADER + udp(HOST_A, HOST_B, ttl=63))]
    for src in (COA_B, INTERNET):
        world.ha.receive_encapsulated(world.now, encapsulate_ipip(src, HA, udp(HOST_A, HOST_B)))
        assert world.drain() == []
    assert world.ha.counters["unknown_tunnel_end"] == 2
    assert world.tunnel(udp(HOST_A, HOST_B), COA_A) == []
