"""Two live keys: while one is rotated, nothing is lost whichever of both the other side knows."""

import pytest

from haaro.core.settings import Settings
from haaro.wire import auth, return_routability
from tests.core.helpers import HOA_A, HOA_C, HOME_AGENT, KEY, Lone, ScriptedPeer, Triangle, snapshot

OTHER = bytes(range(32, 64))
BOTH = {"spi": 257, "key": OTHER, "other_association": (256, "hmac-sha256", KEY)}


def spis(lone):
    return [request.authenticator.spi for request in lone.requests([i for _, i in lone.sent])]


def accept(lone, request, **key):
    return lone.outside(HOME_AGENT, lone.home_reply(request, **key))


def test_the_first_association_signs_and_the_other_one_only_after_silence():
    """A home agent without the new SPI discards in silence (RFC 5944 3.8.2.1)."""
    lone = Lone(**BOTH)
    lone.up()
    lone.run(1300)
    first, second = lone.requests([i for _, i in lone.sent])
    assert (first.authenticator.spi, second.authenticator.spi) == (257, 256)
    assert auth.verify_mobile_home(first, "hmac-sha256", OTHER)
    assert auth.verify_mobile_home(second, "hmac-sha256", KEY)
    accept(lone, second)
    assert lone.router.registration.registered


def test_each_renewal_begins_with_the_first_association_again():
    lone = Lone(**BOTH)
    lone.up()
    lone.run(1300)
    accept(lone, lone.requests([i for _, i in lone.sent])[-1], lifetime=100)
    del lone.sent[:]
    lone.run(76_000)
    assert spis(lone)[:1] == [257]
    assert lone.router.registration.registered


def test_silence_of_both_alternates_them_with_the_usual_backoff():
    lone = Lone(**BOTH)
    lone.up()
    lone.run(40_000)
    assert spis(lone) == [257, 256, 257, 256, 257, 256]


def test_a_router_with_one_association_never_changes_it():
    lone = Lone()
    lone.up()
    lone.run(40_000)
    assert set(spis(lone)) == {256}


@pytest.mark.parametrize(("spi", "key"), [(256, KEY), (257, OTHER)])
def test_a_reply_under_either_live_key_is_taken(spi, key):
    lone = Lone(**BOTH)
    (request,) = lone.requests(lone.up())
    accept(lone, request, spi=spi, key=key)
    assert lone.router.registration.registered


@pytest.mark.parametrize(
    ("spi", "key", "counter"),
    [(258, KEY, "reply_unknown_spi"), (256, OTHER, "reply_bad_authenticator")],
)
def test_a_reply_under_no_live_key_changes_nothing(spi, key, counter):
    """Only what is authentic under the SPI that it names counts."""
    lone = Lone(**BOTH)
    (request,) = lone.requests(lone.up())
    before = snapshot(lone.router, lone.now)
    accept(lone, request, spi=spi, key=key)
    assert lone.counter(counter) == 1
    assert snapshot(lone.router, lone.now) == before


def test_an_authentic_code_131_turns_to_the_other_key():
    lone = Lone(**BOTH)
    (request,) = lone.requests(lone.up())
    accept(lone, request, code=131)
    lone.run(1300)
    assert spis(lone) == [257, 256]


def test_a_clock_that_is_set_asks_again_with_the_same_key():
    """Code 133 is an answer: the home agent knows the key."""
    lone = Lone(**BOTH)
    (request,) = lone.requests(lone.up())
    identification = lone.ntp(86_400_000).to_bytes(8, "big")[:4] + request.identification[4:]
    accept(lone, request, code=133, identification=identification, spi=257, key=OTHER)
    lone.run(1300)
    assert spis(lone) == [257, 257]


def reload_keys(lone, *associations, static_krm=None):
    lone.settings.take_keys(list(associations), static_krm or {})
    lone.router.keys_changed(lone.now)


def test_new_keys_are_taken_without_touching_the_binding():
    lone = Lone().registered()
    before = snapshot(lone.router, lone.now)
    reload_keys(lone, (257, "hmac-sha256", OTHER), BOTH["other_association"])
    assert snapshot(lone.router, lone.now) == before
    del lone.sent[:]
    lone.router.registration.refresh(lone.now)
    lone.run(500)
    (request,) = lone.requests([i for _, i in lone.sent])
    assert auth.verify_mobile_home(request, "hmac-sha256", OTHER)


def test_a_peer_that_knows_the_other_live_key_only_is_reached_by_the_second_request():
    """A58: nothing in the request names the key, so both are tried, the current one first."""
    keys = [b"n" * 20, b"k" * 20]
    lone = Lone(static_krm={HOA_C: keys}).registered()
    peer = ScriptedPeer(lone)
    lone.router.traffic_wanted(lone.now, 0)
    (first,) = peer.peer_requests(lone.drain())
    items = lone.run(1300)
    (second,) = peer.peer_requests(items)
    assert auth.verify_mobile_correspondent(first, keys[0])
    assert auth.verify_mobile_correspondent(second, keys[1])
    peer.accept(items, key=keys[1], index=(0, 0))
    assert lone.peer_status()["registered"]
    lone.router.stop(lone.now)
    (last,) = peer.peer_requests(lone.drain())
    assert last.lifetime == 0
    assert auth.verify_mobile_correspondent(last, keys[1])


def test_static_keys_come_and_go_with_a_reload():
    """A58: a peer whose key was withdrawn is taken by return routability again, or not at all."""
    lone = Lone().registered()
    reload_keys(lone, BOTH["other_association"], static_krm={HOA_C: [b"k" * 20]})
    peer = ScriptedPeer(lone)
    lone.router.traffic_wanted(lone.now, 0)
    items = lone.drain()
    (request,) = peer.peer_requests(items)
    assert auth.verify_mobile_correspondent(request, b"k" * 20)
    reload_keys(lone, BOTH["other_association"])
    assert not lone.peer_status()["static_krm"]
    lone.router.traffic_wanted(lone.now, 0)
    items = lone.drain()
    assert peer.peer_requests(items) == []
    assert [i.payload[0] for i in items if i.tunnel < 0] == [return_routability.COTI]


def test_a_withdrawn_key_ends_what_was_registered_with_it():
    """A stolen box is not kept by its last registration, which may last an hour [A58]."""
    first, second = b"k" * 20, b"n" * 20
    world = Triangle(settings=static_pair(first))
    world.make_direct(world.c, world.a)
    for node, other in ((world.a, HOA_C), (world.c, HOA_A)):
        # As in a rotation: one of the keys that were live stays so.
        node.settings.static_krm = {other: [second, first]}
        node.router.keys_changed(world.net.now)
    world.net.run(2000)
    assert world.both_direct(world.c, world.a)
    world.a.settings.static_krm = {}
    world.a.router.keys_changed(world.net.now)
    assert world.a.router.cache.get(HOA_C).binding is None
    assert not world.a.is_direct(world.c)
    world.net.run(10_000)
    # C still has the keys and asks; A has none and wants return routability.
    world.traffic(world.c, world.a, 30_000, 1000)
    assert world.a.router.cache.get(HOA_C).binding is None


def static_pair(key):
    def settings(name):
        options = Settings()
        options.static_krm = {"A": {HOA_C: [key]}, "C": {HOA_A: [key]}}.get(name, {})
        return options

    return settings
