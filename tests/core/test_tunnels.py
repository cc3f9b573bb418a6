"""Keepalives, fallback to the home agent and return, NAT ports; captures decide what is direct."""

import itertools

import pytest

from haaro.wire import ipv4, udp_tunnel
from tests.core.helpers import (
    COA_A,
    COA_C,
    COA_C2,
    HOA_A,
    HOA_B,
    HOA_C,
    HOME_AGENT,
    HOST_A,
    HOST_C,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
    snapshot,
)


def direct_user(world, since):
    """User packets that went between the two care-of addresses."""
    return [d for d in world.net.since(since, "user") if {d.src, d.dst} == {COA_A, COA_C}]


def flow(world, pairs, condition, limit_ms=5000):
    """Traffic, a packet every 50 ms for each pair, until `condition()`; fails after `limit_ms`."""
    end = world.net.now + limit_ms
    while not condition():
        assert world.net.now <= end, world.net.diagram(end - limit_ms)
        for one, other in pairs:
            world.send(one, other)
        world.net.run(50)


def neither_direct(world):
    return not world.a.is_direct(world.c) and not world.c.is_direct(world.a)


@pytest.mark.parametrize("phase_ms", range(0, 1000, 125))
def test_black_holed_direct_path_falls_back_within_five_seconds(phase_ms):
    """F2 of the threats. R3.3.4-5 R3-i3 R3.3.4-i2"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(3000 + phase_ms)
    world.net.cut(COA_A, COA_C)
    flow(world, [(world.a, world.c), (world.c, world.a)], lambda: neither_direct(world))
    start = world.net.now
    sent, arrived = world.traffic(world.a, world.c, 5000)
    assert arrived == {world.a: sent, world.c: sent}
    assert direct_user(world, start) == []
    assert "silent" in world.c.peer(world.a)["reason"]
    assert world.c.peer(world.a)["path"] == "ha"


def test_outage_seen_by_traffic_is_at_most_five_seconds_and_the_path_returns():
    """F2 of the threats: nothing is lost when traffic moves back."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.traffic(world.a, world.c, 5000)
    cut = world.net.cut(COA_A, COA_C)
    start = world.net.now
    _, arrived = world.traffic(world.a, world.c, 60_000)
    for node in (world.a, world.c):
        times = [start, *(t for t, _, _ in node.delivered if t > start)]
        assert max(b - a for a, b in itertools.pairwise(times)) <= 5000
        assert arrived[node] > 0
    world.net.filters.remove(cut)
    start = world.net.now
    sent, arrived = world.traffic(world.a, world.c, 10_000)
    assert arrived == {world.a: sent, world.c: sent}
    assert world.both_direct(world.a, world.c)
    first = direct_user(world, start)[0].time
    assert first - start < 5000


def test_no_packet_is_lost_when_traffic_moves_to_the_direct_tunnel():
    """R3.3.4-3: a tunnel carries traffic only after a keepalive was answered."""
    world = Triangle(delay_ms=25)
    start = world.net.now
    sent, arrived = world.traffic(world.c, world.a, 5000, step_ms=5)
    assert arrived == {world.a: sent, world.c: sent}
    assert world.both_direct(world.a, world.c)
    assert len(direct_user(world, start)) > sent
    assert not world.a.refused
    assert not world.c.refused


@pytest.mark.parametrize("wanted", [True, False])
def test_silent_path_is_probed_every_two_seconds_while_wanted(wanted):
    """R3.3.4-6"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.cut(COA_A, COA_C)
    world.net.run(30_000)
    start = world.net.now
    for _ in range(60):
        if wanted:
            world.send(world.c, world.a)
        world.net.run(1000)
    times = [d.time for d in world.net.since(start, "keepalive") if d.src == COA_C]
    times = [t for t in times if any(d.time == t and d.dst == COA_A for d in world.net.since(t))]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    if wanted:
        assert max(gaps) <= 2000
    else:
        assert max(gaps) <= 10_000
        assert len(times) < 10


def test_wanted_traffic_hurries_the_next_probe():
    """F2 of the threats: the slow rate of an unwanted path ends with the first wanted packet."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    cut = world.net.cut(COA_A, COA_C)
    world.net.run(62_500)
    world.net.filters.remove(cut)
    assert not world.both_direct(world.a, world.c)
    assert world.make_direct(world.c, world.a) <= 3500


def test_wanted_traffic_does_not_put_probes_off():
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.cut(COA_A, COA_C)
    world.net.run(30_000)
    start = world.net.now
    for _ in range(300):
        world.send(world.c, world.a)
        world.net.run(50)
    probes = [d for d in world.net.since(start, "keepalive") if (d.src, d.dst) == (COA_C, COA_A)]
    assert 7 <= len(probes) <= 9


@pytest.mark.parametrize("sender", ["a", "c"])
@pytest.mark.parametrize("dead", [(COA_A, COA_C), (COA_C, COA_A)])
def test_one_way_loss_of_a_one_way_flow_is_noticed_at_both_ends(sender, dead):
    """R3.3.4-i2, F4 of the threats: a one-way flow must not hide a dead path from either end."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    pairs = [(world.a, world.c) if sender == "a" else (world.c, world.a)]
    end = world.net.now + 3000
    flow(world, pairs, lambda: world.net.now > end)
    assert world.both_direct(world.a, world.c)
    world.net.filters.append(lambda d: (d.src, d.dst) == dead)
    flow(world, pairs, lambda: neither_direct(world))


def test_single_lost_keepalives_change_nothing():
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(3000)
    count = itertools.count()
    world.net.filters.append(
        lambda d: d.kind == "keepalive" and COA_A in (d.src, d.dst) and next(count) % 5 == 0
    )
    for _ in range(300):
        world.net.run(100)
        assert world.both_direct(world.a, world.c)


def test_keepalives_stay_under_the_maximum_rate():
    """R3.3.4-6 R9-i1: MAX_UPDATE_RATE 5 a second, sent and answered."""
    lone = Lone(direct_keepalive_ms=10).registered()
    peer = ScriptedPeer(lone)
    peer.establish()
    start = lone.now
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 9, 9, b"")
    answered = 0
    for _ in range(1000):
        answered += len([i for i in lone.packet(echo, 1) if i.tunnel == 1])
        peer.answer_echo(lone.run(10))
    own = [t for t, i in lone.sent if i.tunnel == 1 and t > start and i.payload[20] == 8]
    assert answered <= 51
    assert len(own) <= 51
    assert lone.counter("keepalive_rate_limited") >= 900


def test_period_is_the_configured_one():
    """R3.3.4-5: default 1 s, far below 110 s."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    start = world.net.now
    world.traffic(world.c, world.a, 10_000)
    echoes = [d for d in world.net.since(start, "keepalive") if (d.src, d.dst) == (COA_C, COA_A)]
    assert 18 <= len(echoes) <= 22  # one echo and one answer a second


@pytest.mark.parametrize("delay_ms", [200, 400, 700])
def test_path_slower_than_the_keepalive_period_is_up_all_the_same(delay_ms):
    """R3.3.4-5: answers count although a newer echo was sent."""
    world = Triangle(register=False, delay_ms=delay_ms)
    for node in (world.a, world.c):
        node.attach(0, world.coas[node])
    world.net.run(20_000)
    for _ in range(60):
        world.send(world.c, world.a)
        world.net.run(1000)
    assert world.both_direct(world.a, world.c)


FORGED_ECHOES = [
    lambda token, seq, ident: (HOA_C, True, ident, seq, bytes(8)),
    lambda token, seq, ident: (HOA_C, True, ident ^ 1, seq, token),
    lambda token, seq, ident: (HOA_C, True, ident, (seq + 1) & 0xFFFF, token),
    lambda token, seq, ident: (HOA_C, True, ident, (seq - 1) & 0xFFFF, token),
]


@pytest.mark.parametrize("number", range(len(FORGED_ECHOES)))
def test_forged_keepalive_answer_does_not_bring_the_tunnel_up(number):
    lone = Lone().registered()
    ScriptedPeer(lone).establish()
    (item,) = lone.run(0)
    ip = ipv4.parse_ipv4(item.payload)
    _, ident, seq, token = ipv4.parse_icmp_echo(item.payload, ip)
    src, reply, ident, seq, payload = FORGED_ECHOES[number](token, seq, ident)
    before = snapshot(lone.router, lone.now)
    lone.packet(ipv4.build_icmp_echo(src, HOA_A, reply, ident, seq, payload), 1)
    assert lone.router.counters.as_dict() == {"keepalive_reply_unexpected": 1}
    assert snapshot(lone.router, lone.now) == before


def test_answer_counts_once():
    lone = Lone().registered()
    peer = ScriptedPeer(lone)
    peer.establish()
    items = lone.run(0)
    peer.answer_echo(items)
    assert lone.router.tunnels.get(1).up
    peer.answer_echo(items)
    assert lone.counter("keepalive_reply_unexpected") == 1


def test_echo_of_another_address_or_from_another_outer_end_is_refused():
    """A37: exact outer ends; keepalives only of the tunnel's peer."""
    lone = Lone().registered()
    ScriptedPeer(lone).establish()
    lone.run(0)
    before = snapshot(lone.router, lone.now)
    lone.packet(ipv4.build_icmp_echo(HOA_B, HOA_A, False, 1, 1, b""), 1)
    good = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 1, 1, b"")
    for src, sport in ((COA_C2, 434), (COA_C, 435)):
        lone.router.receive_tunnelled(lone.now, 1, good, src, sport, 0)
    lone.router.receive_tunnelled(lone.now, 9, good, COA_C, 434, 0)
    lone.packet(ipv4.build_icmp_echo(HOA_C, HOA_B, False, 1, 1, b""), 1)
    assert lone.drain() == []
    assert lone.router.counters.as_dict() == {
        "tunnelled_unexpected": 1,
        "tunnel_source": 3,
        "tunnelled_not_for_us": 1,
    }
    assert snapshot(lone.router, lone.now) == before


# NAT: the tunnel's port is not the registration's


class Nat:
    """C sits behind an address translator: per destination port, one public address."""

    PUBLIC = ipv4.address("203.0.113.200")

    def __init__(self, world):
        self.world = world
        self.network = world.net
        self.address = self.PUBLIC
        self.generation = 0
        self.out = {}
        self.back = {}
        world.net.owners[self.PUBLIC] = self
        real = world.net.send

        def send(sender, src, sport, dst, dport, payload):
            if sender is world.c:
                key = (src, sport, dst, dport)
                if key not in self.out:
                    port = 20_000 + 100 * self.generation + len(self.out)
                    self.out[key] = port
                    self.back[(port, dst, dport)] = (src, sport)
                real(self, self.address, self.out[key], dst, dport, payload)
            else:
                real(sender, src, sport, dst, dport, payload)

        world.net.send = send

    def receive(self, datagram):
        inside = self.back.get((datagram.dport, datagram.src, datagram.sport))
        if inside is None:
            datagram.dropped = "nat"
            return
        datagram.dst, datagram.dport = inside
        self.world.c.receive(datagram)

    def reboot(self):
        """Forget every mapping; new ones get other ports."""
        self.generation += 1
        self.out, self.back = {}, {}

    def move(self, address):
        """Reboot and have another public address."""
        self.reboot()
        del self.network.owners[self.address]
        self.network.owners[address] = self
        self.address = address


def behind_nat():
    world = Triangle(register=False)
    nat = Nat(world)
    for node in (world.a, world.b, world.c):
        node.attach(0, world.coas[node])
        world.net.run(2000)
    return world, nat


def test_router_behind_nat_reaches_one_that_is_not():
    """R6.1-2 R6.1-1 R6.1-i4 R6.1-i2 R3.3.3-9 A37: another port than the request's is taken."""
    world, nat = behind_nat()
    assert world.c.router.status(0)["registration"]["nat"]
    world.make_direct(world.c, world.a)
    tunnel = world.a.router.tunnels.of_peer(HOA_C)
    assert tunnel.remote == nat.PUBLIC
    request = next(d for d in world.net.captured if d.kind == "request" and d.dst == HOA_A)
    assert tunnel.remote_port not in (434, request.sport)
    sent, arrived = world.traffic(world.a, world.c, 3000)
    assert arrived == {world.a: sent, world.c: sent}
    assert world.c.delivered[-1][1] == world.a.delivered[-1][1] == 1


def test_new_nat_port_is_taken_within_five_seconds():
    """A37, F5 of the threats: by the keepalives of both, without falling back."""
    world, nat = behind_nat()
    world.make_direct(world.c, world.a)
    world.traffic(world.a, world.c, 3000)
    nat.reboot()
    world.traffic(world.c, world.a, 3500)
    sent, arrived = world.traffic(world.c, world.a, 5000)
    assert arrived[world.a] == sent
    assert world.both_direct(world.a, world.c)
    assert "direct_path_silent" not in world.a.router.counters.as_dict()


def test_new_nat_port_is_learnt_by_keepalives():
    """F5 of the threats: within 5 s traffic flows by the home agent, then direct again."""
    world, nat = behind_nat()
    world.make_direct(world.c, world.a)
    old = world.a.router.tunnels.of_peer(HOA_C).remote_port
    nat.reboot()
    world.c.router.registration.refresh(world.net.now + 1000)
    world.traffic(world.a, world.c, 60_000)
    assert world.both_direct(world.a, world.c)
    assert world.a.router.tunnels.of_peer(HOA_C).remote_port != old


@pytest.mark.parametrize(
    ("age_ms", "home_token", "limit_ms"),
    [(12_000, True, 8000), (1000, True, 12_000), (12_000, False, 45_000)],
)
def test_direct_path_follows_a_nat_to_its_new_address(age_ms, home_token, limit_ms):
    """R6.1-2 A35, F6 of the threats: renewed when the path is silent, not in minutes. Without a
    home token that takes the home agent, once it knows the new address too.
    """
    world, nat = behind_nat()
    world.make_direct(world.c, world.a)
    world.traffic(world.a, world.c, age_ms)
    if not home_token:
        world.c.router.cache.get(HOA_A).home_keygen_token = b""
    nat.move(ipv4.address("203.0.113.201"))
    world.traffic(world.a, world.c, limit_ms)
    assert world.both_direct(world.a, world.c)
    assert world.a.router.tunnels.of_peer(HOA_C).remote == nat.address


def test_silent_path_without_a_nat_is_probed_and_not_registered_anew():
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.traffic(world.a, world.c, 12_000)
    world.net.cut(COA_A, COA_C)
    start = world.net.now
    world.traffic(world.a, world.c, 20_000)
    assert not world.a.is_direct(world.c)
    assert world.net.since(start, "coti", "hoti") == []


def test_flapping_path_behind_a_nat_is_registered_anew_at_most_every_ten_seconds():
    world, nat = behind_nat()
    world.make_direct(world.c, world.a)
    start = world.net.now
    for _ in range(6):
        between = world.net.cut(nat.PUBLIC, COA_A)
        world.traffic(world.a, world.c, 5000)
        world.net.filters.remove(between)
        world.traffic(world.a, world.c, 5000)
    requests = [d for d in world.net.since(start + 1000, "request") if d.src == nat.PUBLIC]
    for to, least in ((HOA_A, 3), (HOME_AGENT, 2)):
        times = [d.time for d in requests if d.dst == to]
        assert len(times) >= least
        assert all(two - one >= 10_000 for one, two in itertools.pairwise(times))


def stray(lone, packet, src=COA_C, sport=40_000):
    lone.router.receive_stray(lone.now, 0, src, sport, COA_A, udp_tunnel.TUNNEL_HEADER + packet)
    return lone.drain()


def test_stray_keepalive_is_answered_where_it_came_from_but_moves_nothing():
    """A57 R6.1-2: the tunnel moves only to an end that answered our own echo."""
    lone = Lone(mutual_registration=False).registered()
    ScriptedPeer(lone).test().register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b"abc")
    before = snapshot(lone.router, lone.now)
    items = stray(lone, echo)
    assert snapshot(lone.router, lone.now) == before
    assert [(i.tunnel, i.dst, i.dport) for i in items] == [(-1, COA_C, 40_000)] * 2
    parsed = []
    for item in items:
        packet = item.payload[4:]
        assert item.payload[:4] == udp_tunnel.TUNNEL_HEADER
        parsed.append(ipv4.parse_icmp_echo(packet, ipv4.parse_ipv4(packet)))
    assert parsed[0] == (True, 3, 4, b"abc")
    _, ident, seq, token = parsed[1]
    assert len(token) == 8
    assert token not in (bytes(8), lone.router.tunnels.get(1).echo_token)
    for wrong in (
        (ipv4.build_icmp_echo(HOA_C, HOA_A, True, ident, seq, bytes(8)), COA_C, 40_000),
        (ipv4.build_icmp_echo(HOA_C, HOA_A, True, ident, seq, token), COA_C, 40_001),
    ):
        stray(lone, *wrong)
        assert snapshot(lone.router, lone.now) == before
    stray(lone, ipv4.build_icmp_echo(HOA_C, HOA_A, True, ident, seq, token))
    tunnel = lone.router.tunnels.get(1)
    assert (tunnel.remote, tunnel.remote_port, tunnel.up) == (COA_C, 40_000, True)
    assert (*LAN_C, 1, -1) in lone.router.forwarding_table()[0]
    ScriptedPeer(lone).test().register(number=lone.ntp(500))  # a renewal keeps the learnt port
    assert (tunnel.remote_port, tunnel.up) == (40_000, True)


def test_first_probes_of_a_new_tunnel_are_half_a_second_apart():
    """R3.3.4-2: the first keepalive may be lost."""
    lone = Lone().registered()
    ScriptedPeer(lone).establish()
    start = lone.now
    lone.run(1600)
    assert [t - start for t, i in lone.sent if i.tunnel == 1] == [0, 500, 1000, 1500]


def test_unchanged_counters_are_idle_and_unknown_tunnels_are_ignored():
    lone = Lone(peer_idle_ms=60_000).registered()
    peer = ScriptedPeer(lone)
    peer.establish()
    for _ in range(200):
        peer.answer_echo(lone.run(1000))
        lone.router.tunnel_traffic(lone.now, 1, 5, 5)
        lone.router.tunnel_traffic(lone.now, 44, lone.now, 5)
    assert lone.router.tunnels.get(1) is None
    assert [i for _, i in lone.sent if i.dst == HOA_C and i.payload[:4] == b"\x01\x22\0\0"]


def test_stray_traffic_and_strangers_are_dropped():
    """A57: keepalives and nothing else. D1 of the threats"""
    lone = Lone(mutual_registration=False).registered()
    ScriptedPeer(lone).test().register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b"abc")
    before = snapshot(lone.router, lone.now)
    assert stray(lone, ipv4.build_udp(HOST_C, HOST_A, 1, 2, b"x")) == []
    assert stray(lone, echo, src=COA_C2) == []
    assert stray(lone, ipv4.build_icmp_echo(HOA_B, HOA_A, False, 3, 4, b"")) == []
    assert stray(lone, ipv4.build_icmp_echo(HOA_C, HOA_B, False, 3, 4, b"")) == []
    assert lone.router.counters.as_dict() == {"stray_tunnel_data": 4}
    for data in (b"", b"\x04", b"\x04\x2f\x00\x00" + echo, b"\x04\x04\x00\x00" + echo[:19]):
        lone.router.receive_stray(lone.now, 0, COA_C, 40_000, COA_A, data)
    assert lone.drain() == []
    assert snapshot(lone.router, lone.now) == before


def test_keepalive_from_the_authenticated_care_of_address_is_answered_too():
    """A57 R6.1-3: two routers behind one NAT."""
    private = ipv4.address("192.168.1.3")
    lone = Lone(mutual_registration=False).registered()
    peer = ScriptedPeer(lone, coa=ipv4.address("203.0.113.200")).test()
    peer.register(care_of_address=private)
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b"abc")
    items = stray(lone, echo, src=private, sport=434)
    assert [(i.dst, i.dport) for i in items] == [(private, 434)] * 2


def test_forged_stray_keepalive_cannot_steal_a_working_tunnel():
    lone = Lone(mutual_registration=False).registered()
    lone.busy = True
    peer = ScriptedPeer(lone).test()
    peer.register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b"abc")
    peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
    assert lone.router.tunnels.get(1).up
    tunnel = lone.router.tunnels.get(1)
    for number in range(20):
        peer.answer_echo(lone.run(500))
        items = stray(lone, echo, sport=40_000 + number)
        assert len(items) == 2  # answered and probed
        stray(lone, candidate_answer(items, bytes(8)), sport=40_000 + number)
        assert (tunnel.remote_port, tunnel.up) == (434, True)
    for number in range(20):  # nor does it when the tunnel's end is silent
        lone.run(500)
        stray(lone, echo, sport=41_000 + number)
        assert tunnel.remote_port == 434
    assert not tunnel.up


def candidate_answer(items, token=None):
    """What the peer answers to the echo for another end than the tunnel's."""
    packet = items[-1].payload[4:]
    _, ident, seq, sent = ipv4.parse_icmp_echo(packet, ipv4.parse_ipv4(packet))
    return ipv4.build_icmp_echo(HOA_C, HOA_A, True, ident, seq, token or sent)


def working_tunnel():
    lone = Lone(mutual_registration=False).registered()
    lone.busy = True
    peer = ScriptedPeer(lone).test()
    peer.register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b"abc")
    peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
    lone.run(300)
    return lone, peer, lone.router.tunnels.get(1), echo


def test_proven_other_end_is_taken_when_the_tunnels_own_is_silent():
    """R6.1-2 A37, F5 of the threats: before the tunnel counts as silent, so within 5 s."""
    lone, _, tunnel, echo = working_tunnel()
    stray(lone, candidate_answer(stray(lone, echo)))
    assert tunnel.remote_port == 434
    # Others that ask do not displace an end that is proven.
    for number in range(4):
        lone.run(500)
        assert len(stray(lone, echo, sport=41_000 + number)) == 1
    lone.run(1000)
    assert (tunnel.remote_port, tunnel.up) == (40_000, True)
    assert (*LAN_C, 1, -1) in lone.router.forwarding_table()[0]
    assert "direct_path_silent" not in lone.router.counters.as_dict()


def test_proven_other_end_is_forgotten_when_the_tunnels_own_answers():
    """Two ends that both answer, as of a peer with two ways out: the tunnel stays."""
    lone, peer, tunnel, echo = working_tunnel()
    for _ in range(10):
        stray(lone, candidate_answer(stray(lone, echo)))
        peer.answer_echo(lone.run(1000))
        assert (tunnel.remote_port, tunnel.up) == (434, True)
    lone.run(10_000)  # both silent, and the proof is of before
    assert (tunnel.remote_port, tunnel.up) == (434, False)


@pytest.mark.parametrize("mover", ["a", "c"])
def test_either_end_may_move_or_tear_down_and_keeps_the_ports(mover):
    """R3.3.4-i4 R3.3.6-5: whoever started the tunnel."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(2000)
    one = getattr(world, mover)
    other = world.c if one is world.a else world.a
    address = ipv4.address("203.0.113.99")
    one.attach(0, address)
    world.net.run_until(
        lambda: (
            other.router.tunnels.of_peer(one.hoa).remote == address
            and world.both_direct(one, other)
        )
    )
    start = world.net.now
    world.traffic(world.a, world.c, 1000)
    assert {(d.sport, d.dport) for d in world.net.since(start, "user")} == {(434, 434)}
    one.router.stop(world.net.now)
    one.pump()
    world.net.run(5000)
    assert [t for t in other.router.tunnels.all() if t.direct] == []


def test_uplink_down_takes_every_tunnel_out_of_use():
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.c.detach(0)
    assert [r for r in world.c.routes if r[2] >= 0] == []
    assert not world.c.is_direct(world.a)


def test_mtu_of_the_uplink_is_that_of_its_tunnels_less_the_outer_headers():
    lone = Lone().registered()
    lone.router.uplink_changed(lone.now, 0, True, COA_A, None, 1400)
    lone.events.clear()
    lone.drain()
    assert lone.router.tunnels.get(0).mtu == 1368
    assert ("tunnel", 0) in lone.events


@pytest.mark.parametrize("at_ms", [140_000, 152_000, 156_000, 160_000, 165_000])
def test_renewal_due_while_the_uplink_is_down_is_made_up_for(at_ms):
    """R3.3.6-7: the uplink comes back with the same address."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.traffic(world.a, world.c, at_ms, step_ms=1000)
    world.c.detach(0)
    world.net.run(30_000)
    world.c.attach(0, COA_C)
    world.net.run(5000)
    world.traffic(world.a, world.c, 30_000, step_ms=500)
    assert world.both_direct(world.a, world.c)
    sent, arrived = world.traffic(world.a, world.c, 700_000, step_ms=1000)
    assert arrived == {world.a: sent, world.c: sent}
    assert world.both_direct(world.a, world.c)


@pytest.mark.parametrize("wanted", [True, False])
def test_handover_whose_partial_return_routability_fails_leaves_nothing_behind(wanted):
    """R3.1.2-2 R3.3.6-9"""
    world = Triangle(settings=None)
    world.make_direct(world.c, world.a)
    world.net.run(2000)
    world.net.filters.append(lambda d: d.kind == "cot")
    world.c.attach(0, COA_C2)
    for _ in range(900):
        world.net.run(1000)
        if wanted:
            assert world.send(world.c, world.a) in (0, None)
    if not wanted:
        assert [t for t in world.c.router.tunnels.all() if t.direct] == []
    world.net.filters.clear()
    # A try under way may fail yet, and the next is half a minute later: while traffic goes on.
    flow(world, [(world.c, world.a)], lambda: world.both_direct(world.a, world.c), 60_000)


def test_flap_of_the_same_address_returns_to_the_direct_path():
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(5000)
    world.c.detach(0)
    world.net.run(1000)
    world.c.attach(0, COA_C)
    world.net.run(1000)
    assert world.send(world.c, world.a) == 0  # the way by the home agent is back at once
    for _ in range(20):
        world.send(world.c, world.a)
        world.net.run(500)
    assert world.both_direct(world.a, world.c)


def test_home_agent_gone_for_long_leaves_the_direct_path_alive_until_its_lifetime():
    """F13 of the threats. R3-i3"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(1000)
    world.ha.silent = True
    start = world.net.now
    world.traffic(world.a, world.c, 200_000, step_ms=500)
    assert world.both_direct(world.a, world.c)
    world.net.run(3_000_000)
    assert not world.a.is_direct(world.c)
    requests = [d.time for d in world.net.since(start, "request") if d.src == COA_A]
    last = [t for t in requests if t > start + 1_000_000]
    assert min(b - a for a, b in itertools.pairwise(last)) >= 30_000
    world.ha.silent = False
    world.net.run(45_000)
    for node in (world.a, world.c):
        assert node.router.registration.registered
    world.make_direct(world.c, world.a)


@pytest.mark.parametrize("seed", range(6))
def test_both_routers_move_at_once(seed):
    """R6.2-i1 F11 of the threats"""
    world = Triangle(seed=seed)
    world.make_direct(world.c, world.a)
    world.net.run(3000)
    world.a.detach(0)
    world.c.detach(0)
    world.net.run(100 * seed)
    world.a.attach(0, ipv4.address("198.51.100.20"))
    world.net.run(37 * seed)
    world.c.attach(0, COA_C2)
    for _ in range(120):
        world.send(world.c, world.a)
        world.send(world.a, world.c)
        world.net.run(500)
        if world.both_direct(world.a, world.c):
            break
    assert world.both_direct(world.a, world.c), world.net.diagram()
    sent, arrived = world.traffic(world.a, world.c, 2000)
    assert arrived == {world.a: sent, world.c: sent}
