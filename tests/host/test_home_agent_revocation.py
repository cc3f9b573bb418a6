"""RFC 3543 on the home agent: revoke, allow, what is sent, and what survives a restart."""

import itertools

import pytest

from haaro.wire import auth, extensions, message, revocation
from haaro_host.home_agent.store import Store, StoreError
from tests.host.home_agent_helpers import (
    COA_A,
    HA,
    HOA_A,
    HOA_B,
    KEY,
    NOW,
    World,
    advertised,
    build_config,
)

SECONDS = NOW // 1000 & 0xFFFFFFFF


def offer(i=True, seconds=SECONDS):
    data = bytearray()
    extensions.append_revocation_support(data, i, seconds)
    return bytes(data)


def registered(world=None, **how):
    world = world or World()
    how.setdefault("extra", offer())
    reply = world.register(networks=["10.1.0.0/24"], capability={}, **how)
    assert reply.code == 0
    return world, reply


def revocations(sent):
    found = [message.parse(t.payload) for t in sent if t.payload[:1] == b"\x07"]
    assert all(auth.verify_mobile_home(m, "hmac-sha256", KEY) for m in found)
    return found


def ack(ident, hoa=HOA_A, key=KEY, spi=256, sign=True):
    data = revocation.build_revocation_ack(True, hoa, ident)
    if sign:
        auth.append_mobile_home(data, spi, "hmac-sha256", key)
    return bytes(data)


def router_status(world, name="A"):
    return next(r for r in world.ha.status(world.now)["routers"] if r["name"] == name)


def later(world, seconds):
    """Let time pass to the deadlines in it, as the shell does; return what is sent."""
    end = world.now + seconds * 1000
    sent = []
    while (due := world.ha.next_deadline()) is not None and due <= end:
        world.now = max(world.now, due)
        world.ha.handle_timer(world.now)
        sent += [(world.now, t) for t in world.drain()]
    world.now = end
    return sent


def test_support_is_answered_when_offered_and_with_i_as_offered():
    """threats R15; RFC 3543 3.2, 4.2.1."""
    for i in (False, True):
        support = registered(extra=offer(i))[1].find(extensions.RevocationSupport)
        assert (support.i, support.timestamp) == (i, SECONDS)
    assert registered(extra=b"")[1].find(extensions.RevocationSupport) is None


def test_revoked_router_loses_its_binding_and_is_told_where_its_last_reply_went():
    """threats R15; RFC 3543 3.3, 4.2.2.1: A and I, its care-of address, newer than the Reply's."""
    world, _ = registered(src=COA_A, sport=20434)
    world.now += 5000
    assert world.ha.revoke(world.now, HOA_A) is True
    assert world.ha.bindings == {}
    sent = world.drain()
    (told,) = revocations(sent)
    assert (sent[0].dst, sent[0].dport) == (COA_A, 20434)
    assert (told.a, told.i, told.home_address) == (True, True, HOA_A)
    assert (told.home_domain, told.foreign_domain) == (HA, COA_A)
    assert told.identifier == SECONDS + 5
    assert router_status(world)["revoked"] and router_status(world)["revocation_unacknowledged"]
    world.send(ack(told.identifier))
    assert world.ha.counters["revocation_acknowledged"] == 1
    assert not router_status(world)["revocation_unacknowledged"]
    assert later(world, 400) == []


def test_never_two_messages_in_a_second_and_identifiers_always_newer():
    """threats R15; RFC 3543 3.3, 4.2.2.1: after a Reply too; doubled waits; not past the life."""
    world, reply = registered()
    world.ha.revoke(world.now, HOA_A)
    assert world.drain() == []
    sent = later(world, 400)
    times = [at for at, _ in sent]
    assert times[0] >= NOW + 1000
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[:3] == [1000, 2000, 4000] and max(gaps) == 32_000
    assert times[-1] < NOW + reply.lifetime * 1000
    idents = [m.identifier for m in revocations([t for _, t in sent])]
    assert all(b > a for a, b in itertools.pairwise(idents))
    assert idents[0] > reply.find(extensions.RevocationSupport).timestamp
    assert world.ha.counters["revocation_unacknowledged"] == 1
    assert world.ha.next_deadline() is None


def test_revoked_router_is_refused_until_allowed_and_nobody_is_told_of_it():
    """threats R15: code 129; also its traffic stops at once, to and from it."""
    world, _ = registered()
    world.register(hoa=HOA_B, coa=b"\xc6\x33\x64\x4a", networks=["10.2.0.0/24"], capability={})
    generation = world.ha.generation
    world.ha.revoke(world.now, HOA_A)
    assert world.ha.generation > generation  # no flow that was decided before goes on
    world.now += 2000
    world.drain()
    reply = world.register(networks=["10.1.0.0/24"], capability={}, extra=offer())
    assert (reply.code, reply.find(extensions.RevocationSupport)) == (129, None)
    assert world.ha.counters["router_revoked"] == 1
    reply = world.register(
        hoa=HOA_B, coa=b"\xc6\x33\x64\x4a", networks=["10.2.0.0/24"], capability={}
    )
    assert advertised(reply) == []
    assert world.ha.allow(world.now, HOA_A) is True
    assert world.ha.allow(world.now, HOA_A) is False
    world.now += 2000
    registered(world)


def test_revocation_outlives_a_restart_and_its_stamps_stay_newer(tmp_path):
    """threats R15: on disk before anything is sent; a replay of the old one stays old."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    world.register(networks=["10.1.0.0/24"], extra=offer())
    world.now += 8000  # past the floor of a state file that knew nobody
    registered(world)
    world.ha.revoke(world.now, HOA_A)
    (first,) = revocations([t for _, t in later(world, 1)])
    world.store.close()
    again = World(store=Store(path))
    again.now = world.now + 1000
    assert again.ha.bindings == {}
    reply = again.register(networks=["10.1.0.0/24"], extra=offer())
    assert reply.code == 129
    assert router_status(again)["revoked"]
    again.ha.allow(again.now, HOA_A)
    again.now += 1000
    _, reply = registered(again)
    assert reply.find(extensions.RevocationSupport).timestamp >= first.identifier
    again.store.close()
    last = World(store=Store(path))
    last.now = again.now
    assert not router_status(last)["revoked"]
    assert last.ha.revoke(last.now + 1000, HOA_A) is True
    last.now += 1000
    assert revocations(last.drain()), "what was agreed is known after a restart"
    last.store.close()


def test_a_router_that_did_not_offer_it_is_only_barred():
    """threats R15; RFC 3543 4.2.1: no message to whom did not agree."""
    world, _ = registered(extra=b"")
    world.now += 2000
    assert world.ha.revoke(world.now, HOA_A) is True
    assert later(world, 400) == []
    assert world.register(networks=["10.1.0.0/24"]).code == 129
    assert world.ha.revoke(world.now, HOA_B) is False


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (ack(SECONDS + 9), "revocation_ack_not_awaited"),
        (ack(SECONDS + 2, hoa=HOA_B), "revocation_ack_not_awaited"),
        (ack(SECONDS + 2, key=bytes(16)), "revocation_ack_bad_authenticator"),
        (ack(SECONDS + 2, spi=300), "revocation_ack_bad_authenticator"),
        (ack(SECONDS + 2, sign=False), "revocation_ack_authenticators"),
        (ack(SECONDS + 2, hoa=HA), "revocation_ack_authenticators"),
    ],
)
def test_acknowledgment_that_answers_nothing_of_ours_is_dropped(data, counter):
    """threats R15; RFC 3543 3.5."""
    world, _ = registered()
    world.now += 2000
    world.ha.revoke(world.now, HOA_A)
    world.drain()
    world.send(data)
    assert world.ha.counters[counter] == 1
    assert world.ha.counters["revocation_acknowledged"] == 0
    assert router_status(world)["revocation_unacknowledged"]


def test_revocation_that_comes_back_is_dropped():
    """threats R15: reflected to its sender; a router's own too, as it deregisters instead."""
    world, _ = registered()
    world.now += 2000
    world.ha.revoke(world.now, HOA_A)
    (sent,) = world.drain()
    assert world.send(sent.payload) == []
    assert world.ha.counters["unexpected_type_7"] == 1


def test_revocation_that_cannot_be_stored_changes_nothing(monkeypatch):
    """threats R15: refused as a whole; the operator is told."""
    world, _ = registered()

    def fail(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(world.store, "put_terms", fail)
    with pytest.raises(StoreError):
        world.ha.revoke(world.now, HOA_A)
    assert HOA_A in world.ha.bindings
    world.now += 2000
    registered(world)


def test_router_taken_out_of_the_configuration_is_sent_nothing_more():
    """threats R15: its key is gone with it."""
    world, _ = registered()
    world.ha.revoke(world.now, HOA_A)

    def without_a(document):
        document["router"] = document["router"][1:]

    secrets = lambda s: s["router"].pop(0)  # noqa: E731
    world.ha.reconfigure(world.now, build_config(without_a, secrets))
    assert later(world, 100) == []


def test_stamps_stay_newer_when_the_clock_is_a_little_behind_after_a_restart(tmp_path):
    """threats R15: else a replayed Revocation would end the registration after it."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    world.register(networks=["10.1.0.0/24"], extra=offer())
    world.now += 8000
    registered(world)
    world.now += 20_000
    world.ha.revoke(world.now, HOA_A)
    (told,) = revocations(world.drain())
    world.store.close()
    again = World(store=Store(path))
    again.now = world.now - 15_000
    again.ha.allow(again.now, HOA_A)
    _, reply = registered(again)
    assert reply.find(extensions.RevocationSupport).timestamp >= told.identifier
    again.now += 2000
    again.ha.revoke(again.now, HOA_A)
    (newer,) = revocations(again.drain())
    assert newer.identifier > told.identifier
    again.store.close()
