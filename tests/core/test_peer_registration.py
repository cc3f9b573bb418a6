"""Our registrations with correspondents: one router alone with a scripted one; and pairs."""

import itertools

import pytest

from haaro.wire import auth, extensions, ipv4, message, return_routability
from tests.core.helpers import (
    COA_A,
    COA_C,
    COA_C2,
    HOA_A,
    HOA_B,
    HOA_C,
    LAN_A,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
    inner_udp,
    snapshot,
)


def requesting(**options):
    """A router whose request to C is on its way: (lone, peer, Transmits)."""
    lone = Lone(**options).registered()
    peer = ScriptedPeer(lone)
    lone.router.traffic_wanted(lone.now, 0)
    return lone, peer, peer.answer_tests(lone.drain())


def direct(lone, net=LAN_C):
    return [r for r in lone.router.forwarding_table()[0] if r[:2] == net and r[2] > 0]


def test_request_leaves_outside_to_the_home_address_of_the_cr():
    """R3.3.3-1 R3.3.3-2 R3.3.3-3 R3.3.3-4 R3.3.3-5 R3.3.3-6 R3.3.3-9 R3.3.3-10 R3.3.4-1 R3.3.3-i1
    R5.3-i1"""
    lone, peer, (item,) = requesting()
    assert (item.tunnel, item.uplink, item.dst, item.dport) == (-1, 0, HOA_C, 434)
    request = message.parse(item.payload)
    assert (request.home_address, request.care_of_address) == (HOA_A, COA_A)
    assert request.home_agent == lone.settings.home_agent
    assert request.lifetime == 420
    assert [(n.prefix, n.plen) for n in request.all(extensions.MobileNetworkRequest)] == [LAN_A]
    assert request.find(extensions.UdpTunnelRequest).force
    assert auth.verify_mobile_correspondent(request, peer.krm)
    proof = request.authenticator
    assert (proof.home_nonce_index, proof.care_of_nonce_index) == (7, 8)
    assert request.authenticators == 1


def test_accepted_reply_builds_the_tunnel_and_sends_the_first_keepalive_at_once():
    """R3.3.3-22 R3.3.3-23 R3.3.4-2 R3.3.4-3 R6.1-1 R6.1-i1"""
    lone, peer, items = requesting()
    peer.accept(items)
    tunnel = lone.router.tunnels.of_peer(HOA_C)
    assert (tunnel.local, tunnel.remote, tunnel.up) == (COA_A, COA_C, False)
    (item,) = lone.run(0)
    ip = ipv4.parse_ipv4(item.payload)
    echo = ipv4.parse_icmp_echo(item.payload, ip)
    assert (item.tunnel, ip.src, ip.dst, echo[0]) == (1, HOA_A, HOA_C, False)
    assert direct(lone) == []
    lone.run(100)
    peer.answer_echo([item])
    assert tunnel.up
    assert tunnel.rtt_ms == 100


def test_renewal_finds_the_tunnel_and_leaves_it_as_it_is():
    """R3.3.3-22"""
    lone, peer, items = requesting()
    lone.busy = True
    peer.accept(items)
    peer.answer_echo(lone.run(0))
    tunnel = lone.router.tunnels.of_peer(HOA_C)
    lone.events.clear()
    renewed = 0
    for _ in range(2000):
        items = lone.run(100)
        peer.answer_echo(items)
        items = peer.answer_tests(items)
        if peer.peer_requests(items):
            renewed += 1
            peer.accept(items)
    assert renewed
    assert lone.router.tunnels.of_peer(HOA_C) is tunnel and tunnel.up
    assert ("tunnel", tunnel.id) not in lone.events


def test_prefixes_wait_for_the_peers_own_registration_or_two_keepalive_periods():
    """R3.3.3-25 R3.3.3-26 R3.3.2-1 R3.3.2-4"""
    lone, peer, items = requesting()
    peer.accept(items)
    peer.answer_echo(lone.run(0))
    assert lone.router.tunnels.of_peer(HOA_C).up
    assert direct(lone) == []
    assert lone.peer_status()["reason"] == "the peer's own registration is awaited"
    for _ in range(19):
        peer.answer_echo(lone.run(100))
    assert direct(lone) == []
    peer.answer_echo(lone.run(100))
    assert direct(lone) == [(*LAN_C, 1, -1)]
    assert direct(lone, (HOA_C, 32)) == [(HOA_C, 32, 1, -1)]

    lone, peer, items = requesting()
    peer.accept(items)
    peer.answer_echo(lone.run(0))
    peer.test().register()
    assert direct(lone) == [(*LAN_C, 1, -1)]


def test_further_care_of_addresses_are_tried_when_the_first_is_silent():
    """R6.1-3 R3.3.4-i3 R3.3.6-6"""
    lone, peer, items = requesting()
    peer.accept(items, coas=(COA_C, COA_C2))
    lone.run(4000)
    seen = {lone.router.tunnels.of_peer(HOA_C).remote}
    lone.run(10_000)
    seen.add(lone.router.tunnels.of_peer(HOA_C).remote)
    assert seen == {COA_C, COA_C2}
    for _ in range(40):
        if lone.router.tunnels.of_peer(HOA_C).remote == COA_C2:
            peer.answer_echo([i for _, i in lone.sent[-1:]])
        lone.run(500)
    assert lone.router.tunnels.of_peer(HOA_C).up
    assert lone.router.tunnels.of_peer(HOA_C).remote == COA_C2


def test_unanswered_request_is_repeated_with_backoff_and_the_routes_go():
    """R3.3.6-9 R3.3.3-i1"""
    lone, peer, items = requesting()
    lone.busy = True
    peer.accept(items)
    for _ in range(30):
        peer.answer_echo(lone.run(100))
    assert direct(lone)
    start = len(lone.sent)
    removed = None
    for _ in range(2500):
        items = lone.run(100)
        peer.answer_echo(items)
        peer.answer_tests(items)
        if removed is None and not direct(lone):
            removed = lone.now
    requests = [(t, i) for t, i in lone.sent[start:] if i.dst == HOA_C and i.payload[0] == 1]
    first = requests[0][0]
    assert 7_000 <= removed - first <= 9_000
    gaps = [b - a for a, b in itertools.pairwise([t for t, _ in requests])]
    assert [g // 1000 for g in gaps[:5]] == [1, 2, 4, 8, 16] or gaps[0] >= 1000
    assert all(b >= a for a, b in itertools.pairwise(gaps[:5]))
    assert lone.peer_status()["reason"] == "the peer does not answer our Registration Request"
    assert lone.router.tunnels.of_peer(HOA_C).up
    numbers = [message.parse(i.payload).identification for _, i in requests]
    assert len(set(numbers)) == len(numbers)


def test_answer_after_all_brings_the_routes_back():
    """R3.3.6-9"""
    lone, peer, items = requesting()
    lone.busy = True
    peer.accept(items)
    for n in range(2500):
        items = lone.run(100)
        peer.answer_echo(items)
        peer.answer_tests(items)
        if n > 300 and not direct(lone):
            break
    assert direct(lone) == []
    last = [i for _, i in lone.sent if i.dst == HOA_C and i.payload[0] == 1][-1]
    peer.accept([last])
    peer.answer_echo(lone.run(1000))
    assert direct(lone)


def test_unanswered_first_request_is_repeated_while_traffic_wants_it():
    lone, peer, items = requesting()
    start = lone.now
    for _ in range(40):
        lone.router.traffic_wanted(lone.now, 0)
        items += lone.run(500)
    assert 4 <= len(peer.peer_requests(items)) <= 6
    assert lone.now - start == 20_000


def test_registration_of_the_peer_first_lets_all_its_prefixes_go_direct_at_once():
    """R3.3.3-26"""
    lone, peer, items = requesting()
    peer.test().register(networks=())
    peer.accept(items)
    peer.answer_echo(lone.run(0))
    assert direct(lone) == [(*LAN_C, 1, -1)]


def test_network_that_the_peer_refuses_is_told():
    """R3.3.3-14: the other side of it."""
    lone, peer, items = requesting()
    peer.accept(items, ack=2)
    assert lone.counter("peer_network_refused") == 1
    assert ("log", "warning", "192.0.2.131 refused 10.1.0.0/24") in lone.events


def test_request_is_given_up_when_no_traffic_wants_it():
    lone, _, items = requesting()
    assert len(items) == 1
    lone.run(120_000)
    count = len([1 for _, i in lone.sent if i.dst == HOA_C])
    lone.run(200_000)
    assert len([1 for _, i in lone.sent if i.dst == HOA_C]) == count
    assert count < 10


FORGED = {
    "peer_reply_bad_authenticator": {"key": b"z" * 20},
    "peer_reply_identification": {"identification": bytes(8)},
    "peer_reply_other_addresses": {"home_address": HOA_B},
}


@pytest.mark.parametrize("counter", FORGED)
def test_forged_reply_changes_nothing(counter):
    lone, peer, items = requesting()
    before = snapshot(lone.router, lone.now)
    assert peer.accept(items, **FORGED[counter]) == []
    assert lone.router.counters.as_dict() == {counter: 1}
    assert snapshot(lone.router, lone.now) == before


def test_reply_without_authenticator_or_elsewhere_changes_nothing():
    """R3.3.3-8"""
    lone, peer, items = requesting()
    (request,) = peer.peer_requests(items)
    before = snapshot(lone.router, lone.now)
    good = peer.reply(request)
    assert lone.outside(HOA_C, peer.reply(request, authenticate=False)) == []
    assert lone.outside(HOA_B, good) == []
    assert lone.outside(HOA_C, good, sport=435) == []
    assert lone.tunnelled(HOA_C, good) == []
    assert lone.router.counters.as_dict() == {
        "peer_reply_bad_authenticator": 1,
        "reply_unknown_source": 1,
        "reply_source_port": 1,
        "reply_on_wrong_path": 1,
    }
    assert snapshot(lone.router, lone.now) == before
    assert lone.outside(HOA_C, good) == []
    before = snapshot(lone.router, lone.now)
    lone.outside(HOA_C, good)  # again
    assert lone.counter("peer_reply_not_awaited") == 1
    assert snapshot(lone.router, lone.now) == before


def test_echoed_nonce_indices_of_the_reply_are_not_looked_at():
    """A32"""
    lone, peer, items = requesting()
    peer.accept(items, index=(0, 0))
    assert lone.peer_status()["registered"]


@pytest.mark.parametrize("code", [201, 202, 203])
def test_expired_nonce_restarts_return_routability(code):
    """R3.2-7 R3.3.3-11 R3.3.3-i3 R10-i1"""
    lone, peer, items = requesting()
    lone.router.traffic_wanted(lone.now, 0)
    assert peer.accept(items, code=code, authenticate=False) == []
    assert lone.peer_status()["rrstate"] == "INACTIVE"
    items = lone.run(1300)
    assert [i.payload[0] for i in items if i.tunnel < 0] == [25]
    assert lone.peer_status()["rrstate"] == "IN PROGRESS"
    items = peer.answer_tests(items)
    assert peer.peer_requests(items)


def test_forged_expiry_hints_never_take_the_direct_path_down_and_are_rate_limited():
    """A31 C7 of the threats"""
    lone, peer, items = requesting()
    lone.busy = True
    peer.accept(items)
    for _ in range(30):
        peer.answer_echo(lone.run(100))
    assert direct(lone)
    spoofed = 0
    for _ in range(3000):
        items = lone.run(100)
        peer.answer_echo(items)
        for request in peer.peer_requests(peer.answer_tests(items)):
            spoofed += 1
            lone.outside(HOA_C, peer.reply(request, code=203, authenticate=False))
        assert direct(lone)
    assert 3 < spoofed < 15


@pytest.mark.parametrize("code", [128, 129, 130, 134, 136, 142, 147])
def test_denial_is_told_and_retried_with_backoff(code):
    lone, peer, items = requesting()
    peer.accept(items, code=code, coas=())
    assert lone.counter("peer_registration_denied") == 1
    status = lone.peer_status()
    assert (status["last_code"], status["path"], status["registered"]) == (code, "ha", False)
    assert status["reason"].startswith("the peer denied our registration: ")
    for _ in range(60):
        lone.router.traffic_wanted(lone.now, 0)
        items = lone.run(1000)
        for request in peer.peer_requests(peer.answer_tests(items) + items):
            lone.outside(HOA_C, peer.reply(request, code=code, coas=()))
    assert lone.counter("peer_registration_denied") < 10


def test_clock_of_one_correspondent_is_followed_for_it_alone():
    """A45: 133 with a valid 49/2 sets an offset for that CR only."""
    lone, peer, items = requesting()
    (request,) = peer.peer_requests(items)
    high = (lone.ntp(600_000) >> 32).to_bytes(4, "big")
    answer = peer.reply(request, code=133, identification=high + request.identification[4:])
    assert lone.outside(HOA_C, answer) == []
    items = lone.run(1000)
    (request,) = peer.peer_requests(items)
    assert 0 <= int.from_bytes(request.identification[:4], "big") - (lone.ntp() >> 32) - 600 <= 2
    peer.accept(items)
    assert lone.peer_status()["registered"]
    assert lone.router.status(lone.now)["clock"]["offset_ms"] == 0
    lone.router.registration.refresh(lone.now)
    (home,) = lone.requests(lone.run(0))
    assert abs(int.from_bytes(home.identification[:4], "big") - (lone.ntp() >> 32)) <= 1


def test_unauthenticated_133_of_a_correspondent_moves_nothing():
    lone, peer, items = requesting()
    (request,) = peer.peer_requests(items)
    moved = bytes(4) + request.identification[4:]
    lone.outside(HOA_C, peer.reply(request, code=133, identification=moved, key=b"z" * 20))
    assert lone.counter("peer_reply_bad_authenticator") == 1
    assert lone.counter("peer_clock_resynchronised") == 0


def test_endless_133_of_a_correspondent_backs_off():
    lone, peer, items = requesting()
    count = 0
    for n in range(600):
        lone.router.traffic_wanted(lone.now, 0)
        for request in peer.peer_requests(peer.answer_tests(items) + items):
            count += 1
            high = (lone.ntp(600_000 * (n % 2)) >> 32).to_bytes(4, "big")
            identification = high + request.identification[4:]
            lone.outside(HOA_C, peer.reply(request, code=133, identification=identification))
        items = lone.run(100)
    assert 4 < count < 20


def test_code_two_waits_for_the_peers_own_registration():
    """R3.3.3-27 R10-i1 A36"""
    lone, peer, items = requesting()
    peer.accept(items, code=2)
    assert lone.router.tunnels.of_peer(HOA_C) is None
    assert not lone.peer_status()["registered"]
    assert lone.peer_status()["reason"] == "the peer's own registration is awaited"
    peer.test().register()
    assert lone.peer_status()["registered"]
    peer.answer_echo(lone.run(0))
    assert direct(lone)


def test_code_two_falls_back_to_idle_after_two_keepalive_periods():
    """R3.3.3-27 A36"""
    lone, peer, items = requesting()
    peer.accept(items, code=2)
    assert peer.peer_requests(lone.run(1999)) == []
    items = lone.run(2000)  # traffic still wants it: it is tried again, ever more slowly
    count = 0
    for _ in range(600):
        lone.router.traffic_wanted(lone.now, 0)
        for request in peer.peer_requests(peer.answer_tests(items) + items):
            count += 1
            lone.outside(HOA_C, peer.reply(request, code=2))
        items = lone.run(100)
    assert 1 < count < 8
    assert lone.router.tunnels.of_peer(HOA_C) is None


def test_smaller_home_address_with_a_request_pending_answers_two():
    """R3.3.3-i4 R10-i1"""
    lone, peer, items = requesting()  # A is smaller than C
    assert peer.peer_requests(items)
    _, reply = peer.reply_in(peer.test().register())
    assert reply.code == 2
    assert lone.router.tunnels.of_peer(HOA_C).remote == COA_C  # installed all the same


def test_larger_home_address_answers_zero_though_pending():
    """R3.3.3-i4 A36"""
    small = ipv4.address("192.0.2.128")
    lone = Lone().registered([(small, False, [(*LAN_C, "")])])
    peer = ScriptedPeer(lone, small)
    lone.router.traffic_wanted(lone.now, 0)
    assert peer.peer_requests(peer.answer_tests(lone.drain()))
    assert peer.reply_in(peer.test().register())[1].code == 0


def test_smaller_home_address_without_a_request_pending_answers_zero():
    """R3.3.3-i4"""
    lone = Lone(mutual_registration=False).registered()
    peer = ScriptedPeer(lone).test()
    assert peer.reply_in(peer.register())[1].code == 0


@pytest.mark.parametrize("seed", range(25))
def test_simultaneous_registration_ends_in_one_tunnel_each(seed):
    """C12 of the threats: both start at nearly the same time. R6.2-i1 R3.3.3-27 R3.3.3-i4"""
    world = Triangle(seed=seed, delay_ms=5 + seed % 7)
    world.a.router.registration.refresh(world.net.now)
    world.net.run(2000)  # A knows C now
    start = world.net.now
    first, second = (world.a, world.c) if seed % 2 else (world.c, world.a)
    world.send(first, second)
    world.net.run(seed % 9 * 4)
    world.send(second, first)
    took = world.net.run_until(lambda: world.both_direct(world.a, world.c), 5000)
    assert took < 2500
    world.net.run(5000)
    for node in (world.a, world.c):
        assert len([t for t in node.router.tunnels.all() if t.direct]) == 1
        assert not node.router.counters.as_dict(), world.net.diagram(start)


def test_mutual_registration_can_be_switched_off():
    """R6.5-i1"""
    lone = Lone(mutual_registration=False).registered()
    peer = ScriptedPeer(lone).test()
    peer.register()
    assert peer.peer_requests(lone.run(10_000)) == []
    assert not [i for _, i in lone.sent if i.payload[0] == 25]


def test_mutual_registration_follows_an_accepted_one():
    """R6.5-i1"""
    lone = Lone().registered()
    peer = ScriptedPeer(lone).test()
    items = peer.register()
    assert peer.peer_requests(peer.answer_tests(items))


def test_static_krm_skips_return_routability():
    """R3.2-i1 R3.3.3-1 R5.3-i2 A58"""
    key = b"k" * 20
    lone = Lone(static_krm={HOA_C: [key]}).registered()
    peer = ScriptedPeer(lone)
    lone.router.traffic_wanted(lone.now, 0)
    items = lone.drain()
    (request,) = peer.peer_requests(items)
    assert len(items) == 1
    assert auth.verify_mobile_correspondent(request, key)
    proof = request.authenticator
    assert (proof.home_nonce_index, proof.care_of_nonce_index) == (0, 0)
    lone.outside(HOA_C, peer.reply(request, code=203, authenticate=False))
    assert lone.peer_status()["rrstate"] == "ACTIVE"
    peer.accept(items, key=key, index=(0, 0))
    assert lone.peer_status()["registered"]


def test_pair_with_static_keys_goes_direct_without_return_routability():
    """R3.2-i1 R3.1.2-i8"""
    from haaro.core.settings import Settings

    def settings(name):
        options = Settings()
        options.static_krm = {"A": {HOA_C: [b"k" * 20]}, "C": {HOA_A: [b"k" * 20]}}.get(name, {})
        return options

    world = Triangle(settings=settings)
    start = world.net.now
    world.make_direct(world.c, world.a)
    assert world.net.since(start, "hoti", "coti") == []


def test_only_traffic_of_an_own_network_to_a_cached_prefix_triggers():
    """R3.3.1-1"""
    world = Triangle()
    start = world.net.now
    world.c.send_user(world.hosts[world.c], ipv4.address("10.77.0.1"))
    world.net.run(5000)
    assert world.net.since(start, "hoti", "coti") == []


def test_many_wanted_packets_start_one_exchange():
    lone = Lone().registered()
    for _ in range(50):
        lone.router.traffic_wanted(lone.now, 0)
    assert len(lone.drain()) == 2


def test_stop_deregisters_with_every_peer():
    """R3.3.6-1 R3.2-i8 R3.3.6-2 A33"""
    lone, peer, items = requesting()
    peer.accept(items)
    lone.run(1000)
    lone.router.stop(lone.now)
    (request,) = peer.peer_requests(lone.drain())
    assert request.lifetime == 0
    assert request.find(extensions.MobileNetworkRequest) is None
    weak = return_routability.krm_deregistration(b"HOMETOKN")
    assert auth.verify_mobile_correspondent(request, weak)
    proof = request.authenticator
    assert (proof.home_nonce_index, proof.care_of_nonce_index) == (7, 0)
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.c.router.stop(world.net.now)
    world.c.pump()
    world.net.run_until(lambda: world.c.router.stopped)
    world.net.run(5000)
    assert world.a.peer(world.c) is None or world.a.peer(world.c)["tunnel"] is None
    assert [r for r in world.a.routes if r[2] > 0] == []


def test_idle_direct_path_is_given_up():
    """R7-i1"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(1_200_000)
    assert not [t for n in (world.a, world.c) for t in n.router.tunnels.all() if t.direct]
    world.make_direct(world.c, world.a)


def test_stopping_router_starts_nothing_new():
    lone = Lone().registered()
    lone.router.stop(lone.now)
    lone.drain()
    lone.router.traffic_wanted(lone.now, 0)
    assert lone.drain() == []
    assert lone.tunnelled(HOA_C, return_routability.build_init(24, bytes(8))) == []


def test_hoti_never_goes_by_the_direct_tunnel_even_when_the_address_is_routed_there():
    """A56: R3.3.2-4 does not win over R3.2-i2."""
    lone, peer, items = requesting()
    peer.accept(items)
    for _ in range(30):
        peer.answer_echo(lone.run(100))
    assert direct(lone, (HOA_C, 32))
    start = len(lone.sent)
    lone.run(170_000)
    hoti = [
        i
        for _, i in lone.sent[start:]
        if i.tunnel >= 0 and ipv4.parse_ipv4(i.payload).protocol == 17
    ]
    assert hoti
    assert all(i.tunnel == 0 and inner_udp(i)[4].type == 24 for i in hoti)
