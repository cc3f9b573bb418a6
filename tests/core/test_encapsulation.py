"""Which encapsulation tunnels get: asked for, granted, refused; UDP where nothing else passes."""

import pytest

from haaro.core import encapsulation
from haaro.core.settings import Settings
from haaro.wire import extensions, message, registration
from tests.core.helpers import (
    COA_A,
    COA_A2,
    COA_C,
    COA_C2,
    HOA_A,
    HOA_C,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
)
from tests.core.network import HOME_AGENT
from tests.core.test_tunnels import Nat

D_T = registration.FLAG_D | registration.FLAG_T
FLAGS = {"ipip": 0, "gre": registration.FLAG_G, "minimal": registration.FLAG_M}
OVERHEAD = {"udp": 32, "ipip": 20, "gre": 24, "minimal": 20}
every_kind = pytest.mark.parametrize("kind", FLAGS)


def world_of(kinds, register=True):
    """The three routers, each with the encapsulation of `kinds`, by name."""

    def settings(name):
        made = Settings()
        made.encapsulation = kinds.get(name, "udp")
        return made

    return Triangle(register=register, settings=settings)


def in_use(node, other=None):
    """Return (encapsulation, MTU) of a tunnel, as the status has it: HA's, or the direct one."""
    status = node.router.status(node.network.now)
    tunnel = status["registration"]["tunnel"] if other is None else node.peer(other)["tunnel"]
    return tunnel["encapsulation"], tunnel["mtu"]


def only_udp(world, *addresses):
    """A firewall: from and to these addresses nothing but UDP passes."""
    world.net.filters.append(
        lambda d: d.sport > 0xFFFF and (d.src in addresses or d.dst in addresses)
    )


def on_wire(world, src, dst, since=0):
    """Return the encapsulations of user packets that were on the wire between two addresses."""
    found = [d for d in world.net.captured if (d.src, d.dst) == (src, dst) and d.time >= since]
    return {encapsulation.name(d.sport) for d in found if d.kind == "user"}


@every_kind
def test_request_asks_by_its_flags_and_offers_udp(kind):
    """RFC 5944 3.3, RFC 3519 3.1: F says that UDP is wanted even without a NAT."""
    (item,) = Lone(encapsulation=kind).up()
    request = message.parse(item.payload)
    assert request.flags == D_T | FLAGS[kind]
    offer = request.find(extensions.UdpTunnelRequest)
    assert (offer.force, offer.encapsulation) == (False, 4)


@every_kind
def test_all_tunnels_are_of_the_kind_that_both_ends_want(kind):
    """R3.3.4-i6 R3.3.4-3: with the home agent, and directly after a keepalive was answered."""
    world = world_of(dict.fromkeys("ABC", kind))
    world.make_direct(world.c, world.a)
    since = world.net.now
    sent, arrived = world.traffic(world.a, world.c, 3000)
    assert arrived == {world.a: sent, world.c: sent}
    assert on_wire(world, COA_A, COA_C, since) == on_wire(world, COA_C, COA_A, since) == {kind}
    for one, other in ((world.a, world.c), (world.c, world.a)):
        assert in_use(one) == in_use(one, other) == (kind, 1500 - OVERHEAD[kind])
        status = one.router.status(world.net.now)["registration"]
        assert status["udp_because"] is None and status["tunnel"]["remote_port"] == 0


@pytest.mark.parametrize("starts", "AC")
@pytest.mark.parametrize(("of_a", "of_c"), [("gre", "udp"), ("gre", "ipip"), ("udp", "minimal")])
def test_routers_that_want_different_ones_meet_in_udp(starts, of_a, of_c):
    """Both register with each other: whoever begins, there is one tunnel of one kind."""
    world = world_of({"A": of_a, "C": of_c})
    one, other = (world.a, world.c) if starts == "A" else (world.c, world.a)
    # A was there first and has not heard of C yet.
    world.a.router.registration.refresh(world.net.now)
    world.net.run(3000)
    world.make_direct(one, other)
    assert in_use(world.a)[0] == of_a and in_use(world.c)[0] == of_c
    since = world.net.now
    # Over a renewal of both registrations.
    sent, arrived = world.traffic(world.a, world.c, 200_000, 1000)
    assert arrived == {world.a: sent, world.c: sent}
    assert on_wire(world, COA_A, COA_C, since) == on_wire(world, COA_C, COA_A, since) == {"udp"}
    assert in_use(world.a, world.c) == in_use(world.c, world.a) == ("udp", 1468)


@every_kind
def test_behind_a_nat_it_is_udp_and_the_status_says_why(kind):
    """R3.3.3-9; RFC 3519 4.6: the home agent sees the NAT and takes the offer."""
    world = world_of(dict.fromkeys("ABC", kind), register=False)
    Nat(world)
    for node in (world.a, world.b, world.c):
        node.attach(0, world.coas[node])
        world.net.run(2000)
    assert in_use(world.c) == ("udp", 1468) and in_use(world.a)[0] == kind
    home = world.c.router.status(0)["registration"]
    assert home["nat"] and home["udp_because"] == "a NAT is in the way"
    world.make_direct(world.c, world.a)
    assert in_use(world.c, world.a)[0] == in_use(world.a, world.c)[0] == "udp"
    asked = [d for d in world.net.captured if d.kind == "request" and d.dst == HOA_A]
    assert all(d.signalling.find(extensions.UdpTunnelRequest).force for d in asked)


@every_kind
def test_a_refused_encapsulation_is_followed_by_a_request_for_udp(kind):
    """RFC 5944 3.8.3.1: code 139 from a home agent whose operator does not allow it."""
    world = world_of({"A": kind}, register=False)
    world.ha.encapsulations = ["udp"]
    world.ha._configure()
    world.a.attach(0, COA_A)
    world.net.run_until(lambda: world.a.router.registration.registered, 5000)
    assert in_use(world.a) == ("udp", 1468)
    why = world.a.router.status(0)["registration"]["udp_because"]
    assert why == f"the home agent does not allow {kind}"
    # Another network may be another matter; here it is not, and is asked once more.
    world.net.run(3000)
    before = len([d for d in world.net.captured if d.kind == "request"])
    world.a.attach(0, COA_A2)
    world.net.run(3000)
    requests = [d for d in world.net.captured if d.kind == "request"][before:]
    assert [d.signalling.flags for d in requests] == [D_T | FLAGS[kind], D_T]


@every_kind
def test_where_nothing_but_udp_passes_the_home_agents_tunnel_becomes_udp(kind):
    """R3.3.3-9: a firewall is found by keepalives that nobody answers."""
    world = world_of({"A": kind}, register=False)
    only_udp(world, COA_A)
    world.a.attach(0, COA_A)
    world.net.run_until(lambda: world.a.router.registration.registered, 5000)
    assert in_use(world.a)[0] == kind
    took = world.net.run_until(lambda: in_use(world.a)[0] == "udp", 15_000)
    assert took <= 10_000
    why = world.a.router.status(0)["registration"]["udp_because"]
    assert why == f"no answer came through the {kind} tunnel"
    world.net.run(60_000)
    assert in_use(world.a)[0] == "udp"
    # Another care-of address, another network.
    world.a.attach(0, COA_A2)
    world.net.run(3000)
    assert in_use(world.a)[0] == kind
    assert world.a.router.status(0)["registration"]["udp_because"] is None


def test_a_firewall_that_comes_later_is_found_too():
    world = world_of({"A": "gre"}, register=False)
    world.a.attach(0, COA_A)
    world.net.run(60_000)
    assert in_use(world.a)[0] == "gre"
    only_udp(world, COA_A)
    world.net.run(240_000)
    assert in_use(world.a)[0] == "udp" and world.a.router.registration.registered


@every_kind
def test_where_nothing_but_udp_passes_between_two_routers_their_tunnel_becomes_udp(kind):
    """R3.3.3-9 R3.3.3-19 R3.3.3-23: the path does not come up, and both ends are retargeted."""
    world = world_of(dict.fromkeys("ABC", kind))
    world.net.filters.append(lambda d: d.sport > 0xFFFF and HOME_AGENT not in (d.src, d.dst))
    world.make_direct(world.c, world.a)
    assert in_use(world.c, world.a)[0] == in_use(world.a, world.c)[0] == "udp"
    assert in_use(world.c)[0] == in_use(world.a)[0] == kind
    since = world.net.now
    world.traffic(world.a, world.c, 200_000, 1000)
    assert on_wire(world, COA_A, COA_C, since) == {"udp"}


def test_moving_to_another_address_keeps_the_encapsulation_and_loses_nothing():
    """R3.3.6-4: the end before the move is received from in GRE, too."""
    world = world_of(dict.fromkeys("ABC", "gre"))
    world.make_direct(world.c, world.a)
    world.a.attach(1, COA_A2)
    world.a.router.drain(world.net.now, 0)
    world.a.pump()
    sent, arrived = world.traffic(world.a, world.c, 20_000)
    assert arrived == {world.a: sent, world.c: sent}
    tunnel = world.c.router.tunnels.of_peer(HOA_A)
    assert tunnel.remote == COA_A2 and in_use(world.c, world.a)[0] == "gre"


# one router alone, and what it says to a peer

KNOWN = ((HOA_C, False, [(*LAN_C, "")]),)


@pytest.mark.parametrize(
    ("flags", "offer", "nat", "outcome"),
    [
        (registration.FLAG_G, (False, 4), False, "gre"),
        (registration.FLAG_G, None, False, "gre"),
        (registration.FLAG_G, (True, 4), False, "udp"),
        (registration.FLAG_G, (False, 4), True, "udp"),
        (registration.FLAG_G, None, True, 142),
        (0, (False, 4), False, "udp"),  # IP in IP is not what we want
        (0, None, False, 142),
        (registration.FLAG_M, (False, 0), False, 142),  # minimal encapsulation inside UDP
        (0, (True, 47), False, 142),
        (registration.FLAG_G, (True, 0), False, 142),
    ],
)
def test_a_peers_request_is_answered_by_what_we_want_too(flags, offer, nat, outcome):
    """R3.3.3-18; RFC 3519 4.6: UDP as offered, 142 when it was not or has no IP inside."""
    lone = Lone(encapsulation="gre").registered(KNOWN)
    source = COA_C2 if nat else COA_C
    peer = ScriptedPeer(lone).test(source)
    how = {"flags": D_T | flags, "udp": offer is not None, "offer": offer}
    _, reply = peer.reply_in(peer.register(source, **how))
    if outcome == 142:
        assert reply.code == 142 and lone.router.tunnels.of_peer(HOA_C) is None
        return
    assert reply.code == 0
    granted = reply.find(extensions.UdpTunnelReply)
    assert granted.will_tunnel == (outcome == "udp")
    assert lone.peer_status()["tunnel"]["encapsulation"] == outcome
