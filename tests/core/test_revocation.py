"""RFC 3543 between a router and the home agent: who may end a registration, and what is left."""

import itertools

import pytest

from haaro.wire import auth, extensions, message, revocation
from tests.core.helpers import COA_A, COA_C, HOA_A, HOA_C, KEY, LAN_C, Lone, Triangle, snapshot
from tests.core.network import HOME_AGENT

STAMP = 4_100_000_000


def agreed(lone=None, stamp=STAMP):
    """A router registered with a home agent that agreed to revocation at `stamp`."""
    lone = lone or Lone()
    (request,) = lone.requests(lone.up())

    def append(reply):
        extensions.append_udp_tunnel_reply(reply, 0, True, 0)
        extensions.append_mobile_network_ack(reply, 0, *request_networks(request)[0])
        extensions.append_route_optimization_reply(reply, False, False, False)
        if stamp is not None:
            extensions.append_revocation_support(reply, True, stamp)

    lone.outside(HOME_AGENT, lone.home_reply(request, append=append))
    assert lone.router.registration.registered
    return lone


def request_networks(request):
    return [(e.prefix, e.plen) for e in request.all(extensions.MobileNetworkRequest)]


def revoke(ident=STAMP + 1, a=True, hoa=HOA_A, home=HOME_AGENT, foreign=COA_A, **how):
    """A Revocation as the home agent sends it, or nearly."""
    data = revocation.build_revocation(a, True, hoa, home, foreign, ident)
    if how.get("sign", True):
        auth.append_mobile_home(data, how.get("spi", 256), "hmac-sha256", how.get("key", KEY))
    return bytes(data)


def acks(items):
    found = [message.parse(i.payload) for i in items if i.tunnel < 0 and i.payload[0] == 15]
    assert all(auth.verify_mobile_home(ack, "hmac-sha256", KEY) for ack in found)
    return found


def test_every_request_offers_revocation_with_our_clock():
    """threats R15; RFC 3543 3.2, 4.2.1: with I, and the NTP seconds of the Identification."""
    lone = Lone()
    (request,) = lone.requests(lone.up())
    support = request.find(extensions.RevocationSupport)
    assert support.i
    assert support.timestamp == int.from_bytes(request.identification[:4], "big")


def test_revoked_binding_is_gone_acknowledged_and_asked_for_again_slowly():
    """threats R15; RFC 3543 4.2.2.3, 3.4: to its source address and port; at most one a second."""
    lone = agreed()
    at = lone.now
    items = lone.outside(HOME_AGENT, revoke(), sport=40434)
    (ack,) = acks(items)
    assert (ack.home_address, ack.identifier, ack.i) == (HOA_A, STAMP + 1, True)
    (sent,) = [i for i in items if i.payload[0] == 15]
    assert (sent.dst, sent.dport, sent.uplink) == (HOME_AGENT, 40434, 0)
    assert not lone.router.registration.registered
    assert lone.router.tunnels.get(0) is None
    assert not [route for route in lone.router.forwarding_table()[0] if route[2] >= 0]
    assert ("log", "warning", "the home agent revoked our registration") in lone.events
    (request,) = lone.requests(lone.run(4000))
    assert [t for t, i in lone.sent if i.payload[:1] == b"\x01"][-1] >= at + 1000
    lone.outside(HOME_AGENT, lone.home_reply(request, code=129, lifetime=0))
    warnings = [e[2] for e in lone.events if e[0] == "log" and e[1] == "warning"]
    assert warnings[-1] == "home agent denied the registration: administratively_prohibited"
    lone.run(60_000)
    assert len(lone.requests(lone.run(120_000))) <= 5


def test_lost_acknowledgment_is_given_again_for_a_newer_identifier_only():
    """threats R15"""
    lone = agreed()
    lone.outside(HOME_AGENT, revoke())
    assert not acks(lone.outside(HOME_AGENT, revoke()))
    assert lone.counter("revocation_replayed") == 1
    (ack,) = acks(lone.outside(HOME_AGENT, revoke(STAMP + 3)))
    assert ack.identifier == STAMP + 3


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (revoke(STAMP), "revocation_replayed"),
        (revoke(STAMP - 1), "revocation_replayed"),
        (revoke(a=False), "revocation_reflected"),
        (revoke(sign=False), "revocation_authenticators"),
        (revoke(key=bytes(16)), "revocation_bad_authenticator"),
        (revoke(spi=257), "revocation_unknown_spi"),
        (revoke(hoa=HOA_C), "revocation_other_binding"),
        (revoke(home=COA_C), "revocation_other_binding"),
        (revoke(foreign=COA_C), "revocation_other_binding"),
    ],
)
def test_refused_revocation_is_counted_and_changes_nothing(data, counter):
    """threats R15: forged, replayed, reflected, or of another binding."""
    lone = agreed()
    before = snapshot(lone.router, lone.now)
    assert not lone.outside(HOME_AGENT, data)
    assert lone.counter(counter) == 1
    assert snapshot(lone.router, lone.now) == before


def test_revocation_from_elsewhere_or_by_a_tunnel_or_not_agreed_is_dropped():
    """threats R15; RFC 3543 4.2.1: both must have said so in the registration."""
    lone = agreed()
    assert not lone.outside(COA_C, revoke())
    assert lone.counter("revocation_unknown_source") == 1
    assert not lone.tunnelled(HOME_AGENT, revoke())
    assert lone.counter("revocation_on_wrong_path") == 1
    assert lone.router.registration.registered
    lone = agreed(stamp=None)
    assert not lone.outside(HOME_AGENT, revoke())
    assert lone.counter("revocation_not_agreed") == 1
    assert lone.router.registration.registered


def test_an_acknowledgment_sent_to_a_router_is_dropped():
    """threats R15: an ack with no request."""
    lone = agreed()
    ack = revocation.build_revocation_ack(True, HOA_A, STAMP + 1)
    auth.append_mobile_home(ack, 256, "hmac-sha256", KEY)
    assert not lone.outside(HOME_AGENT, ack)
    assert lone.counter("message_type_unexpected") == 1


def test_revoked_router_is_off_the_net_within_5_s_until_it_is_allowed():
    """threats R15: binding, direct paths and what peers are told; then all of it back."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.ha.revoke(world.c)
    start = world.net.now
    world.net.run_until(lambda: not world.c.router.registration.registered, 1000)
    world.net.run_until(
        lambda: not world.a.is_direct(world.c) and not world.a.router.tunnels.of_peer(HOA_C), 5000
    )
    assert world.net.now - start <= 5000
    world.net.run(10_000)
    assert world.send(world.c, world.a) is None
    quiet = world.net.now
    sent, _ = world.traffic(world.a, world.c, 5000)
    assert sent and not [d for d in world.c.delivered if d[0] >= quiet]
    # A hears from nobody but the home agent, which says that C cannot be reached.
    assert {packet[12:16] for t, _, packet in world.a.delivered if t >= quiet} == {HOME_AGENT}
    # Nobody learns of it any more: A, asked afresh, drops the record.
    world.a.router.registration.refresh(world.net.now)
    world.net.run_until(lambda: world.a.router.cache.get(HOA_C) is None, 30_000)
    assert any("administratively_prohibited" in line for line in world.c.log)
    denials = [d for d in world.net.since(start, "reply") if (d.src, d.dst) == (HOME_AGENT, COA_C)]
    assert denials and all(d.signalling.code == 129 for d in denials)
    world.ha.allow(world.c)
    world.net.run_until(lambda: world.c.router.registration.registered, 45_000)
    world.make_direct(world.c, world.a)
    assert world.a.router.cache.get(HOA_C).valid_prefix(*LAN_C)


def test_revoked_while_the_revocation_is_lost_is_told_again():
    """threats R15; RFC 3543 4.2.2.1: again with a newer identifier, after growing waits."""
    world = Triangle()
    lost = []

    def drop(datagram):
        if datagram.inner is None and datagram.payload[0] == 7 and len(lost) < 3:
            lost.append(datagram)
            return True
        return False

    world.net.filters.append(drop)
    world.ha.revoke(world.c)
    world.net.run_until(lambda: not world.c.router.registration.registered, 20_000)
    assert len(lost) == 3
    sent = [d for d in world.net.captured if d.inner is None and d.payload[0] == 7]
    idents = [d.signalling.identifier for d in sent]
    assert idents == sorted(set(idents))
    waits = [b.time - a.time for a, b in itertools.pairwise(sent)]
    assert waits == sorted(waits) and min(waits) >= 1000
    world.net.run(30_000)
    assert len([d for d in world.net.captured if d.inner is None and d.payload[0] == 7]) == len(
        sent
    )
