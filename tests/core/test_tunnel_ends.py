"""A tunnel that moves keeps its number and is received from at both ends for the grace period."""

import pytest

from haaro.wire import ipv4, return_routability, udp_tunnel
from tests.core.helpers import (
    COA_A,
    COA_A2,
    COA_C,
    COA_C2,
    HOA_A,
    HOA_C,
    HOST_A,
    HOST_C,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
    inner_udp,
    snapshot,
)
from tests.core.network import HOME_AGENT

GRACE_MS = 10_000
ECHO = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b"abc")


def direct_lone():
    """Router A with a direct tunnel to C that is up, and a second uplink that is up."""
    lone = Lone().registered()
    lone.up(COA_A2, 1)
    peer = ScriptedPeer(lone)
    peer.establish()
    peer.answer_echo(lone.run(0))
    assert lone.router.tunnels.get(1).up
    return lone, peer


def peer_moves(lone, peer, coa=COA_C2):
    """The peer registers from another care-of address."""
    peer.coa = coa
    peer.test().register(number=lone.ntp(500))


def from_end(lone, packet, src, sport=434, uplink=0, tunnel=1):
    lone.router.receive_tunnelled(lone.now, tunnel, packet, src, sport, uplink)
    return lone.drain()


def test_peer_that_moved_is_received_from_at_both_addresses_for_ten_seconds():
    """R3.3.6-4 R3.3.6-i2 R3.3.3-19: and sent to at the new one only."""
    lone, peer = direct_lone()
    tunnel = lone.router.tunnels.get(1)
    lone.events.clear()
    peer_moves(lone, peer)
    assert lone.router.tunnels.get(1) is tunnel
    assert (tunnel.remote, tunnel.other) == (COA_C2, (0, COA_A, COA_C, 434))
    assert ("tunnel", 1) in lone.events
    # A keepalive that is still under way is answered where it came from.
    (item,) = from_end(lone, ECHO, COA_C)
    assert (item.tunnel, item.uplink, item.dst, item.dport) == (-1, 0, COA_C, 434)
    answer = item.payload[len(udp_tunnel.TUNNEL_HEADER) :]
    assert ipv4.parse_icmp_echo(answer, ipv4.parse_ipv4(answer)) == (True, 3, 4, b"abc")
    assert lone.counter("tunnel_source") == 0
    lone.run(GRACE_MS - 1)
    assert tunnel.other is not None
    lone.events.clear()
    lone.run(1)
    assert tunnel.other is None
    assert ("tunnel", 1) in lone.events
    from_end(lone, ECHO, COA_C)
    assert lone.counter("tunnel_source") == 1


def test_what_comes_from_the_end_before_the_move_brings_nothing_up():
    """R3.3.4-3: eligible is the new pair, once a keepalive was answered over that."""
    lone, peer = direct_lone()
    peer_moves(lone, peer)
    tunnel = lone.router.tunnels.get(1)
    token, ident, seq = tunnel.echo_token, tunnel.echo_ident, tunnel.echo_seq
    assert not tunnel.up
    before = snapshot(lone.router, lone.now)
    answer = ipv4.build_icmp_echo(HOA_C, HOA_A, True, ident, seq, token)
    assert from_end(lone, answer, COA_C) == []
    assert snapshot(lone.router, lone.now) == before
    assert (*LAN_C, 1, -1) not in lone.router.forwarding_table()[0]


@pytest.mark.parametrize(
    ("src", "sport", "uplink"), [(COA_C, 435, 0), (COA_C, 434, 1), (COA_A2, 434, 0)]
)
def test_no_third_end_is_received_from(src, sport, uplink):
    """R3.3.6-4 A37: the old end is exact too, its uplink included."""
    lone, peer = direct_lone()
    peer_moves(lone, peer)
    before = snapshot(lone.router, lone.now)
    assert from_end(lone, ECHO, src, sport, uplink) == []
    assert lone.counter("tunnel_source") == 1
    assert snapshot(lone.router, lone.now) == before


def test_end_that_the_other_side_was_never_heard_from_is_not_kept():
    lone = Lone(mutual_registration=False).registered()
    peer = ScriptedPeer(lone).test()
    peer.register()
    peer_moves(lone, peer)
    tunnel = lone.router.tunnels.get(1)
    assert (tunnel.remote, tunnel.other) == (COA_C2, None)


def test_second_move_keeps_the_end_that_was_in_use():
    """R3.3.6-4: an address that never carried anything does not displace it."""
    lone, peer = direct_lone()
    peer_moves(lone, peer)
    lone.run(1000)
    peer_moves(lone, peer, ipv4.address("203.0.113.78"))
    assert lone.router.tunnels.get(1).other == (0, COA_A, COA_C, 434)
    lone.run(1000)
    peer_moves(lone, peer, COA_C)  # and back: one end is left
    tunnel = lone.router.tunnels.get(1)
    assert (tunnel.remote, tunnel.other) == (COA_C, None)


def test_home_agent_may_send_to_a_new_uplink_before_its_reply_arrives():
    """R3.3.6-4: the reply may be lost, or be overtaken."""
    lone = Lone().registered()
    tunnel = lone.router.tunnels.get(0)
    hoti = return_routability.build_init(return_routability.HOTI, b"c" * 8)
    hoti = ipv4.build_udp(HOA_C, HOA_A, 434, 434, bytes(hoti))
    from_end(lone, hoti, HOME_AGENT, uplink=1, tunnel=0)
    assert lone.counter("tunnel_source") == 1
    lone.up(COA_A2, 1)
    lone.router.drain(lone.now, 0)
    items = lone.run(0)
    (request,) = lone.requests(items)
    assert request.care_of_address == COA_A2
    assert (tunnel.uplink, tunnel.local, tunnel.up) == (0, COA_A, True)
    assert tunnel.other == (1, COA_A2, HOME_AGENT, 434)
    answers = from_end(lone, hoti, HOME_AGENT, uplink=1, tunnel=0)
    assert inner_udp(answers[0])[4].type == 26  # a HoT, so the HoTI was taken
    reply = lone.home_reply(request, [(HOA_C, False, [])])
    lone.outside(HOME_AGENT, reply, dst=COA_A2, uplink=1)
    assert (tunnel.uplink, tunnel.local) == (1, COA_A2)
    assert tunnel.other == (0, COA_A, HOME_AGENT, 434)
    assert lone.router.tunnels.get(0) is tunnel
    lone.run(GRACE_MS)
    assert tunnel.other is None


def test_uplink_that_is_gone_takes_its_end_with_it():
    """R3.3.6-4: nothing is accepted at an address that is ours no longer."""
    lone, peer = direct_lone()
    peer_moves(lone, peer)
    tunnel = lone.router.tunnels.get(1)
    assert tunnel.other is not None
    lone.events.clear()
    lone.router.uplink_changed(lone.now, 0, True, ipv4.address("198.51.100.99"))
    lone.drain()
    assert tunnel.other is None
    assert ("tunnel", 1) in lone.events


def test_new_port_of_a_nat_leaves_the_old_one_good_for_a_while():
    """R6.1-2 R3.3.6-4: packets that were under way by the old mapping are not lost."""
    lone = Lone(mutual_registration=False).registered()
    lone.busy = True
    peer = ScriptedPeer(lone).test()
    peer.register()
    peer.answer_echo(lone.packet(ECHO, 1) + lone.run(0))
    lone.run(300)
    tunnel = lone.router.tunnels.get(1)

    def stray(packet):
        data = udp_tunnel.TUNNEL_HEADER + packet
        lone.router.receive_stray(lone.now, 0, COA_C, 40_000, COA_A, data)
        return lone.drain()

    packet = stray(ECHO)[-1].payload[4:]
    _, ident, seq, token = ipv4.parse_icmp_echo(packet, ipv4.parse_ipv4(packet))
    stray(ipv4.build_icmp_echo(HOA_C, HOA_A, True, ident, seq, token))
    lone.run(3000)
    assert (tunnel.remote_port, tunnel.up) == (40_000, True)
    assert tunnel.other == (0, COA_A, COA_C, 434)


@pytest.mark.parametrize("delay_ms", [10, 40])
def test_move_of_either_router_loses_nothing_that_is_under_way(delay_ms):
    """R3.3.6-4 R3.3.6-i2 R3.3.4-i4: the tunnel is retargeted, and its number stays."""
    world = Triangle(delay_ms=delay_ms)
    world.c.attach(1, COA_C2)
    world.make_direct(world.c, world.a)
    world.net.run(31_000)
    world.traffic(world.a, world.c, 2000, step_ms=10)
    before = {n: n.router.tunnels.of_peer(o.hoa).id for n, o in pairs(world)}
    start = world.net.now
    world.c.router.drain(world.net.now, 0)
    world.c.pump()
    sent, arrived = world.traffic(world.a, world.c, 5000, step_ms=10)
    assert arrived == {world.a: sent, world.c: sent}
    assert {n: n.router.tunnels.of_peer(o.hoa).id for n, o in pairs(world)} == before
    assert world.a.router.tunnels.of_peer(HOA_C).remote == COA_C2
    assert world.both_direct(world.a, world.c)
    late = [d for d in world.net.since(start, "user") if d.dst == COA_C and d.src == COA_A]
    assert late  # some did go to the old address after it was left


def pairs(world):
    return ((world.a, world.c), (world.c, world.a))


def test_user_data_of_the_old_end_is_as_good_as_of_the_new():
    """R3.3.6-4: by the capture: what the peer still sends to the old address is delivered."""
    world = Triangle()
    world.c.attach(1, COA_C2)
    world.make_direct(world.c, world.a)
    world.net.run(31_000)
    world.c.router.drain(world.net.now, 0)
    world.c.pump()
    world.net.run_until(lambda: world.c.router.tunnels.of_peer(HOA_A).local == COA_C2)
    other = world.c.router.tunnels.of_peer(HOA_A).other
    assert other == (0, COA_C, COA_A, 434)
    count = len(world.c.delivered)
    assert world.a.router.tunnels.of_peer(HOA_C).remote == COA_C  # not told yet
    assert world.a.send_user(HOST_A, HOST_C) == 1
    world.net.run(15)
    assert len(world.c.delivered) == count + 1
