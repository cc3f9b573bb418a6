"""Return routability, both roles."""

import itertools

import pytest

from haaro.wire import ipv4, message, return_routability
from tests.core.helpers import (
    COA_A,
    COA_C,
    HOA_A,
    HOA_B,
    HOA_C,
    Lone,
    ScriptedPeer,
    Triangle,
    inner_udp,
    snapshot,
)

UNREACHED = "home address cannot be reached from this uplink"


def wanted(**options):
    lone = Lone(**options).registered()
    lone.router.traffic_wanted(lone.now, 0)
    return lone, lone.drain()


def test_hoti_goes_by_the_home_agent_and_coti_from_the_care_of_address():
    """R3.2-4 R3.2-5 R3.2-i2 R5.6-1 R5.6-i1 R5.7-1 R5.7-i1"""
    lone, (hoti, coti) = wanted()
    src, sport, dst, dport, found = inner_udp(hoti)
    assert (hoti.tunnel, src, sport, dst, dport) == (0, HOA_A, 434, HOA_C, 434)
    assert found.type == 24
    assert (coti.tunnel, coti.uplink, coti.dst, coti.dport) == (-1, 0, HOA_C, 434)
    assert message.parse(coti.payload).type == 25
    assert len(found.cookie) == 8
    assert found.cookie != message.parse(coti.payload).cookie
    assert lone.peer_status()["rrstate"] == "IN PROGRESS"


def test_both_tokens_make_rrstate_active_and_the_request_follows_at_once():
    """R3.2-i6 R3.2-i7 R3.1.2-i8"""
    lone, items = wanted()
    peer = ScriptedPeer(lone)
    assert peer.answer_tests(items, care_of=False) == []
    assert lone.peer_status()["rrstate"] == "IN PROGRESS"
    (item,) = peer.answer_tests(items, home=False)
    assert lone.peer_status()["rrstate"] == "ACTIVE"
    assert message.parse(item.payload).type == 1
    record = lone.router.cache.get(HOA_C)
    assert (record.home_nonce_index, record.home_keygen_token) == (7, b"HOMETOKN")
    assert record.care_of_nonce_indices == {COA_A: 8}
    assert record.care_of_keygen_tokens == {COA_A: b"COATOKEN"}
    assert record.krms == []  # an RR-derived KRm is never kept


def test_unanswered_test_is_sent_again_alone_each_second_then_more_slowly():
    """F1 of the threats"""
    lone, items = wanted()
    ScriptedPeer(lone).answer_tests(items, care_of=False)
    start = lone.now
    lone.run(13_000)
    again = [(when, i) for when, i in lone.sent if when > start and i.dst == HOA_C]
    assert [i.payload[0] for _, i in again[:5]] == [25, 25, 25, 25, 25]
    times = [start] + [when for when, _ in again[:5]]
    assert [(b - a) // 1000 for a, b in itertools.pairwise(times)] == [1, 1, 1, 1, 2]
    assert lone.counter("return_routability_unanswered") == 1


def test_return_routability_gets_through_a_loss_of_a_fifth():
    """F1 of the threats: within 30 s in 95 of 100 cases, and registered all along."""
    done = 0
    for seed in range(60):
        world = Triangle(loss=0.2, seed=seed)
        for _ in range(30):
            world.send(world.c, world.a)
            world.net.run(1000)
            assert world.c.router.registration.registered
            if world.c.peer(world.a)["rrstate"] == "ACTIVE":
                done += 1
                break
    assert done >= 57


def test_coti_unanswered_while_hoti_is_answered_names_the_uplink():
    """R3.2-7: and RRSTATE never stays IN PROGRESS."""
    lone, items = wanted()
    ScriptedPeer(lone).answer_tests(items, care_of=False)
    lone.run(1500)
    assert lone.peer_status()["reason"] == UNREACHED
    lone.run(60_000)
    assert (lone.peer_status()["rrstate"], lone.peer_status()["reason"]) == ("INACTIVE", UNREACHED)
    assert lone.counter("return_routability_unanswered") == 1


def test_failed_return_routability_is_tried_again_later_only_while_traffic_wants_it():
    lone, _ = wanted()
    start = lone.now
    for _ in range(600):
        lone.run(1000)
        lone.router.traffic_wanted(lone.now, 0)
        lone.drain()
    times = [when for when, i in lone.sent if i.tunnel < 0 and i.payload[0] == 25]
    assert len([t for t in times if t > start + 300_000]) < 60
    assert lone.peer_status()["reason"] == "the peer does not answer return routability" or (
        lone.peer_status()["rrstate"] == "IN PROGRESS"
    )
    lone.run(60_000)
    count = len(lone.sent)
    assert not [i for i in lone.run(200_000) if i.payload[0] == 25]
    assert len(lone.sent) > count  # the home agent is still served


def good_tests(lone, items):
    """The good HoT and CoT that answer these Transmits."""
    hoti = inner_udp(items[0])[4]
    coti = message.parse(items[1].payload)
    return (
        return_routability.build_test(26, 7, hoti.cookie, b"HOMETOKN"),
        return_routability.build_test(27, 8, coti.cookie, b"COATOKEN"),
    )


@pytest.mark.parametrize(
    ("counter", "deliver"),
    [
        ("test_cookie_mismatch", lambda t, hot, cot: t.tunnelled(HOA_C, hot[:4] + b"x" + hot[5:])),
        ("test_cookie_mismatch", lambda t, hot, cot: t.outside(HOA_C, cot[:11] + b"x" + cot[12:])),
        ("test_cookie_mismatch", lambda t, hot, cot: t.outside(HOA_C, cot, sport=435)),
        ("test_not_awaited", lambda t, hot, cot: t.tunnelled(HOA_B, hot)),
        ("test_not_awaited", lambda t, hot, cot: t.outside(HOA_B, cot)),
        ("hot_on_wrong_path", lambda t, hot, cot: t.outside(HOA_C, hot)),
        ("cot_on_wrong_path", lambda t, hot, cot: t.tunnelled(HOA_C, cot)),
        ("tunnelled_not_for_us", lambda t, hot, cot: t.tunnelled(HOA_C, hot, dst=HOA_B)),
        ("not_our_care_of_address", lambda t, hot, cot: t.outside(HOA_C, cot, dst=HOA_A)),
        ("wire_message_truncated", lambda t, hot, cot: t.tunnelled(HOA_C, hot[:-1])),
    ],
)
def test_test_message_that_does_not_match_changes_nothing(counter, deliver):
    """R3.2-i2: the cookie binds the exchange. R5.8-1 R5.9-1"""
    lone, items = wanted()
    hot, cot = good_tests(lone, items)
    before = snapshot(lone.router, lone.now)
    assert deliver(lone, hot, cot) == []
    assert lone.router.counters.as_dict() == {counter: 1}
    assert snapshot(lone.router, lone.now) == before


def test_cot_to_another_of_our_addresses_is_not_taken():
    """R3.2-i2: the care-of token is of the address that asked."""
    lone, items = wanted()
    _, cot = good_tests(lone, items)
    lone.router.uplink_changed(lone.now, 1, True, COA_C)
    lone.outside(HOA_C, cot, dst=COA_C, uplink=1)
    assert lone.router.counters.as_dict() == {"test_other_address": 1}
    assert lone.router.cache.get(HOA_C).care_of_keygen_tokens == {}


def test_cookie_is_used_once():
    lone, items = wanted()
    hot, _ = good_tests(lone, items)
    lone.tunnelled(HOA_C, hot)
    forged = hot[:12] + b"FORGEDTK"
    lone.tunnelled(HOA_C, forged)
    assert lone.router.cache.get(HOA_C).home_keygen_token == b"HOMETOKN"
    assert lone.counter("test_not_awaited") == 1


def test_reserved_of_hot_and_cot_is_ignored():
    """R5.8-1 R5.9-1"""
    lone, items = wanted()
    hot, cot = (bytes([d[0], 0xEE]) + d[2:] for d in good_tests(lone, items))
    lone.tunnelled(HOA_C, hot)
    lone.outside(HOA_C, cot)
    assert lone.peer_status()["rrstate"] == "ACTIVE"


def test_random_answers_are_never_accepted():
    """C13 of the threats."""
    lone, _ = wanted()
    before = snapshot(lone.router, lone.now)
    for n in range(300):
        cookie = (n * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big")
        lone.tunnelled(HOA_C, return_routability.build_test(26, n, cookie, b"HOMETOKN"))
        lone.outside(HOA_C, return_routability.build_test(27, n, cookie, b"COATOKEN"))
    assert snapshot(lone.router, lone.now) == before


# correspondent role


def test_cr_answers_to_the_source_with_cookie_index_and_token():
    """R3.2-1 R3.2-2 R3.2-3 R3.2-i3 R5.8-i1 R5.9-i1 R5.6-2 R5.7-2"""
    lone = Lone().registered()
    answers = []
    for kind, source in ((24, HOA_C), (25, COA_C)):
        data = bytearray(return_routability.build_init(kind, b"\x05" * 8))
        data[1] = 0xEE  # Reserved is ignored
        (item,) = lone.tunnelled(source, data, sport=40000)
        src, sport, dst, dport, found = inner_udp(item)
        assert (item.tunnel, src, sport, dst, dport) == (0, HOA_A, 434, source, 40000)
        assert (found.type, found.cookie) == (kind + 2, b"\x05" * 8)
        answers.append(found)
    assert answers[0].nonce_index == answers[1].nonce_index != 0
    assert answers[0].token != answers[1].token


def test_tokens_are_bound_to_address_and_kind():
    """R3.2-i4 R3.2-i5"""
    lone = Lone().registered()
    tokens = set()
    for kind in (24, 25):
        for source in (HOA_C, COA_C):
            (item,) = lone.tunnelled(source, return_routability.build_init(kind, b"\x05" * 8))
            tokens.add(inner_udp(item)[4].token)
    assert len(tokens) == 4


def test_cr_keeps_no_state_for_tests():
    """R3.2-i9 R11.1-i1"""
    lone = Lone().registered()
    before = snapshot(lone.router, lone.now)
    deadline = lone.router.next_deadline()
    for n in range(90):
        source = ipv4.address(f"203.0.113.{n + 1}")
        lone.tunnelled(source, return_routability.build_init(24 + n % 2, bytes(8)))
    assert snapshot(lone.router, lone.now) == before
    assert lone.router.next_deadline() == deadline


def test_tests_are_rate_limited_by_source_and_in_all():
    """C1 of the threats: 20 a second from one source, 100 in all from strangers."""
    lone = Lone().registered()
    data = return_routability.build_init(24, bytes(8))
    assert sum(len(lone.tunnelled(HOA_C, data)) for _ in range(50)) == 20
    stranger = ipv4.address("203.0.114.1")
    answered = sum(len(lone.tunnelled(stranger, data)) for _ in range(50))
    assert answered == 20
    answered += sum(
        len(lone.tunnelled(ipv4.address(f"203.0.113.{n + 1}"), data)) for n in range(200)
    )
    assert answered == 100
    assert lone.counter("test_init_rate_limited") == 30 + 150
    lone.run(1000)
    assert len(lone.tunnelled(HOA_C, data)) == 1


@pytest.mark.parametrize("options", [{"advertise": False}, {"route_optimization": False}])
def test_router_that_does_not_advertise_is_no_correspondent(options):
    lone = Lone(**options).registered()
    assert lone.tunnelled(HOA_C, return_routability.build_init(24, bytes(8))) == []
    assert lone.counter("correspondent_role_off") == 1


def test_tests_outside_or_by_a_direct_tunnel_are_dropped():
    """A56: HoTI or HoT out of a direct tunnel is counted and dropped."""
    lone = Lone().registered()
    ScriptedPeer(lone).establish()
    data = return_routability.build_init(24, bytes(8))
    hot = return_routability.build_test(26, 1, bytes(8), bytes(8))
    before = snapshot(lone.router, lone.now)
    assert lone.outside(HOA_C, data) == lone.tunnelled(HOA_C, data, tunnel=1) == []
    assert lone.tunnelled(HOA_C, hot, tunnel=1) == []
    assert lone.router.counters.as_dict() == {"hoti_on_wrong_path": 2, "hot_on_wrong_path": 1}
    assert snapshot(lone.router, lone.now) == before


def test_nonces_change_every_thirty_seconds_and_start_anywhere():
    """R3.2.2-1 R3.2.2-3 R3.2.2-i1 R3.2.1-2 R3.2.1-3 R3.2.1-4 R3.2.3-2 R3.2.3-i2 A05"""
    starts = set()
    for seed in range(8):
        drawn = []
        lone = Lone(seed=seed).registered()
        nonces = lone.router._correspondent.nonces
        index, nonce, kcr = nonces.current(lone.now)
        drawn.append((index, nonce, kcr))
        assert (len(nonce), len(kcr)) == (8, 16)
        assert nonces.current(lone.now + 29_999) == (index, nonce, kcr)
        second = nonces.current(lone.now + 30_000)
        assert second[0] == (index + 1) & 0xFFFF or (index, second[0]) == (0xFFFF, 1)
        assert second[1] != nonce
        assert second[2] != kcr
        starts.add(index)
    assert len(starts) == 8


def test_nonce_index_zero_is_skipped():
    """A58: index 0 means a static KRm."""
    lone = Lone().registered()
    nonces = lone.router._correspondent.nonces
    seen = []
    for n in range(65_600):
        seen.append(nonces.current(n * 30_000)[0])
    assert 0 not in seen
    assert len(set(seen)) == 65_535


def test_kcr_is_never_shown_nor_sent():
    """R3.2.1-1"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    for node in (world.a, world.c):
        _, nonce, kcr = node.router._correspondent.nonces.current(world.net.now)
        for secret in (nonce, kcr, node.settings.key):
            assert not any(secret in d.payload for d in world.net.captured)
            assert secret.hex() not in str(node.router.status(world.net.now))
            assert repr(secret) not in str(node.router.status(world.net.now))


@pytest.mark.parametrize("seed", range(20))
def test_return_routability_completes_under_twenty_percent_loss(seed):
    """F1 of the threats: 20 % random loss both ways."""
    world = Triangle(register=False, loss=0.2, seed=seed)
    for node in (world.a, world.c):
        node.attach(0, world.coas[node])
        world.net.run_until(lambda node=node: node.router.registration.registered, 120_000)

    def up():
        world.send(world.c, world.a)
        return (world.c.peer(world.a) or {}).get("rrstate") == "ACTIVE"

    for _ in range(60):
        world.net.run(1000)
        if up():
            return
    raise AssertionError(world.net.diagram())
