"""Malformed, forged and unexpected datagrams: no state changes, nothing raises, all is counted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haaro.wire import auth, ipv4, registration, return_routability, revocation, udp_tunnel
from tests.core.helpers import (
    COA_A,
    COA_C,
    HOA_A,
    HOA_B,
    HOA_C,
    HOST_A,
    HOST_C,
    Lone,
    ScriptedPeer,
    snapshot,
)
from tests.core.network import HOME_AGENT


def established():
    """A router with a direct tunnel, a request to the home agent pending and RR under way."""
    lone = Lone().registered([(HOA_C, False, []), (HOA_B, False, [])])
    peer = ScriptedPeer(lone)
    lone.router.traffic_wanted(lone.now, lone.router.cache.get(HOA_C).hint)
    peer.accept(peer.answer_tests(lone.drain()))
    peer.answer_echo(lone.run(0))
    peer.test().register(networks=())
    lone.router.traffic_wanted(lone.now, lone.router.cache.get(HOA_B).hint)
    lone.run(1000)
    lone.router.registration.refresh(lone.now)
    items = lone.run(0)
    lone.router.counters._counts.clear()
    return lone, peer, items


def total(lone):
    return sum(lone.router.counters.as_dict().values())


def templates(lone, peer, items):
    """Well-formed messages of every type, one octet short of being acceptable."""
    (request,) = lone.requests(items)
    yield lone.home_reply(request, key=bytes(32))
    yield peer.request(networks=(), key=b"z" * 20)
    message = registration.build_request(0x22, 300, HOA_A, HOME_AGENT, COA_A, bytes(8))
    auth.append_mobile_home(message, 256, "hmac-sha256", bytes(32))
    yield bytes(message)
    for kind in (26, 27):
        yield return_routability.build_test(kind, 1, b"guessed!", b"token___")
    yield bytes(revocation.build_revocation(False, True, HOA_A, HOME_AGENT, COA_A, 1))
    yield bytes(revocation.build_revocation_ack(True, HOA_A, 1))
    yield udp_tunnel.TUNNEL_HEADER + ipv4.build_udp(HOST_C, HOST_A, 1, 2, b"user")


WAYS = [
    lambda lone, data: lone.outside(HOME_AGENT, data),
    lambda lone, data: lone.outside(HOA_C, data),
    lambda lone, data: lone.outside(COA_C, data),
    lambda lone, data: lone.tunnelled(HOA_C, data),
    lambda lone, data: lone.tunnelled(COA_C, data),
    lambda lone, data: lone.tunnelled(HOA_C, data, tunnel=1),
    lambda lone, data: lone.tunnelled(HOA_C, data, dport=435),
    lambda lone, data: lone.tunnelled(HOA_C, data, dst=HOA_B),
    lambda lone, data: lone.tunnelled(HOA_C, data, tunnel=7),
]


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_every_unacceptable_message_on_every_path_is_counted_and_changes_nothing(way):
    """R3.1.1-i2 R3.3.3-i2: bad input, RFC 6521 11."""
    lone, peer, items = established()
    before = snapshot(lone.router, lone.now)
    deadline = lone.router.next_deadline()
    for data in templates(lone, peer, items):
        count = total(lone)
        assert WAYS[way](lone, data) == []
        assert total(lone) == count + 1
        assert snapshot(lone.router, lone.now) == before
    assert lone.router.next_deadline() == deadline


def test_every_bit_flip_and_cut_of_a_good_reply_is_refused():
    """G3 of the threats, for the reply of the home agent."""
    lone, _, items = established()
    (request,) = lone.requests(items)
    good = lone.home_reply(request, [(HOA_C, False, []), (HOA_B, False, [])])
    before = snapshot(lone.router, lone.now)
    for n in range(len(good)):
        count = total(lone)
        lone.outside(HOME_AGENT, good[:n])
        lone.outside(HOME_AGENT, good[:n] + bytes([good[n] ^ (1 << n % 8)]) + good[n + 1 :])
        assert total(lone) == count + 2
    assert snapshot(lone.router, lone.now) == before
    lone.outside(HOME_AGENT, good)
    assert snapshot(lone.router, lone.now) != before


def test_every_bit_flip_of_a_good_peer_request_is_refused():
    """R3.3.3-i2 G3 of the threats: all but Reserved of the authenticator."""
    lone, peer, _ = established()
    good = peer.request(networks=())
    before = snapshot(lone.router, lone.now)
    for n in range(len(good)):
        if n in (len(good) - 21, len(good) - 22):
            continue  # Subtype and Reserved are not covered [A03]
        if n % 8 == 0:
            lone.run(0)
        lone.router._correspondent._requests._second = -1  # not the rate limit's test
        data = good[:n] + bytes([good[n] ^ (1 << n % 8)]) + good[n + 1 :]
        count = total(lone)
        answers = lone.tunnelled(COA_C, data)
        found = peer.reply_in(answers)
        assert found is None or found[1].code in (201, 202, 203)
        assert total(lone) == count + 1
        assert snapshot(lone.router, lone.now) == before


LONE, PEER, ITEMS = established()
CORPUS = [*templates(LONE, PEER, ITEMS), return_routability.build_init(24, bytes(8))]
BEFORE = snapshot(LONE.router, LONE.now)


@given(
    st.sampled_from(CORPUS),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 150),
    st.integers(0, len(WAYS) - 1),
)
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_mutated_messages_never_raise_nor_change_state(data, changes, length, way):
    """G2 of the threats, in small."""
    data = bytearray(data)
    for place, value in changes:
        if place < len(data):
            data[place] = value
    WAYS[way](LONE, bytes(data[:length]))
    assert snapshot(LONE.router, LONE.now) == BEFORE


@given(st.binary(max_size=80), st.integers(0, len(WAYS) - 1))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_random_octets_never_raise_nor_change_state(data, way):
    WAYS[way](LONE, data)
    LONE.packet(data, 0)
    LONE.packet(data, 1)
    LONE.router.receive_stray(LONE.now, 0, COA_C, 4, COA_A, data)
    LONE.drain()
    assert snapshot(LONE.router, LONE.now) == BEFORE


def test_a_year_of_noise_keeps_queues_and_tables_bounded():
    rng = random.Random(1)
    lone, _, _ = established()
    for _ in range(3000):
        source = rng.randbytes(4)
        lone.tunnelled(source, return_routability.build_init(rng.choice((24, 25)), bytes(8)))
        if rng.random() < 0.05:
            lone.run(400)
    assert len(lone.router._correspondent._newest) <= 1
    assert len(lone.router.cache.all()) == 2


def test_undrained_queues_are_bounded_and_say_so():
    lone = Lone().registered()
    data = return_routability.build_init(24, bytes(8))
    for n in range(400):
        packet = ipv4.build_udp(ipv4.address(f"203.0.113.{n % 250}"), HOA_A, 434, 434, data)
        lone.router.receive_tunnelled(lone.now, 0, packet, HOME_AGENT, 434, 0)
        if n % 90 == 89:
            lone.now += 1000
    count = 0
    while lone.router.poll_transmit() is not None:
        count += 1
    assert count <= 256
    assert lone.counter("transmit_queue_full") > 0
    for _ in range(40):
        lone.router._ctx.log("line")
    logs = []
    while (event := lone.router.next_event()) is not None:
        logs.append(event)
    assert len([e for e in logs if e[0] == "log"]) == 32
    assert lone.counter("log_queue_full") > 0


def test_events_are_told_once_and_tunnels_before_routes():
    lone = Lone()
    (request,) = lone.requests(lone.up())
    lone.events.clear()
    lone.outside(HOME_AGENT, lone.home_reply(request))
    kinds = [e[0] for e in lone.events]
    assert kinds[:2] == ["tunnel", "routes"]
    assert kinds.count("routes") == 1


def test_status_is_json_and_holds_no_secret():
    """P3 of the threats: no key, token, nonce or cookie in the report."""
    import json

    lone, peer, _ = established()
    text = json.dumps(lone.router.status(lone.now))
    record = lone.router.cache.get(HOA_C)
    secrets = [lone.settings.key, record.home_keygen_token, record.registration.krm, peer.krm]
    secrets += [entry[1] for entry in lone.router._correspondent.nonces._table]
    for secret in secrets:
        assert secret
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
    logged = [e for e in lone.events if e[0] == "log"]
    assert not any(s.hex() in str(logged) for s in secrets)
