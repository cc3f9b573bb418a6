"""The correspondent role: a peer of the test registers with one router alone."""

import pytest

from haaro.wire import auth, extensions, ipv4, message, prefixes, registration, return_routability
from tests.core.helpers import (
    COA_A,
    COA_C,
    COA_C2,
    HOA_A,
    HOA_B,
    HOA_C,
    LAN_A,
    LAN_B,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
    snapshot,
)

KNOWN = ((HOA_C, False, [(*LAN_C, "")]),)


def pair(routers=KNOWN, **options):
    lone = Lone(**options).registered(routers)
    return lone, ScriptedPeer(lone).test()


def acks(reply):
    return [(k.code, k.prefix, k.plen) for k in reply.all(extensions.MobileNetworkAck)]


def test_known_router_is_accepted_with_tunnel_care_of_address_and_acks():
    """R3.3.3-i2 R3.3.3-12 R3.3.3-17 R3.3.3-18 R3.3.3-19 R3.3.3-20 R3.3.3-21 R3.3.3-8 R3.3.4-i1
    R5.4-1 R5.4-i1 R5.3-i1 R2-1 R11.2-1 R3-i2"""
    lone, peer = pair()
    items = peer.register()
    dst, reply = peer.reply_in(items)
    assert dst == COA_C
    assert items[0].tunnel == 0  # by the home agent, RFC 6521 8.2
    assert (reply.code, reply.lifetime, reply.home_address) == (0, 300, HOA_C)
    assert acks(reply) == [(0, *LAN_C)]
    assert reply.find(extensions.CareOfAddresses).addresses == [COA_A]
    assert reply.find(extensions.UdpTunnelReply).will_tunnel
    krm = return_routability.krm(*peer.tokens[:2])
    assert auth.verify_mobile_correspondent(reply, krm)
    echoed = reply.authenticator
    assert (echoed.home_nonce_index, echoed.care_of_nonce_index) == peer.tokens[2:]  # A32
    tunnel = lone.router.tunnels.of_peer(HOA_C)
    assert (tunnel.local, tunnel.remote, tunnel.remote_port) == (COA_A, COA_C, 434)
    assert lone.peer_status()["registered_with_us"]
    assert lone.peer_status()["binding_left_s"] == 300


def test_every_care_of_address_is_listed_the_used_one_first():
    """R5.4-1 R5.4-i1"""
    lone = Lone().registered(KNOWN)
    lone.router.uplink_changed(lone.now, 2, True, COA_C2)
    peer = ScriptedPeer(lone).test()
    _, reply = peer.reply_in(peer.register())
    assert reply.find(extensions.CareOfAddresses).addresses == [COA_A, COA_C2]


def test_networks_of_the_peer_go_direct_once_our_own_keepalive_was_answered():
    """R3.3.3-24 R3.3.4-3 R3.3.4-4 R3.1.2-i9"""
    lone, peer = pair(mutual_registration=False)
    assert peer.register()[1:] == []  # the mobile router sends the first keepalive
    assert lone.run(5000) == []
    assert (*LAN_C, 0, 0) in lone.router.forwarding_table()[0]
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 5, 1, b"first")
    answers = lone.packet(echo, 1)
    answers += lone.run(0)
    kinds = [ipv4.parse_icmp_echo(i.payload, ipv4.parse_ipv4(i.payload)) for i in answers]
    assert [k[0] for k in kinds] == [True, False]
    assert kinds[0][1:] == (5, 1, b"first")
    assert (*LAN_C, 0, 0) in lone.router.forwarding_table()[0]
    peer.answer_echo(answers)
    routes, sources = lone.router.forwarding_table()
    assert (*LAN_C, 1, -1) in routes
    assert (HOA_C, 32, 1, -1) in routes
    assert sources == [(HOA_C, 32, 1), (*LAN_C, 1)]


def test_request_without_networks_routes_only_the_host():
    """R3.3.2-4"""
    lone, peer = pair(mutual_registration=False)
    _, reply = peer.reply_in(peer.register(networks=()))
    assert acks(reply) == []
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 5, 1, b"first")
    peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
    routes = lone.router.forwarding_table()[0]
    assert (HOA_C, 32, 1, -1) in routes
    assert (*LAN_C, 0, 0) in routes


def test_unknown_router_is_asked_for_at_the_home_agent_before_the_answer():
    """R3.3.3-13 R3.1-3 R3.3-1 R3.2-i9 R11.2-i1 R3.1.2-i10"""
    lone, peer = pair(())
    lone.run(1000)
    items = peer.register()
    assert peer.reply_in(items) is None
    assert lone.router.tunnels.of_peer(HOA_C) is None
    solicitation = lone.run(0)
    (request,) = lone.requests(solicitation)
    capability = request.find(extensions.RouteOptimizationCapability)
    assert (capability.solicit, capability.home_address) == (True, HOA_C)
    dst, reply = peer.reply_in(lone.answer_home(solicitation, KNOWN))
    assert (dst, reply.code, acks(reply)) == (COA_C, 0, [(0, *LAN_C)])
    later = lone.requests(lone.run(250_000))
    assert all(r.find(extensions.RouteOptimizationCapability).solicit is False for r in later)


def test_claim_the_home_agent_does_not_confirm_is_unauthorized_and_not_routed():
    """R3.3.3-12 R3.3.3-14 R3.3.3-16 R3.1.2-i9 R11.2-1: a third router's, ours, everything."""
    for claim in (LAN_B, LAN_A, (bytes(4), 0), (HOA_A, 32), (LAN_C[0], 25), (LAN_C[0], 8)):
        lone, peer = pair((*KNOWN, (HOA_B, False, [(*LAN_B, "")])))
        lone.run(1000)
        assert peer.reply_in(peer.register(networks=(LAN_C, claim))) is None
        claimed = (ipv4.mask(*claim), claim[1])
        _, reply = peer.reply_in(lone.answer_home(lone.run(0), KNOWN))
        assert acks(reply) == [(0, *LAN_C), (2, *claimed)]
        echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 5, 1, b"first")
        peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
        routes, sources = lone.router.forwarding_table()
        assert claimed not in [r[:2] for r in routes if r[2] == 1]
        assert claimed not in [s[:2] for s in sources]
        assert (*LAN_C, 1, -1) in routes


def test_router_unknown_to_the_home_agent_is_refused_and_leaves_no_state():
    """R3.3.3-14 R3.2-i9"""
    for networks, code in (((LAN_C,), 147), ((), 129)):
        lone, peer = pair(())
        lone.run(1000)
        before = snapshot(lone.router, lone.now)
        peer.register(networks=networks)
        _, reply = peer.reply_in(lone.answer_home(lone.run(0), ()))
        assert (reply.code, reply.lifetime) == (code, 0)
        assert acks(reply) == [(2, *n) for n in networks]
        assert auth.verify_mobile_correspondent(reply, return_routability.krm(*peer.tokens[:2]))
        after = snapshot(lone.router, lone.now)
        assert after[1] == before[1]
        assert after[0]["peers"] == []


def test_unconfirmed_claim_is_not_asked_again_for_thirty_seconds():
    """C9: negative answers are kept 30 s."""
    lone, peer = pair(())
    lone.run(1000)
    peer.register()
    lone.answer_home(lone.run(0), ())
    lone.run(1000)
    assert peer.reply_in(peer.register())[1].code == 147
    assert lone.requests(lone.run(10_000)) == []
    lone.run(20_000)
    peer.test()
    assert peer.reply_in(peer.register()) is None
    assert len(lone.requests(lone.run(0))) == 1


def test_one_solicitation_is_in_flight_and_they_are_a_second_apart():
    """C9: solicitations one in flight, at least a second apart; waiting requests bounded."""
    lone = Lone().registered(())
    lone.run(1000)
    peers = []
    for n in range(12):
        hoa = ipv4.address(f"192.0.2.{160 + n}")
        peer = ScriptedPeer(lone, hoa, ipv4.address(f"203.0.113.{n + 1}")).test()
        peers.append(peer)
        assert peer.reply_in(peer.register(networks=())) is None
    assert lone.counter("peer_request_waiting_full") == 4
    start = lone.now
    asked = []
    items = lone.run(0)
    while items:
        (request,) = lone.requests(items)
        capability = request.find(extensions.RouteOptimizationCapability)
        asked.append((lone.now, capability.home_address))
        lone.answer_home(items, [(capability.home_address, False, [])])
        items = [i for i in lone.run(1000) if i.tunnel < 0 and i.payload[0] == 1]
        items = [i for i in items if i.dst == lone.settings.home_agent]
    assert [when - start for when, _ in asked] == [1000 * n for n in range(8)]
    assert {hoa for _, hoa in asked} == {p.hoa for p in peers[:8]}


def test_unanswered_solicitation_is_given_up_and_the_next_one_asked():
    lone, peer = pair(())
    lone.run(1000)
    peer.register()
    lone.run(5000)
    assert lone.counter("solicitation_unanswered") == 1
    assert lone.router.tunnels.of_peer(HOA_C) is None
    lone.run(5000)
    assert lone.counter("solicitation_unanswered") == 1
    peer.test().register()
    items = lone.run(0) or lone.run(20_000)
    _, reply = peer.reply_in(lone.answer_home(items[-1:], KNOWN))
    assert reply.code == 0


def test_soliciting_makes_room_in_a_full_cache():
    lone = Lone(cache_capacity=1).registered([(HOA_B, False, [])])
    peer = ScriptedPeer(lone).test()
    peer.register()
    _, reply = peer.reply_in(lone.answer_home(lone.run(0), KNOWN))
    assert reply.code == 0
    assert lone.peer_status(HOA_B) is None


def test_tokens_age_out_between_210_and_240_seconds():
    """R3.2.3-1 R3.2.3-i1 R10-i1 R3.3.3-i2 A31"""
    for issued_after, age, code in (
        (0, 239_000, 0),
        (0, 240_000, 203),
        (29_000, 210_000, 0),
        (29_000, 211_000, 203),
    ):
        lone = Lone().registered(KNOWN)
        ScriptedPeer(lone, HOA_B).test()  # first use of the nonce
        lone.run(issued_after)
        peer = ScriptedPeer(lone).test()
        lone.run(age)
        _, reply = peer.reply_in(peer.register())
        assert (issued_after, age, reply.code) == (issued_after, age, code)
        if code:
            assert reply.authenticator is None
            assert reply.identification == peer.number.to_bytes(8, "big")
            assert lone.router.tunnels.of_peer(HOA_C) is None


@pytest.mark.parametrize(
    ("home", "care_of", "lifetime", "code"),
    [(1, 0, 300, 201), (0, 1, 300, 202), (1, 1, 300, 203), (1, 0, 0, 201)],
)
def test_code_names_the_expired_nonce(home, care_of, lifetime, code):
    """R10-i1 R3.3.3-i2"""
    lone, peer = pair()
    index = (peer.tokens[2] + 99 * home, peer.tokens[3] + 99 * care_of)
    _, reply = peer.reply_in(peer.register(index=index, lifetime=lifetime))
    assert (reply.code, reply.authenticator) == (code, None)
    assert lone.counter("peer_request_nonce_expired") == 1


def test_care_of_index_is_ignored_when_deregistering():
    """R5.3-i2 R3.2-i8"""
    lone, peer = pair()
    peer.register()
    _, reply = peer.reply_in(peer.register(lifetime=0, index=(peer.tokens[2], 65_000)))
    assert (reply.code, reply.lifetime) == (0, 0)
    assert not lone.peer_status()["registered_with_us"]


FORGED = {
    "wrong key": ("peer_request_bad_authenticator", {"key": b"z" * 20}),
    "care-of token's source": ("peer_request_bad_authenticator", {"source": COA_C2}),
    "own address": ("peer_request_own_address", {"home_address": HOA_A}),
    "another router's address": ("peer_request_bad_authenticator", {"home_address": HOA_B}),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_request_changes_nothing_and_is_not_answered(name):
    """R3.3.3-i2 C3 of the threats"""
    counter, how = FORGED[name]
    lone, peer = pair()
    before = snapshot(lone.router, lone.now)
    assert peer.register(**how) == []
    assert lone.router.counters.as_dict() == {counter: 1}
    assert snapshot(lone.router, lone.now) == before


def test_deregistration_key_never_registers_nor_the_reverse():
    """A33 C8 of the threats"""
    lone, peer = pair()
    weak = return_routability.krm_deregistration(peer.tokens[0])
    strong = return_routability.krm(*peer.tokens[:2])
    before = snapshot(lone.router, lone.now)
    assert peer.register(key=weak) == []
    assert peer.register(key=strong, lifetime=0) == []
    assert lone.counter("peer_request_bad_authenticator") == 2
    assert snapshot(lone.router, lone.now) == before


def test_request_with_none_or_two_authenticators_or_one_of_a_home_agent_is_dropped():
    """A42 A07"""
    lone, peer = pair()
    before = snapshot(lone.router, lone.now)
    good = peer.request()
    twice = bytearray(good)
    auth.append_mobile_correspondent(twice, b"k" * 20, 1, 1)
    both = bytearray(good)
    auth.append_mobile_home(both, 256, "hmac-sha256", bytes(32))
    home = bytearray(good[:24])
    auth.append_mobile_home(home, 256, "hmac-sha256", bytes(32))
    for data in (good[:24], twice, both, home):
        assert lone.tunnelled(COA_C, data) == []
    assert lone.router.counters.as_dict() == {"peer_request_authenticators": 4}
    assert snapshot(lone.router, lone.now) == before


def test_reserved_of_the_authenticator_is_ignored():
    """R5.3-1"""
    lone, peer = pair()
    data = bytearray(peer.request())
    data[-21] = 0xEE
    assert peer.reply_in(lone.tunnelled(COA_C, data))[1].code == 0


def test_request_outside_the_home_agents_tunnel_is_dropped():
    lone, peer = pair()
    data = peer.request()
    before = snapshot(lone.router, lone.now)
    assert lone.outside(COA_C, data) == []
    assert lone.router.counters.as_dict() == {"request_on_wrong_path": 1}
    assert snapshot(lone.router, lone.now) == before


def test_other_home_agent_is_answered_136():
    """A43"""
    lone, peer = pair()
    _, reply = peer.reply_in(peer.register(home_agent=ipv4.address("192.0.2.9")))
    assert reply.code == 136
    assert lone.router.tunnels.of_peer(HOA_C) is None


def test_request_without_udp_tunnel_is_answered_142():
    """R3.3.3-9 R3.3.3-10 R3.3.4-1: only UDP encapsulation is offered."""
    lone, peer = pair()
    _, reply = peer.reply_in(peer.register(udp=False))
    assert reply.code == registration.UDP_ENCAPSULATION_UNAVAILABLE
    assert lone.router.tunnels.of_peer(HOA_C) is None


def test_impossible_prefix_length_is_acknowledged_with_code_one():
    """RFC 5177 4.2 [A49]"""
    _, peer = pair()
    _, reply = peer.reply_in(peer.register(networks=(LAN_C, (LAN_B[0], 40))))
    assert (1, 40) in [(code, plen) for code, _, plen in acks(reply)]
    assert (0, *LAN_C) in acks(reply)
    assert reply.code == 0


def test_malformed_known_extension_is_answered_134():
    lone, peer = pair()
    number = lone.ntp().to_bytes(8, "big")
    request = registration.build_request(0x22, 300, HOA_C, lone.settings.home_agent, COA_C, number)
    extensions.append_udp_tunnel_request(request, True)
    extensions.append_udp_tunnel_request(request, True)
    krm = return_routability.krm(*peer.tokens[:2])
    auth.append_mobile_correspondent(request, krm, *peer.tokens[2:])
    assert peer.reply_in(lone.tunnelled(COA_C, request))[1].code == 134
    assert lone.router.tunnels.of_peer(HOA_C) is None


@pytest.mark.parametrize("offset_s", [-3600, -16, -15, 0, 15, 17, 3600])
def test_timestamp_window_is_fifteen_seconds(offset_s):
    """R3.3.3-7 R11.1-i1 A45"""
    lone, peer = pair()
    number = lone.ntp(offset_s * 1000)
    _, reply = peer.reply_in(peer.register(number=number))
    if abs(offset_s) <= 15:
        assert reply.code == 0
        return
    assert reply.code == 133
    assert reply.identification[4:] == number.to_bytes(8, "big")[4:]
    assert int.from_bytes(reply.identification[:4], "big") == lone.ntp() >> 32
    assert auth.verify_mobile_correspondent(reply, return_routability.krm(*peer.tokens[:2]))
    assert lone.router.tunnels.of_peer(HOA_C) is None


def test_replayed_and_older_requests_change_nothing():
    """R3.3.3-7 R2 of the threats"""
    lone, peer = pair()
    data = peer.request()
    lone.tunnelled(COA_C, data)
    before = snapshot(lone.router, lone.now)
    assert peer.reply_in(lone.tunnelled(COA_C, data))[1].code == 133
    older = peer.request(number=peer.number - 1)
    assert peer.reply_in(lone.tunnelled(COA_C, older))[1].code == 133
    assert lone.counter("peer_request_replayed") == 2
    assert snapshot(lone.router, lone.now) == before


@pytest.mark.parametrize("back_s", [5, 60, 3600, 10 * 365 * 86400])
def test_a_clock_that_went_back_costs_a_peer_one_more_exchange(back_s):
    """R3.3.3-7: the peer is told of a second that is accepted; what it sent before is not."""
    lone, peer = pair()
    captured = peer.request()
    newest = peer.number
    assert peer.reply_in(lone.tunnelled(COA_C, captured))[1].code == 0
    lone.router._ctx.clock.offset_ms -= back_s * 1000
    lone.run(1000)
    answer = peer.reply_in(lone.tunnelled(COA_C, peer.request(number=lone.ntp(-back_s * 1000))))[1]
    assert answer.code == 133
    assert peer.reply_in(lone.tunnelled(COA_C, captured))[1].code == 133
    again = (int.from_bytes(answer.identification[:4], "big") + 1) << 32
    assert again > newest
    assert peer.reply_in(lone.tunnelled(COA_C, peer.request(number=again)))[1].code == 0
    assert peer.reply_in(lone.tunnelled(COA_C, captured))[1].code == 133


@pytest.mark.parametrize("after_s", [1, 10, 14, 16, 60, 239, 280])
def test_replay_after_the_binding_is_gone_is_refused(after_s):
    """C5 of the threats: Identification is kept while the nonce lives."""
    lone, peer = pair()
    data = peer.request()
    lone.tunnelled(COA_C, data)
    peer.register(lifetime=0)
    lone.run(after_s * 1000)
    before = snapshot(lone.router, lone.now)
    found = peer.reply_in(lone.tunnelled(COA_C, data))
    assert found[1].code in (133, 203)
    assert snapshot(lone.router, lone.now) == before


def test_lifetime_is_capped_at_420_seconds():
    """A30 C10 of the threats"""
    lone, peer = pair(mutual_registration=False)
    _, reply = peer.reply_in(peer.register(lifetime=65_535))
    assert reply.lifetime == 420
    lone.run(419_000)
    assert lone.peer_status()["registered_with_us"]
    lone.run(2_000)
    assert not lone.peer_status()["registered_with_us"]
    lone.run(3_000)
    assert lone.router.tunnels.of_peer(HOA_C) is None


def test_deregistration_removes_routes_at_once_and_the_tunnel_after_a_grace():
    """R3.3.6-2 R3.3.6-3 R3.3.6-i1"""
    lone, peer = pair(mutual_registration=False)
    peer.register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 5, 1, b"first")
    peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
    assert (*LAN_C, 1, -1) in lone.router.forwarding_table()[0]
    peer.register(lifetime=0)
    routes, sources = lone.router.forwarding_table()
    assert (*LAN_C, 0, 0) in routes
    assert (*LAN_C, 1) in sources  # packets in flight are still taken
    lone.run(2_900)
    assert (*LAN_C, 1) in lone.router.forwarding_table()[1]
    lone.run(100)
    assert lone.router.tunnels.of_peer(HOA_C) is None
    assert lone.router.forwarding_table()[1] == []


def test_new_care_of_address_retargets_the_tunnel():
    """R3.3.6-i2 R3.3.3-19"""
    lone, peer = pair()
    peer.register()
    peer.coa = COA_C2
    peer.test()
    _, reply = peer.reply_in(peer.register())
    assert reply.code == 0
    tunnel = lone.router.tunnels.of_peer(HOA_C)
    assert (tunnel.id, tunnel.remote, tunnel.up) == (1, COA_C2, False)


def test_moved_tunnel_carries_traffic_only_after_a_new_proof():
    """R3.3.4-3 R3.3.6-6"""
    lone, peer = pair(mutual_registration=False)
    peer.register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 5, 1, b"first")
    peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
    assert (*LAN_C, 1, -1) in lone.router.forwarding_table()[0]
    peer.coa = COA_C2
    peer.test().register()
    assert (*LAN_C, 0, 0) in lone.router.forwarding_table()[0]
    lone.run(300)
    peer.answer_echo(lone.packet(echo, 1) + lone.run(300))
    assert (*LAN_C, 1, -1) in lone.router.forwarding_table()[0]


def test_same_request_again_keeps_the_tunnel_as_it_is():
    """R3.3.3-18"""
    lone, peer = pair(mutual_registration=False)
    peer.register()
    echo = ipv4.build_icmp_echo(HOA_C, HOA_A, False, 5, 1, b"first")
    peer.answer_echo(lone.packet(echo, 1) + lone.run(0))
    peer.register()
    assert lone.router.tunnels.of_peer(HOA_C).up


def test_translated_source_address_is_no_error():
    """R6.1-i4 R3.2-i5 A35: tokens and tunnel are of the address on the wire."""
    lone = Lone().registered(KNOWN)
    nat = ipv4.address("203.0.113.200")
    peer = ScriptedPeer(lone, coa=nat).test()
    private = ipv4.address("192.168.1.2")
    dst, reply = peer.reply_in(peer.register(care_of_address=private))
    assert (dst, reply.code) == (nat, 0)
    assert lone.router.tunnels.of_peer(HOA_C).remote == nat


def test_reply_goes_to_the_port_the_request_came_from():
    lone, peer = pair()
    (item, *_) = lone.tunnelled(COA_C, peer.request(), sport=50_000)
    ip = ipv4.parse_ipv4(item.payload)
    assert ipv4.parse_udp(item.payload, ip)[:2] == (434, 50_000)


def test_requests_are_rate_limited():
    lone, peer = pair()
    data = peer.request(key=b"z" * 20)
    for _ in range(60):
        lone.tunnelled(COA_C, data)
    assert lone.counter("peer_request_bad_authenticator") == 20
    assert lone.counter("peer_request_rate_limited") == 40


def test_restarted_correspondent_does_not_know_old_indices():
    """C6 of the threats, A05"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    old = world.c.router.cache.get(HOA_A).home_nonce_index
    lone = Lone(seed=77).registered(KNOWN)
    peer = ScriptedPeer(lone).test()
    peer.tokens = (*peer.tokens[:2], old, old)
    assert peer.reply_in(peer.register())[1].code == 203


@pytest.mark.parametrize("which", [0, 1])
def test_static_krm_is_taken_without_return_routability(which):
    """R3.2-i1 R3.3.3-1 R5.3-i2 A58: the current key, then the next."""
    keys = [b"k" * 20, b"n" * 20]
    lone = Lone(static_krm={HOA_C: keys}).registered(KNOWN)
    peer = ScriptedPeer(lone)
    _, reply = peer.reply_in(peer.register(key=keys[which], index=(0, 0), lifetime=3000))
    assert (reply.code, reply.lifetime) == (0, 3000)
    assert auth.verify_mobile_correspondent(reply, keys[which])
    _, reply = peer.reply_in(peer.register(key=keys[which], index=(0, 0), lifetime=0))
    assert reply.code == 0


def test_peer_with_static_krm_is_never_taken_by_return_routability():
    """A58: no downgrade."""
    lone = Lone(static_krm={HOA_C: [b"k" * 20]}).registered(KNOWN)
    peer = ScriptedPeer(lone).test()
    before = snapshot(lone.router, lone.now)
    assert peer.register() == []
    assert lone.router.counters.as_dict() == {"peer_request_bad_authenticator": 1}
    assert snapshot(lone.router, lone.now) == before


def test_table_of_identifications_is_bounded(monkeypatch):
    """A full table refuses a new router; it never forgets a living one."""
    from haaro.core import correspondent

    monkeypatch.setattr(correspondent, "_MAX_IDENTIFICATIONS", 2)
    routers = [(ipv4.address(f"192.0.2.{160 + n}"), False, []) for n in range(3)]
    lone = Lone().registered(routers)
    peers = [ScriptedPeer(lone, r[0], ipv4.address("203.0.113.7")).test() for r in routers]
    for peer in peers:
        peer.register(networks=())
    assert lone.counter("identification_table_full") == 1
    assert lone.router.tunnels.of_peer(peers[2].hoa) is None
    assert lone.router.tunnels.of_peer(peers[1].hoa) is not None


def test_full_tunnel_table_refuses_with_130(monkeypatch):
    from haaro.core import tunnels

    monkeypatch.setattr(tunnels, "MAX_TUNNELS", 2)
    lone = Lone().registered([(HOA_B, False, []), (HOA_C, False, [])])
    ScriptedPeer(lone, HOA_B).test().register(networks=())
    peer = ScriptedPeer(lone).test()
    _, reply = peer.reply_in(peer.register(networks=()))
    assert reply.code == 130
    assert lone.counter("tunnel_table_full") == 1


def test_prefix_that_the_home_agent_gave_later_is_found_by_asking():
    """R3.3.3-13 R3.4-i1"""
    world = Triangle()
    extra = ipv4.prefix("10.33.0.0/24")
    world.ha.authorize(world.c, [LAN_C, extra])
    world.c.settings.networks.append(extra)
    world.c.router.registration.refresh(world.net.now)
    world.net.run(2000)
    world.make_direct(world.c, world.a)
    world.net.run(1000)
    assert (*extra, 1, -1) in world.a.routes


def test_advertisement_is_the_only_source_of_prefixes():
    """R11.2-i1: what a request says is never put in the cache."""
    lone, peer = pair([(HOA_C, False, [])])
    lone.run(1000)
    peer.register(networks=(LAN_C,))
    lone.answer_home(lone.run(0), [(HOA_C, False, [])])
    assert [n["prefix"] for n in lone.peer_status()["networks"]] == ["192.0.2.131/32"]
    assert message.parse(peer.request()).find(extensions.MobileNetworkRequest).prefix == LAN_C[0]
    assert prefixes.build_advertisement([(HOA_C, False, [])])[1] == 1


def test_end_that_worked_before_is_taken_although_the_request_came_from_a_nat():
    """R6.1-i2 [A57]: two behind one NAT meet inside; until then the NAT's address is tried."""
    lone = Lone().registered(KNOWN)
    nat = ipv4.address("203.0.113.200")
    peer = ScriptedPeer(lone, coa=nat).test()
    lone.router.cache.get(HOA_C).worked(COA_A, COA_C)
    assert peer.reply_in(peer.register(care_of_address=COA_C))[1].code == 0
    assert lone.router.tunnels.of_peer(HOA_C).remote == COA_C
