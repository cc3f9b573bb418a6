"""When keepalives are sent: they follow traffic, an unused tunnel sleeps, silence is feared."""

import itertools
import random
import tracemalloc

import pytest

from haaro.core.deadlines import Deadlines
from haaro.wire import ipv4
from tests.core.helpers import (
    COA_A,
    COA_C,
    HOA_A,
    HOA_C,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
)

DIRECT = {COA_A, COA_C}


def direct_keepalives(world, since, source=None):
    found = [d for d in world.net.since(since, "keepalive") if {d.src, d.dst} == DIRECT]
    return [d for d in found if source in (None, d.src)]


def direct_world(ms=2000, **how):
    world = Triangle(**how)
    world.make_direct(world.c, world.a)
    world.traffic(world.c, world.a, ms)
    assert world.both_direct(world.a, world.c)
    return world


def sleeping():
    """A direct path that nothing went by for so long that both ends sleep."""
    world = direct_world()
    world.net.run(75_000)
    for one, other in ((world.a, world.c), (world.c, world.a)):
        assert one.router.tunnels.of_peer(other.hoa).dormant
    return world


# Traffic asks for them


def test_unused_path_has_a_keepalive_after_half_a_minute_and_none_after_a_minute():
    """R3.3.4-5: the period follows traffic; after 60 s without any there is none."""
    world = direct_world()
    start = world.net.now
    world.net.run(59_000)
    own = [d for d in direct_keepalives(world, start + 1000, COA_C) if d.payload[24] == 8]
    assert 1 <= len(own) <= 2
    assert own[0].time - start >= 28_000
    assert world.both_direct(world.a, world.c)
    world.net.run(16_000)
    start = world.net.now
    world.net.run(500_000)
    assert direct_keepalives(world, start) == []
    assert not world.a.is_direct(world.c)
    assert not world.c.is_direct(world.a)
    assert "wakes it" in world.c.peer(world.a)["reason"]
    assert world.c.peer(world.a)["tunnel"]["dormant"]
    assert world.c.peer(world.a)["registered"]


def test_first_packet_wakes_a_sleeping_tunnel_and_nothing_is_lost():
    """R3.3.4-3: by the home agent until one keepalive was answered, then direct again."""
    world = sleeping()
    start = world.net.now
    sent, arrived = world.traffic(world.a, world.c, 2000, step_ms=20)
    assert arrived == {world.a: sent, world.c: sent}
    user = [d for d in world.net.since(start, "user") if d.src == COA_A]
    assert user[0].dst != COA_C  # by the home agent
    assert user[-1].dst == COA_C
    first = next(d for d in user if d.dst == COA_C)
    assert first.time - start <= 100
    assert len(direct_keepalives(world, start, COA_A)) >= 1


def test_keepalive_of_the_peer_wakes_a_sleeping_tunnel():
    """R3.3.4-4"""
    world = sleeping()
    start = world.net.now
    world.send(world.a, world.c)
    world.net.run_until(lambda: world.both_direct(world.a, world.c), 1000)
    assert direct_keepalives(world, start, COA_C)[0].time > start
    # and both fall asleep again, although each heard the other meanwhile
    world.net.run(100_000)
    start = world.net.now
    world.net.run(100_000)
    assert direct_keepalives(world, start) == []


@pytest.mark.parametrize("dead", [(COA_A, COA_C), (COA_C, COA_A)])
def test_path_that_died_in_its_sleep_is_not_used(dead):
    """R3.3.4-3, F2 of the threats: "up" is an answered keepalive, not one of long ago."""
    world = sleeping()
    world.net.filters.append(lambda d: (d.src, d.dst) == dead)
    start = world.net.now
    sent, arrived = world.traffic(world.a, world.c, 5000)
    assert arrived == {world.a: sent, world.c: sent}
    assert not [d for d in world.net.since(start, "user") if {d.src, d.dst} == DIRECT]
    assert "silent" in world.a.peer(world.c)["reason"]


def test_sleeping_tunnel_is_the_way_when_the_home_agent_is_gone():
    """F13 of the threats. R3.3.2-1: a path that was good before is better than none."""
    world = sleeping()
    world.ha.silent = True
    world.net.run(240_000)
    assert not any(node.router.registration.registered for node in (world.a, world.c))
    assert (*LAN_C, 1, world.a.router.cache.get(HOA_C).hint) in world.a.routes
    assert world.a.is_direct(world.c)
    sent, arrived = world.traffic(world.a, world.c, 2000)
    assert arrived == {world.a: sent, world.c: sent}
    assert world.a.router.tunnels.of_peer(HOA_C).up


def test_renewal_does_not_wake_a_sleeping_tunnel():
    """R3.3.3-22 R3.3.4-5"""
    world = sleeping()
    start = world.net.now
    world.net.run(200_000)
    renewed = [d for d in world.net.since(start, "request") if d.src == COA_C and d.dst == HOA_A]
    assert renewed
    assert direct_keepalives(world, start) == []
    assert world.c.peer(world.a)["registered"]


def test_one_way_flow_is_vouched_for_by_both_ends():
    """R3.3.4-i2: who only receives keeps asking too."""
    world = direct_world()
    start = world.net.now
    for _ in range(200):
        world.send(world.c, world.a)
        world.net.run(50)
    for source in DIRECT:
        echoes = [d for d in direct_keepalives(world, start, source) if d.payload[24] == 8]
        assert 8 <= len(echoes) <= 12


def test_behind_a_nat_the_mapping_is_kept_open_without_traffic():
    """R6.1-2: mappings of 2 s live as long as the tunnel is not asleep."""
    lone = Lone().registered(nat=True)
    peer = ScriptedPeer(lone)
    peer.establish()
    for _ in range(50):
        start = lone.now
        peer.answer_echo(lone.run(1000))
        assert [i for t, i in lone.sent if i.tunnel == 1 and t >= start]
    peer.answer_echo(lone.run(20_000))
    assert lone.router.tunnels.get(1).dormant


def test_peer_behind_a_nat_has_its_mapping_kept_open_too():
    """R6.1-i4: also where only we can see that its address is translated."""
    lone = Lone(mutual_registration=False).registered()
    peer = ScriptedPeer(lone, coa=ipv4.address("203.0.113.200")).test()
    peer.register(care_of_address=ipv4.address("192.168.1.3"))
    peer.answer_echo(lone.packet(ipv4.build_icmp_echo(HOA_C, HOA_A, False, 3, 4, b""), 1))
    for _ in range(50):
        start = lone.now
        peer.answer_echo(lone.run(1000))
        assert [i for t, i in lone.sent if i.tunnel == 1 and t >= start]


def test_path_that_failed_is_believed_after_two_answers():
    """R3.3.4-3: a path that lets one keepalive in ten through does not flap."""
    lone = Lone().registered()
    lone.busy = True
    peer = ScriptedPeer(lone)
    peer.establish()
    peer.answer_echo(lone.run(0))
    tunnel = lone.router.tunnels.get(1)
    assert tunnel.up
    lone.run(10_000)
    assert not tunnel.up
    items = lone.run(2000)
    (echo,) = [i for i in items if i.tunnel == 1]
    peer.answer_echo([echo])
    assert not tunnel.up
    peer.answer_echo(lone.run(200))
    assert tunnel.up


# An answer that is late


def misses(delay_ms):
    """How long after the last answered echo each end finds the path silent, and the echo times."""
    world = direct_world(10_000, delay_ms=delay_ms)
    world.net.cut(COA_A, COA_C)
    start = world.net.now
    while world.c.is_direct(world.a):
        world.send(world.c, world.a)
        world.send(world.a, world.c)
        world.net.run(50)
        assert world.net.now - start <= 5000
    times = [d.time for d in direct_keepalives(world, start, COA_C) if d.payload[24] == 8]
    return [b - a for a, b in itertools.pairwise(times[:3])]


@pytest.mark.parametrize(("delay_ms", "second"), [(10, 500), (100, 800), (200, 1000), (400, 1000)])
def test_after_a_miss_the_next_keepalives_follow_as_fast_as_the_path_allows(delay_ms, second):
    """R3.3.4-5: adapted to latency; F2 of the threats."""
    gaps = misses(delay_ms)
    assert 950 <= gaps[0] <= 1050
    assert second - 60 <= gaps[1] <= second + 60


def suspicions(lone):
    """Registration Requests to the home agent, which a suspicion brings about, by time."""
    return [t for t, i in lone.sent if i.tunnel < 0 and i.payload[0] == 1 and i.dst != HOA_C]


def test_first_late_answer_of_a_direct_path_makes_the_router_ask_its_home_agent():
    """F4, F5 of the threats: before the path counts as silent."""
    lone = Lone().registered()
    lone.busy = True
    peer = ScriptedPeer(lone)
    peer.establish()
    for _ in range(80):
        peer.answer_echo(lone.run(100))
    assert lone.router.tunnels.get(1).up
    asked = len(suspicions(lone))
    lone.run(2100)
    assert len(suspicions(lone)) == asked + 1
    assert lone.counter("direct_path_silent") == 0


def test_path_slower_than_the_keepalive_period_is_not_suspected():
    """R3.3.4-5"""
    world = direct_world(20_000, delay_ms=700)
    start = world.net.now
    world.traffic(world.a, world.c, 60_000)
    assert world.net.since(start, "request") == []


def home_flow(rx, seconds, answer=True):
    """Traffic to the home agent, one way unless `rx`; returns when the router asked it anew."""
    lone = Lone(lifetime=3600).registered()
    start = lone.now
    for sent in range(1, seconds + 1):
        lone.router.tunnel_traffic(lone.now, 0, rx * sent, sent)
        items = lone.run(1000)
        if answer and lone.requests(items):
            lone.answer_home(items, [(HOA_C, False, [(*LAN_C, "")])])
    return [t - start for t in suspicions(lone) if t > start]


def test_traffic_to_the_home_agent_without_any_back_makes_the_router_ask_within_seconds():
    """F4, F5 of the threats: a one-way flow must not hide a dead path."""
    assert home_flow(0, 9, answer=False)[0] == 3000


def test_traffic_both_ways_raises_no_suspicion():
    assert home_flow(1, 200) == []


def test_answer_to_the_traffic_within_three_seconds_ends_the_suspicion():
    lone = Lone(lifetime=3600).registered()
    start = lone.now
    for turn in range(100):
        lone.router.tunnel_traffic(lone.now, 0, turn // 2, (turn + 1) // 2)
        lone.run(1400)
    assert [t for t in suspicions(lone) if t > start] == []


def test_flow_that_has_one_direction_is_asked_about_less_and_less_often():
    """No more than each 10 s, then 20, then 30."""
    times = home_flow(0, 200)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert 10_000 <= gaps[0] < 15_000
    assert 20_000 <= gaps[1] < 25_000
    assert all(30_000 <= gap < 35_000 for gap in gaps[2:])
    assert len(gaps) >= 5


@pytest.mark.parametrize("what", ["echo", "signalling"])
def test_whatever_the_home_agent_sends_by_the_tunnel_ends_the_suspicion(what):
    lone = Lone(lifetime=3600).registered()
    start = lone.now
    for sent in range(1, 30):
        lone.router.tunnel_traffic(lone.now, 0, 0, sent)
        lone.run(1000)
        if what == "echo":
            lone.packet(ipv4.build_icmp_echo(lone.settings.home_agent, HOA_A, False, 1, 1, b""))
        else:
            lone.tunnelled(HOA_C, b"\x18\x00")
    assert [t for t in suspicions(lone) if t > start] == []


def test_keepalives_to_the_home_agent_stay_ten_seconds_apart_whatever_is_feared():
    """R3.3.4-5 A38: its own retries of an unanswered one apart."""
    lone = Lone(lifetime=3600, ha_keepalive_ms=1000).registered()
    start = lone.now
    for sent in range(1, 120):
        lone.router.tunnel_traffic(lone.now, 0, 0, sent)
        items = lone.run(1000)
        if lone.requests(items):
            lone.answer_home(items, [(HOA_C, False, [(*LAN_C, "")])])
    times = [t for t, i in lone.sent if i.tunnel == 0 and t > start]
    assert len(times) >= 5
    assert min(b - a for a, b in itertools.pairwise(times)) >= 10_000


# Timers


def test_timers_come_in_the_order_of_their_times_whatever_was_moved_or_disarmed():
    """Against the plain rule: the earliest of what is armed."""
    rng = random.Random(7)
    timers = Deadlines()
    plain = {}
    fired = 0
    now = 0
    for _ in range(20_000):
        key = (rng.choice(["keepalive", "renew", "rr"]), bytes([rng.randrange(40)]))
        match rng.randrange(8):
            case 0:
                timers.clear(*key)
                plain.pop(key, None)
            case 1:
                timers.clear_peer(key[1])
                plain = {k: when for k, when in plain.items() if k[1] != key[1]}
            case 2 | 3:
                now += rng.randrange(400)
                while (due := timers.pop_due(now)) is not None:
                    assert plain[due] == min(plain.values()) <= now
                    del plain[due]
                    fired += 1
                assert all(when > now for when in plain.values())
            case _:
                when = now + rng.randrange(2000)
                timers.set(key[0], when, key[1])
                plain[key] = when
        assert timers.get(*key) == plain.get(key)
        assert timers.next() == (min(plain.values()) if plain else None)
    assert fired > 1000


def test_moved_timers_leave_nothing_behind():
    """A timer that is put off all day does not fill the heap."""
    timers = Deadlines()
    timers.set("keepalive", 10**9, b"other")
    tracemalloc.start()
    for when in range(20_000):
        timers.set("register", 10**6 + when)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 16_384
    assert timers.next() == 10**6 + 19_999
